"""SmolLM2-135M in vLLM behind a Heliostat endpoint, and behind Ray Serve LLM with its fast path.

That is HAProxy, RAY_SERVE_THROUGHPUT_OPTIMIZED and direct streaming, without keys and limits; ours has both. Mark: no
fewer tokens/s.
"""

from __future__ import annotations

import os

from tests.benchmarks.bench_noop_route import FAST
from tests.benchmarks.chat_servers import Contest
from tests.benchmarks.ray_llm_endpoint import CONFIG, serve_llm


def serve_fast(folder: str, port: int) -> None:
    """The same with the settings of the fast path, which Ray reads as it is imported."""
    os.environ |= {**FAST, "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}
    serve_llm(folder, port)


if __name__ == "__main__":
    Contest(
        module="ray_llm_fast_endpoint",
        other="ray_llm_fast",
        serve_other=serve_fast,
        config=CONFIG,
        requests={1: 10, 8: 32, 32: 64},
        rounds=int(os.environ.get("BENCH_ROUNDS", "6")),
        marks={"tokens_per_second_ratio": 1.0},
        ready="/v1/models",
    ).main()

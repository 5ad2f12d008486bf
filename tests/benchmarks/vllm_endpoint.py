"""SmolLM2-135M in vLLM behind a Heliostat endpoint (keys, limits, metrics, HAProxy) and behind vLLM's own server.

Both engines get the same arguments and one thread. Marks: 0.98 of the tokens/s, and a first token within 2 ms at 1.
"""

from __future__ import annotations

import os
from pathlib import Path

from heliostat.serve.config import ServeConfig
from tests.benchmarks.chat_servers import NAME, Contest

CONFIG = ServeConfig(engine="vllm", vllm={"max_model_len": 2048, "kv_cache_memory_bytes": 2 << 30})


def serve_vllm(folder: str, port: int) -> None:
    """Its own server with the same arguments and threads, and as few logs."""
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server

    from heliostat.serve.engines.vllm import arguments

    args = arguments(Path(folder), CONFIG, NAME, {})
    args.host, args.port, args.disable_uvicorn_access_log = "127.0.0.1", port, True
    uvloop.run(run_server(args))


if __name__ == "__main__":
    Contest(
        module="vllm_endpoint",
        other="vllm",
        serve_other=serve_vllm,
        config=CONFIG,
        requests={1: 10, 8: 32, 32: 64},
        rounds=int(os.environ.get("BENCH_ROUNDS", "6")),
        marks={"tokens_per_second": 0.98, "first_token_ms_apart": 2.0},
    ).main()

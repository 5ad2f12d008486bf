"""SmolLM2-135M behind a Heliostat endpoint with its transformers engine, and behind `transformers serve`.

Both compute in bfloat16 on all cores, and batch continuously. Mark: twice the tokens/s at 32 streams.
"""

from __future__ import annotations

import os

from heliostat.serve.config import ServeConfig
from tests.benchmarks.chat_servers import Contest

CORES = os.cpu_count() or 1


def serve_transformers(folder: str, port: int) -> None:
    """As its command does, with continuous batching unless TRANSFORMERS_BATCHING is 0."""
    from transformers.cli.serve import Serve

    Serve(
        force_model=folder,
        cb_block_size=32,
        cb_num_blocks=512,  # 16,384 tokens; left to itself it takes nearly all memory of the machine
        continuous_batching=os.environ.get("TRANSFORMERS_BATCHING", "1") == "1",
        device="cpu",
        dtype="bfloat16",
        host="127.0.0.1",
        port=port,
    )


if __name__ == "__main__":
    Contest(
        module="bench_chat_endpoint",
        other="transformers",
        serve_other=serve_transformers,
        config=ServeConfig(engine="transformers", cpus_per_replica=CORES),
        requests={1: 2, 32: 32},
        rounds=int(os.environ.get("BENCH_ROUNDS", "4")),
        marks={"tokens_per_second_ratio_at_32": 2.0},
    ).main()

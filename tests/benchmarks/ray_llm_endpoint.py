"""SmolLM2-135M in vLLM behind a Heliostat endpoint, and behind the application that Ray Serve LLM builds.

Both engines get the same arguments and one thread. Mark: 1.15 times the tokens/s.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from heliostat.serve.config import ServeConfig
from tests.benchmarks.chat_servers import NAME, Contest

CONFIG = ServeConfig(engine="vllm", vllm={"max_model_len": 2048, "kv_cache_memory_bytes": 2 << 30})
GIVEN = (
    "dtype", "max_num_seqs", "max_model_len", "kv_cache_memory_bytes", "enforce_eager", "override_generation_config",
)  # fmt: skip
"""Of the engine's arguments, those that differ from vLLM's own."""


def serve_llm(folder: str, port: int) -> None:
    """As its users start it, on one replica of one CPU."""
    import ray
    from ray import serve
    from ray.serve.llm import LLMConfig, build_openai_app

    from heliostat.serve.engines.vllm import arguments

    args = arguments(Path(folder), CONFIG, NAME, {})
    ray.init(address="local", num_cpus=8, include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    config = LLMConfig(
        model_loading_config={"model_id": NAME, "model_source": folder},
        accelerator_config={"kind": "cpu"},
        deployment_config={"autoscaling_config": {"min_replicas": 1, "max_replicas": 1}},
        engine_kwargs={key: getattr(args, key) for key in GIVEN},
        runtime_env={"env_vars": {key: os.environ[key] for key in ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND")}},
        log_engine_metrics=False,
    )
    serve.run(build_openai_app({"llm_configs": [config]}), blocking=False)
    sys.stdin.read()


if __name__ == "__main__":
    Contest(
        module="ray_llm_endpoint",
        other="ray_llm",
        serve_other=serve_llm,
        config=CONFIG,
        requests={1: 10, 8: 32, 32: 64},
        rounds=int(os.environ.get("BENCH_ROUNDS", "6")),
        marks={"tokens_per_second_ratio": 1.15},
        ready="/v1/models",
    ).main()

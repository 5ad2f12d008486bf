"""Low-rank adapters: the base model is frozen, and small matrices beside its linear layers are trained.

LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) with peft; with the base model in 4-bit NormalFloat it is QLoRA
(Dettmers et al. 2023, https://arxiv.org/abs/2305.14314). What is published is either one plain model (the base weights
as used in training, dequantised if they were in 4 bits, plus the product of the two matrices), or the adapter alone as
peft stores it.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from heliostat.infra.errors import ConfigError
from heliostat.train.models.config import AdapterConfig

NAME = "default"
FILE = "adapter_model.safetensors"
BASE = ".base_layer."
"""Inserted by peft into the name of a weight that it wraps."""
PACKED = frozenset({"absmax", "quant_map", "nested_absmax", "nested_quant_map"})
"""State of a 4-bit layer besides its weight."""


def attach(model: Any, adapter: AdapterConfig) -> None:
    """Adds adapters to the linear layers of `model`, in place, and freezes everything else except a new head.

    Raises ConfigError if `train.adapter.targets` names no layer of the model.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft loads it, and it misses kernels that few need
    from peft import LoraConfig, TaskType, inject_adapter_in_model

    is_decoder = model.get_output_embeddings() is not None
    if adapter.quantize:
        _quantize(model)
    try:
        inject_adapter_in_model(
            LoraConfig(
                r=adapter.rank,
                lora_alpha=adapter.alpha,
                lora_dropout=adapter.dropout,
                target_modules=adapter.targets,
                task_type=TaskType.CAUSAL_LM if is_decoder else TaskType.SEQ_CLS,
            ),
            model,
            NAME,
        )
    except ValueError as error:
        kinds = sorted({name.rpartition(".")[2] for name, module in linear_layers(model)})
        raise ConfigError(
            f"train.adapter.targets: {adapter.targets} given; 'all-linear' or names of {', '.join(kinds)} are allowed"
        ) from error
    for name, parameter in model.named_parameters():
        if not is_decoder and not name.startswith(model.base_model_prefix + "."):
            parameter.requires_grad_(True)


def plain_name(name: str) -> str | None:
    """The name of `name` in the state of a model without adapters; None if it belongs to the adapter only."""
    parts = name.split(".")
    if any(part.startswith("lora_") for part in parts) or parts[-1] in PACKED or "quant_state" in parts:
        return None
    return name.replace(BASE, ".")


def adapter_name(name: str) -> str | None:
    """The name of parameter `name` in peft's adapter file; None if it does not belong to the adapter."""
    if not any(part.startswith("lora_") for part in name.split(".")):
        return None
    return "base_model.model." + name.replace(f".{NAME}.", ".")


def adapter_weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields name and full tensor of each matrix of the adapter, on the CPU; all ranks must iterate together."""
    import deepspeed

    for name, value in model.named_parameters():
        stored = adapter_name(name)
        if stored is not None:
            with deepspeed.zero.GatheredParameters([value], enabled=hasattr(value, "ds_id")):
                yield stored, value.detach().to("cpu", copy=True)


def save(model: Any, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Writes `weights` and their configuration as peft stores an adapter."""
    from safetensors.torch import save_file

    config = copy.copy(model.peft_config[NAME])
    config.inference_mode = True
    config.save_pretrained(folder)
    save_file(weights, folder / FILE)


@contextmanager
def plain_value(model: torch.nn.Module, name: str, value: torch.Tensor) -> Iterator[torch.Tensor]:
    """The full weight `name`, whose shard or packed form is `value`, with its adapter merged in.

    At ZeRO stage 3 shards are gathered, so all ranks must enter together.
    """
    import deepspeed

    layer: Any = model.get_submodule(name.rpartition(BASE)[0]) if BASE in name else None
    parts = [value, *([] if layer is None else layer.parameters())]
    sharded = list({id(part): part for part in parts if hasattr(part, "ds_id")}.values())
    with deepspeed.zero.GatheredParameters(sharded, enabled=bool(sharded)), torch.no_grad():
        whole = _dequantized(value)
        if layer is not None and name.endswith(".weight"):
            whole = (whole.float() + layer.get_delta_weight(NAME).float()).to(whole.dtype)
        yield whole


def _dequantized(value: torch.Tensor) -> torch.Tensor:
    state = getattr(value, "quant_state", None)
    if state is None:
        return value
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(value.data, state)


def _quantize(model: Any) -> None:
    """Converts the linear layers of `model` to 4-bit NormalFloat with quantised scales; not embeddings and heads."""
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError as error:
        raise ConfigError(
            "train.adapter.quantize: nf4 needs bitsandbytes, which is not installed; pip install 'heliostat[qlora]'"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, layer in linear_layers(model):
        packed: Any = Linear4bit(layer.in_features, layer.out_features, bias=False, device="meta")
        packed.support_avx512bf16_for_cpu = False  # it packs weights anew for inference, and training cannot go on
        packed.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=packed)
        packed.bias = layer.bias
        model.set_submodule(name, packed.to(device))
    model.is_loaded_in_4bit = True


def linear_layers(model: Any) -> list[tuple[str, Any]]:
    """The linear layers inside the base model, by name."""
    prefix = model.base_model_prefix + "."
    linear = [(name, one) for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)]
    return [(name, one) for name, one in linear if name.startswith(prefix)]

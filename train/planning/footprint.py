"""Counts a model's parameters and activation memory without loading its weights.

The model is built of fake tensors, which have a shape but no data, and run once; what autograd would save is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heliostat.infra.errors import ModelError
from heliostat.train.config import TrainConfig
from heliostat.train.models.adapters import attach, linear_layers
from heliostat.train.models.architectures.network import Settings, build_network
from heliostat.train.models.kernels.attention import mask
from heliostat.train.precision import is_bf16
from heliostat.train.telemetry.flops import Flops

TOKENS = 128
ATTENTION = "heliostat_fused"


@dataclass(frozen=True)
class Footprint:
    """Size of a model, with the settings in `train`."""

    parameters: int
    trainable: int
    linear: int
    """Parameters of the layers that are quantised to 4 bits."""
    activation_bytes: float
    """Saved per token between forward and backward pass."""
    layer_bytes: float
    """Saved per token by one layer, without the layer's input."""
    vocabulary: int
    """Outputs of the head for each target; 0 if there is none."""
    flops: Flops


def footprint(folder: Path, auto_class: str, train: TrainConfig) -> Footprint:
    """The footprint of the model in `folder` (its config.json is enough), with fused attention as on GPUs.

    Raises ModelError if transformers cannot build it.
    """
    import transformers
    from torch._subclasses.fake_tensor import FakeTensorMode

    with _default_type(torch.bfloat16 if is_bf16(train) else torch.float32):
        try:
            config = transformers.AutoConfig.from_pretrained(folder)
            config.use_cache = False
            with torch.device("meta"):
                model: Any = getattr(transformers, auto_class).from_config(config, attn_implementation=_fused())
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"model.source: {folder} cannot be planned for ({error})") from error
        linear = sum(layer.weight.numel() for _, layer in linear_layers(model))
        if train.adapter:
            attach(model, train.adapter.model_copy(update={"quantize": None}))
        with FakeTensorMode():
            _use_fake_tensors(model)
            whole = _kept_by_texts(model.train())
            model.gradient_checkpointing_enable({"use_reentrant": False})
            inputs = _kept_by_texts(model)
    return Footprint(
        parameters=model.num_parameters(),
        trainable=model.num_parameters(only_trainable=True),
        linear=linear,
        activation_bytes=(inputs if train.activation_checkpointing else whole) / TOKENS,
        layer_bytes=(whole - inputs) / config.num_hidden_layers / TOKENS,
        vocabulary=0 if model.get_output_embeddings() is None else config.vocab_size,
        flops=Flops.of(model),
    )


def network_footprint(settings: Settings, outputs: int) -> Footprint:
    """The footprint of a network built here; a table row or an image counts as one token."""
    model = build_network(settings, outputs).train()
    example = model.example(2)
    records = next(iter(example.values()))
    count = sum(parameter.numel() for parameter in model.parameters())
    return Footprint(
        parameters=count,
        trainable=count,
        linear=0,
        activation_bytes=_kept_bytes(model, **example) / (records.numel() if "input_ids" in example else len(records)),
        layer_bytes=0.0,
        vocabulary=0,
        flops=Flops.of(model),
    )


def _kept_by_texts(model: Any) -> int:
    """Bytes that autograd saves for one record of TOKENS tokens, without the model's own tensors."""
    ids, positions = torch.zeros(1, TOKENS, dtype=torch.int64), torch.arange(TOKENS)[None]
    return _kept_bytes(model, model.base_model, input_ids=ids, position_ids=positions)


def _kept_bytes(model: Any, called: Any = None, **inputs: torch.Tensor) -> int:
    """Bytes that autograd saves for a call of `called`, or of `model` itself, without the model's own tensors."""
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    own = {one.untyped_storage()._cdata for one in (*model.parameters(), *model.buffers())}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        (called or model)(**inputs)
    return sum(one.untyped_storage().nbytes() for key, one in kept.items() if key not in own)


def _use_fake_tensors(model: torch.nn.Module) -> None:
    """Replaces the model's tensors with tensors of the active mode; shared tensors stay shared."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and id(tensor) not in made:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_parameter = isinstance(tensor, torch.nn.Parameter)
                    made[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                held[name] = None if tensor is None else made[id(tensor)]  # type: ignore[assignment]


@contextmanager
def _default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _fused() -> str:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attention(*args: Any, **options: Any) -> Any:
        return sdpa_attention_forward(*args, **{**options, "dropout": 0.0})  # not fused on CPUs with dropout

    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, mask)
    return ATTENTION

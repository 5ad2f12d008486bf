"""Builds a DeepSpeed engine from the `train` section."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from inspect import getclosurevars
from typing import Any

import torch
from torch._tensor_str import printoptions

from heliostat.train.config import TrainConfig
from heliostat.train.data.batches import accumulation
from heliostat.train.models.adapters import plain_name, plain_value
from heliostat.train.models.architectures.network import Network
from heliostat.train.parallel.distributed import World
from heliostat.train.parallel.sharding import buckets, replica, zero_optimization
from heliostat.train.parallel.tensor_parallel import check_split, tensor_parallel, whole
from heliostat.train.parallel.ulysses import enable_sequence_parallelism
from heliostat.train.precision import is_bf16

MICRO_BATCH_LIMIT = {"cpu": 16, "cuda": 64}
"""Largest number of records in a micro-batch: what fits a CPU's caches, or keeps a GPU busy."""


RATE = "heliostat_rate"
"""Key of a parameter group that holds the factor on its learning rate."""
DECAYS = "heliostat_decays"
"""Key of a parameter group that holds the factor on its weight decay: 1, or 0 for biases and norms."""


def micro_batch_size(global_batch_size: int, world_size: int, limit: int) -> int:
    """Records per micro-batch: as few micro-batches as `limit` allows, all of about the same size."""
    share = -(-global_batch_size // world_size)
    return -(-share // accumulation(share, 1, limit))


def most_records(model: Any, train: TrainConfig, device: str, limit: int | None) -> int:
    """The most records of a micro-batch: `limit`, once memory has run out, and `train.max_micro_batch` if there is one.

    Without either, what suits the model on this kind of device.
    """
    bounds = [bound for bound in (limit, train.max_micro_batch) if bound]
    return min(bounds) if bounds else int(getattr(model, "records_at_once", MICRO_BATCH_LIMIT)[device])


def deepspeed_config(train: TrainConfig, world_size: int, micro: int) -> dict[str, Any]:
    """The DeepSpeed JSON for `train` on `world_size` workers, with `train.deepspeed` merged over it.

    DeepSpeed's batch is a multiple of world size and micro-batch size. If the global batch is not, the loop leaves
    the rest of it empty. With sequence parallelism, DeepSpeed counts each worker separately.
    """
    passes = accumulation(train.global_batch_size, replica(train, 0, world_size)[1], micro)
    config = {
        "train_batch_size": micro * passes * world_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": passes,
        "gradient_clipping": train.max_grad_norm,
        "bf16": {"enabled": is_bf16(train)},
        "zero_optimization": zero_optimization(train),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
        **tensor_parallel(train.tensor_parallel),
    }
    return merge(config, train.deepspeed)


def sized(config: Mapping[str, Any], model: torch.nn.Module) -> dict[str, Any]:
    """DeepSpeed's JSON with the values that depend on the size of `model` added, unless `config` sets them."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    trainable = sum(size for size, is_trained in sizes if is_trained)
    return merge({"zero_optimization": buckets(sum(size for size, _ in sizes), trainable)}, config)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` updated with `over`, recursively for nested mappings."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def build_engine(model: Any, train: TrainConfig, world: World, limit: int | None = None) -> Any:
    """A DeepSpeed engine around `model`, with micro-batches of at most `limit` records; needs torch.distributed.

    AdamW is PyTorch's fused one: it needs no compiler, runs on the device of its state, and ZeRO can shard that state.
    """
    import deepspeed

    if train.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if train.compile:
        compile_layers(model)
    if train.sequence_parallel > 1:
        enable_sequence_parallelism(model, world, train.sequence_parallel)
    _, replicas = replica(train, world.rank, world.size)
    micro = micro_batch_size(train.global_batch_size, replicas, most_records(model, train, world.device, limit))
    groups = _groups(model, train.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=train.learning_rate, betas=train.betas, fused=True)
    if isinstance(model, Network):
        optimizer.register_step_post_hook(lambda *_: model.stepped())
    with printoptions(threshold=0, edgeitems=0):  # stage 3 builds a message of all parameters, and prints it nowhere
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=sized(deepspeed_config(train, world.size, micro), model),
            dist_init_required=False,
        )
    check_split(engine.module, train.tensor_parallel)
    engine.train()  # transformers loads models in eval mode: no dropout, and no sequence parallelism
    if train.zero_stage == 0:
        (_forget_first_step if is_bf16(train) else _keep_gradient_norm)(engine)
    return engine


def release(engine: Any) -> None:
    """Ends an engine. Once the caller drops it too, model and optimizer state are freed at the next collection.

    At ZeRO stage 3, DeepSpeed's own `destroy` leaves both in module globals: its stack of modules in a forward pass
    keeps the model, and a cache without bound each submodule that was fetched. The next engine would see the stack.
    """
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator as Coordinator

    engine.destroy()
    parameter_offload.FWD_MODULE_STACK.clear()
    timed = vars(Coordinator)["_PartitionedParameterCoordinator__params_to_release"]
    getclosurevars(timed).nonlocals["func"].cache_clear()


def compile_layers(model: torch.nn.Module) -> None:
    """Compiles each layer of a transformers model in place, with dynamic shapes; all layers share the compiled code.

    A network that is built here is compiled as a whole.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    for layer in layers or [model]:
        layer.compile(dynamic=True)


def _forget_first_step(engine: Any) -> None:
    """Undoes the optimizer step without gradients that DeepSpeed takes to create its state (bf16, no sharding).

    AdamW would count it: its first steps would be a quarter too small, and weights would have decayed once.
    """
    optimizer = engine.optimizer
    optimizer.optimizer.state.clear()
    with torch.no_grad():
        for masters, weights in zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True):
            torch._foreach_copy_(masters, weights)


def _keep_gradient_norm(engine: Any) -> None:
    """Replaces DeepSpeed's clipping at stage 0 in fp32, which neither keeps the gradient norm nor checks it.

    As at the other stages, a step with non-finite gradients is skipped: AdamW ignores parameters without gradients.
    """

    def clip() -> None:
        norm = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), engine.gradient_clipping())
        engine._global_grad_norm = float(norm)
        if not torch.isfinite(norm):
            engine.zero_grad()

    engine.clip_fp32_gradients = clip


def _groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of AdamW: weight decay on matrices only, not on biases and norms."""
    groups = []
    for rate, parameters in model.parameter_groups() if isinstance(model, Network) else [(1.0, model.parameters())]:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        matrices = [parameter for parameter in trained if parameter.ndim > 1]
        others = [parameter for parameter in trained if parameter.ndim <= 1]
        groups.append({"params": matrices, "weight_decay": weight_decay, RATE: rate, DECAYS: 1.0})
        groups.append({"params": others, "weight_decay": 0.0, RATE: rate, DECAYS: 0.0})
    return groups


def learning_rate(train: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of `step` (from 0) of `steps`: linear warm-up, then the schedule down to zero.

    cosine: (1 + cos(pi t)) / 2 as in Loshchilov and Hutter 2017 without restarts; linear: 1 - t; t in [0, 1].
    """
    warmup = math.ceil(train.warmup * steps)
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    t = (step - warmup) / max(1, steps - warmup)
    factor = {"cosine": (1 + math.cos(math.pi * t)) / 2, "linear": 1 - t, "constant": 1.0}[train.schedule]
    return train.learning_rate * factor


def set_learning_rate(engine: Any, value: float) -> None:
    """Sets the learning rate of the next step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = value * group.get(RATE, 1.0)


def set_values(engine: Any, train: TrainConfig, rate: float) -> None:
    """Sets what the next step is taken with: the learning rate, and the betas and weight decay of `train`.

    A restored optimizer brings those of the run that stored it.
    """
    set_learning_rate(engine, rate)
    for group in engine.optimizer.param_groups:
        # Checkpoints of earlier releases have no factor.
        decays = group.setdefault(DECAYS, float(group["weight_decay"] > 0))
        group.update(betas=train.betas, weight_decay=train.weight_decay * decays)


def gathered_weights(engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields name and full tensor of each entry of the plain model's state, on the CPU; a collective call of all ranks.

    At ZeRO stage 3 each parameter is gathered from its shards when it is reached; parameters split by tensor
    parallelism are gathered from the workers that hold the parts; adapters are merged.
    """
    for name, value in engine.module.state_dict(keep_vars=True).items():
        plain = plain_name(name)
        if plain is not None:
            with plain_value(engine.module, name, value) as merged, whole(merged):
                yield plain, merged.detach().to("cpu", copy=True)

"""Memory of model states at each ZeRO stage against theory: bytes of all tensors alive between backward and step.

Two workers, bfloat16, a BERT of the base size (109 M parameters). Theory: `train.plan.needs`, which is that of
Rajbhandari et al. 2020. Mark: 1.1 times theory at most.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

from heliostat.infra.config.strict import build
from heliostat.train.config import TrainConfig
from heliostat.train.planning.footprint import Footprint
from heliostat.train.planning.plan import STAGES, needs
from heliostat.train.telemetry.flops import Flops
from tests.benchmarks.processes import measured, say
from tests.benchmarks.record import record

MODULE = "tests.benchmarks.bench_memory"
WORKERS = 2
MARK = 1.1


def measure(stage: int) -> dict[str, Any]:
    """Bytes alive in this rank in the second step, and parameters."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from heliostat.train.engine import build_engine
    from heliostat.train.parallel.distributed import configure_process, join

    configure_process(1)
    world = join("cpu")
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig())
    parameters = model.num_parameters()
    engine = build_engine(model, build(TrainConfig, {"zero_stage": stage, "precision": "bf16"}), world)
    del model
    for is_last in (False, True):
        engine.backward(engine(input_ids=torch.ones(2, 8).long(), labels=torch.zeros(2).long()).loss)
        if not is_last:
            engine.step()
    gc.collect()
    found = {"parameters": parameters, "bytes": alive(), "is_first": world.is_first}
    world.sum(0.0)
    return found


def alive() -> dict[str, int]:
    """Bytes of the storages of all tensors that Python knows, by type of number."""
    import torch

    found: dict[int, tuple[str, int]] = {}
    for item in gc.get_objects():
        try:
            is_tensor = isinstance(item, torch.Tensor)
        except ReferenceError:
            continue
        for tensor in (item, item.grad if item.is_leaf else None) if is_tensor else ():
            if tensor is not None and tensor.device.type == "cpu" and tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                found[storage.data_ptr()] = (str(tensor.dtype).removeprefix("torch."), storage.nbytes())
    totals: dict[str, int] = {}
    for kind, size in found.values():
        totals[kind] = totals.get(kind, 0) + size
    return totals


def theory(parameters: int, stage: int) -> float:
    """Bytes of parameters, gradients and optimizer in one worker."""
    model = Footprint(parameters, parameters, 0, 0, 0, 0, Flops(0, 0, 0))
    found = needs(model, TrainConfig(precision="bf16"), stage, WORKERS, 0)
    return found.parameters + found.gradients + found.optimizer


def main() -> None:
    """Measures each stage in workers of its own, and records it beside theory."""
    if sys.argv[1:2] == ["worker"]:
        found = measure(int(sys.argv[2]))
        if found.pop("is_first"):
            say(found)
        return
    results = {}
    for stage in STAGES:
        found = measured(MODULE, ["worker", str(stage)], WORKERS)
        parameters, held, expected = found["parameters"], found["bytes"], theory(found["parameters"], stage)
        results[f"stage {stage}"] = {
            "ratio": round(sum(held.values()) / expected, 3),
            "mark": MARK,
            "measured_bytes_per_parameter": round(sum(held.values()) / parameters, 2),
            "theory_bytes_per_parameter": round(expected / parameters, 2),
            "by_type": {kind: round(size / parameters, 2) for kind, size in sorted(held.items())},
        }
    record("memory", results)


if __name__ == "__main__":
    main()

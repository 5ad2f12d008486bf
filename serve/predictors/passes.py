"""Forward passes of an exported program: running, trial passes, and batching."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from heliostat.infra.errors import ModelError
from heliostat.serve.config import ServeConfig
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.predictors.batcher import Batcher, Item, Limits, Result

if TYPE_CHECKING:
    import torch

    from heliostat.infra.registry.programs import Program

TRIED = (1, 3)
"""Batch sizes of the trial passes at load time."""


def run(program: Program, inputs: Mapping[str, torch.Tensor], device: torch.device) -> torch.Tensor:
    """The program's output for `inputs`, computed on `device`."""
    import torch

    with torch.inference_mode():
        found: torch.Tensor = program(**{name: tensor.to(device) for name, tensor in inputs.items()})
        return found


def tried(program: Program, inputs: Mapping[str, torch.Tensor], device: torch.device, name: str) -> torch.Tensor:
    """`run` as a trial at load time: raises ModelError, with the model's `name`, if the program rejects the inputs."""
    try:
        return run(program, inputs, device)
    except Exception as error:  # an exported program checks shapes and names with errors of all kinds
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"{name}: the program does not take what heliostat.json says ({reason})") from error


def batches(
    work: Callable[[list[Item]], Sequence[Result]], blank: Item, config: ServeConfig, metrics: ServeMetrics
) -> Batcher[Item, Result]:
    """A batcher for inputs of equal size, such as `blank`, limited by `serve.max_batch_size` only."""
    limits = Limits(config.max_batch_size, config.max_batch_size, None)
    return Batcher(work, lambda _: 1, limits, metrics, blank=blank, pass_seconds=config.timeout_seconds)

"""Measures what a search compares beside the metrics of validations: speed and size of a trial's model.

Times are of the machine that the trial ran on, so they are not repeatable. All ranks of a gang call together: a pass
through a sharded model needs each of them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection, Iterator
from statistics import median

import numpy as np
import torch

from heliostat.train.loop import Run
from heliostat.train.parallel.tensor_parallel import SPLIT
from heliostat.train.telemetry.stats import StepStats

STEPS = 1000
"""The newest steps whose rates are kept."""
WARM_UP = 3
"""Passes before latency is measured."""
SECONDS, FEWEST, MOST = 1.0, 5, 50
"""For passes whose latency is measured, and how many they are."""


class Meter:
    """Measures the trial that a worker trains."""

    def __init__(self, wanted: Collection[str]) -> None:
        """`wanted` are names of `objectives.MEASURED`; nothing else is measured."""
        self._wanted = wanted
        self._rates: dict[str, deque[float]] = {}
        self._fixed: dict[str, float] = {}

    def begin(self) -> None:
        """Forgets the trial before."""
        self._rates = {name: deque(maxlen=STEPS) for name in ("tokens", "samples")}
        self._fixed = {}

    def stepped(self, stats: StepStats) -> None:
        """Takes in an optimizer step."""
        for name, rates in self._rates.items():
            rates.append(stats.rates[f"{name}_per_second"])

    def measured(self, run: Run) -> dict[str, float]:
        """What is wanted, the same on all ranks.

        Rates are the median over optimizer steps of what all workers trained, validations apart; the first step of a
        worker, which allocates and compiles, counts only if it is the only one. The others are measured once for each
        time that a gang begins with the trial.
        """
        found: dict[str, float] = {}
        for name, of in (("tokens_per_second", "tokens"), ("records_per_second", "samples")):
            if name in self._wanted:
                found[name] = run.world.sum(_steady(list(self._rates.get(of, ()))))[0]
        for name, measure in (("latency_ms", latency_ms), ("parameters", parameters), ("size_bytes", size_bytes)):
            if name in self._wanted:
                if name not in self._fixed:
                    self._fixed[name] = measure(run)
                found[name] = self._fixed[name]
        return found


def _steady(rates: list[float]) -> float:
    return median(rates[1:] or rates) if rates else math.nan


def latency_ms(run: Run) -> float:
    """Milliseconds of a forward pass of one validation record, the one of median length: the median of some passes."""
    if run.checkpoints:
        run.checkpoints.wait()  # or storing it would take time from the passes
    rows = run.validation
    record = np.argsort(rows.lengths, kind="stable")[[len(rows) // 2]]
    batch = run.world.to_device(run.task.collate(rows, record))
    was_training = run.engine.training
    run.engine.eval()
    with torch.no_grad():
        first = [_pass_seconds(run, batch) for _ in range(WARM_UP)]
        passes = run.world.from_first(lambda: min(MOST, max(FEWEST, math.ceil(SECONDS / first[-1]))))
        seconds = [_pass_seconds(run, batch) for _ in range(passes)]
    run.engine.train(was_training)
    return run.world.from_first(lambda: 1000 * median(seconds))


def _pass_seconds(run: Run, batch: dict[str, torch.Tensor]) -> float:
    started = time.perf_counter()
    run.task.outputs(run.engine, batch)  # NumPy's numbers: it waits for the device
    seconds = time.perf_counter() - started
    run.on_evaluated(1)
    return seconds


def parameters(run: Run) -> float:
    """Parameters of the model, sharded or split or not, those of adapters and frozen ones included."""
    return float(sum(elements for elements, _ in _sizes(run)))


def size_bytes(run: Run) -> float:
    """Bytes of these parameters as they are trained: 2 each in bf16, 4 in fp32, a half in nf4."""
    return float(sum(size for _, size in _sizes(run)))


def _sizes(run: Run) -> Iterator[tuple[int, int]]:
    """Elements and bytes of each whole parameter, of which this rank may hold a part."""
    for one in run.engine.module.parameters():
        held = int(getattr(one, "ds_numel", one.numel())) * (run.train.tensor_parallel if hasattr(one, SPLIT) else 1)
        packed = getattr(one, "quant_state", None)
        yield (math.prod(packed.shape) if packed else held), held * one.element_size()

"""The precision of a search: one for all of its trials, so that they compare, and for what goes on with it."""

from __future__ import annotations

import yaml

from heliostat.pipeline.searches import read_search
from heliostat.spec import Spec
from heliostat.train.precision import explained, settled, with_precision
from heliostat.view.terminal import View


def settle_precision(spec: Spec, name: str, view: View) -> Spec:
    """The spec with bf16 or fp32 in place of `auto`: as the search `name` was begun, or as a worker's device computes.

    Prints a line where that device does not compute bfloat16. Asks the Ray that this process has joined.
    """
    if spec.train.precision == "fp32":
        return spec
    if record := read_search(spec, name):
        if spec.train.precision == "bf16":
            return spec
        before = yaml.safe_load(record["spec"])["train"]["precision"]
        return spec.model_copy(update={"train": with_precision(spec.train, before)})
    from heliostat.train.launch import one_worker_has_bf16, resolve_use_gpu

    has_bf16, workers = one_worker_has_bf16(spec.train, resolve_use_gpu(spec.train)), spec.train.workers.min
    able, train = (settled(spec.train, spec.model, one) for one in (True, has_bf16))
    if line := explained(able.precision, train.precision, 0 if has_bf16 else workers, workers):
        view.say(line)
    return spec.model_copy(update={"train": train})

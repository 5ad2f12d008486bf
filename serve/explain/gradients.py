"""Integrated gradients (Sundararajan, Taly and Yan 2017, https://arxiv.org/abs/1703.01365), until they are complete."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import torch

from heliostat.infra.errors import DataError
from heliostat.serve.explain.answers import Convergence

STEPS = (32, 64, 128, 256, 512)
"""Tried in this order. More help where the logit has kinks between baseline and input, as it has with ReLU."""
TOLERANCE = 0.01
"""Of the difference of logits; of 1, where the difference is smaller, because nobody reads less than 0.01 logits."""
AT_ONCE = 32
"""Points of one pass: memory of the largest is what the gradients of so many inputs take."""
Logit = Callable[..., torch.Tensor]
"""Inputs [rows, ...], and what belongs to them, to the logit of one label [rows]."""


def integrated_gradients(
    logit: Logit, point: torch.Tensor, baseline: torch.Tensor, beside: tuple[torch.Tensor, ...] = ()
) -> tuple[torch.Tensor, Convergence]:
    """Attributions of the numbers in `point` [1, ...], in the same shape, and how complete they are.

    `beside` are tensors [1, ...] that `logit` takes too and that stay as they are.
    """
    from captum.attr import IntegratedGradients

    with torch.no_grad():
        difference = float(logit(point, *beside) - logit(baseline, *beside))
    method = IntegratedGradients(logit)
    allowed = TOLERANCE * max(1.0, abs(difference))
    for steps in STEPS:
        found: torch.Tensor = method.attribute(
            point, baseline, additional_forward_args=beside or None, n_steps=steps, internal_batch_size=AT_ONCE
        )
        delta = float(found.sum()) - difference
        if abs(delta) <= allowed:
            break
    if not isfinite(delta):
        raise DataError("the model has no finite gradients there, so there is nothing to explain")
    return found, Convergence(difference=difference, delta=delta, steps=steps, converged=abs(delta) <= allowed)

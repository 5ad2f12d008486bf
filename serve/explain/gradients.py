"""Integrated gradients (Sundararajan, Taly and Yan 2017, https://arxiv.org/abs/1703.01365), until they converge."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import torch

from heliostat.infra.errors import DataError
from heliostat.serve.explain.answers import Convergence

STEPS = (32, 64, 128, 256, 512)
"""Tried in this order. More steps help if the logit has kinks between baseline and input, as with ReLU."""
TOLERANCE = 0.01
"""Allowed error, relative to the difference of logits or to 1 if that is larger: less than 0.01 logits is
irrelevant."""
AT_ONCE = 32
"""Points per forward pass; limits the memory for gradients."""
Logit = Callable[..., torch.Tensor]
"""A function from inputs [rows, ...], and further tensors, to the logit of one label [rows]."""


def integrated_gradients(
    logit: Logit, point: torch.Tensor, baseline: torch.Tensor, beside: tuple[torch.Tensor, ...] = ()
) -> tuple[torch.Tensor, Convergence, int]:
    """Attributions of the values in `point` [1, ...], in the same shape, their convergence, and the passes they took.

    `beside` are further tensors [1, ...] that `logit` takes and that stay constant. Raises DataError if gradients are
    not finite.
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
    tried = sum(one for one in STEPS if one <= steps)
    return (
        found,
        Convergence(difference=difference, delta=delta, steps=steps, converged=abs(delta) <= allowed),
        2 * tried + 2,
    )

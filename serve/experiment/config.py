"""Two versions of a model behind one endpoint: which requests go to the candidate, and when it is taken away."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from heliostat.infra.config.strict import StrictModel
from heliostat.serve.objectives import Objectives

Share = Annotated[float, Field(gt=0, lt=1)]


class Experiment(StrictModel):
    """A canary or an A/B test. The version that was there is the baseline, the one beside it the candidate."""

    share: Share
    """The part of the requests that the candidate answers."""
    by: str | None = None
    """Requests with the same value of this header all go the same way; where left out, each request is drawn."""
    guarded: bool = True
    """Whether a candidate that is worse than the baseline is taken away."""
    objectives: Objectives = Objectives()
    """What the endpoint promises: the candidate's share of failed requests may be above the baseline's by what
    `availability` allows, and a promise of `latency_seconds` that the baseline keeps must not be broken."""
    max_slowdown: Annotated[float, Field(ge=1)] = 1.25
    """How many times the baseline's time the candidate may take, in geometric means of the time to the first byte."""
    baseline: str
    """Version of the model."""
    candidate: str
    """Version of the model."""
    url: str
    """Where the candidate answers."""

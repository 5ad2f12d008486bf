"""Base class of explainers: a label, a method, and a classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch

from heliostat.infra.errors import ConfigError, DataError
from heliostat.infra.registry.inputs import same_word
from heliostat.serve.explain.answers import Explanation, Method

Item = TypeVar("Item")


@dataclass(frozen=True)
class Target:
    """The label to explain, and the method."""

    at: int
    """Index of the label among the outputs."""
    label: str
    score: float
    predicted: str
    method: Method


class Explainer(ABC, Generic[Item]):
    """Explains the predictions of a classifier."""

    methods: ClassVar[tuple[Method, ...]]
    """The methods to choose from; the first is the default."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)

    def explain(self, item: Item, label: str | None = None, method: str | None = None) -> Explanation:
        """Explains `label`, or the likeliest one if None.

        Raises ConfigError for an unknown label or method, DataError if the model's output is not finite.
        """
        self.check(label, method)
        chosen = next(one for one in self.methods if method in (None, one))
        with torch.no_grad():
            scores = self.logits(item).float().softmax(dim=-1).flatten()
        if not bool(scores.isfinite().all()):
            raise DataError("the model has no finite answer to the input, so there is nothing to explain")
        predicted = int(scores.argmax())
        known = None if label is None else same_word(label, self.labels)
        at = predicted if known is None else self.labels.index(known)
        target = Target(at, self.labels[at], round(float(scores[at]), 6), self.labels[predicted], chosen)
        return self.explained(item, target)

    def check(self, label: str | None, method: str | None) -> None:
        """Raises ConfigError, which lists what is allowed, for an unknown label or method."""
        if label is not None and same_word(label, self.labels) is None:
            raise ConfigError(f"label: {label[:60]!r} given; {', '.join(self.labels)} are known")
        if method is not None and method not in self.methods:
            raise ConfigError(f"method: {method[:60]!r} given; {' or '.join(self.methods)} is allowed for this model")

    @abstractmethod
    def logits(self, item: Item) -> torch.Tensor:
        """Logits of all labels: float [1, labels]."""

    @abstractmethod
    def explained(self, item: Item, target: Target) -> Explanation:
        """The explanation of `target` for `item`."""

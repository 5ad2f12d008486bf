"""What all explanations have in common: a label, a method, and a model that has an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch

from heliostat.infra.errors import ConfigError, DataError
from heliostat.serve.explain.answers import Explanation, Method

Item = TypeVar("Item")


@dataclass(frozen=True)
class Target:
    """What is explained."""

    at: int
    """Place of the label among the outputs."""
    label: str
    score: float
    predicted: str
    method: Method


class Explainer(ABC, Generic[Item]):
    """A classifier that says why."""

    methods: ClassVar[tuple[Method, ...]]
    """What can be chosen; the first one where nothing is."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)

    def explain(self, item: Item, label: str | None = None, method: str | None = None) -> Explanation:
        """Why `label`, or the likeliest one.

        Raises ConfigError for a label or a method that is not known, DataError for an input without a finite answer.
        """
        self.check(label, method)
        chosen = next(one for one in self.methods if method in (None, one))
        with torch.no_grad():
            scores = self.logits(item).float().softmax(dim=-1).flatten()
        if not bool(scores.isfinite().all()):
            raise DataError("the model has no finite answer to the input, so there is nothing to explain")
        predicted = int(scores.argmax())
        at = predicted if label is None else self.labels.index(label)
        target = Target(at, self.labels[at], round(float(scores[at]), 6), self.labels[predicted], chosen)
        return self.explained(item, target)

    def check(self, label: str | None, method: str | None) -> None:
        """Raises ConfigError, which names what is known, for a label or a method that is not."""
        if label is not None and label not in self.labels:
            raise ConfigError(f"label: {label[:60]!r} given; {', '.join(self.labels)} are known")
        if method is not None and method not in self.methods:
            raise ConfigError(f"method: {method[:60]!r} given; {' or '.join(self.methods)} is allowed for this model")

    @abstractmethod
    def logits(self, item: Item) -> torch.Tensor:
        """Of all labels: float [1, labels]."""

    @abstractmethod
    def explained(self, item: Item, target: Target) -> Explanation:
        """The explanation."""

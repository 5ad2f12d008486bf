"""Jobs of trials, and the data that they need: those of every searched value are prepared before workers start.

Preparing takes CPUs, and workers hold them until the search ends.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from heliostat.infra.errors import ConfigError
from heliostat.pipeline import prepare
from heliostat.pipeline.job import make_job
from heliostat.pipeline.trial_spec import trial_spec, with_values
from heliostat.searchable import full_key
from heliostat.spec import Spec
from heliostat.tune.lineage import Schedule
from heliostat.tune.space.domains import Domain
from heliostat.tune.space.values import Listed
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.train.data.prepared import Prepared

MOST_PREPARED = 64
"""Combinations of values for which data are prepared."""


class TrialJobs:
    """Makes the jobs of trials; trials with the same data share them."""

    def __init__(self, spec: Spec, name: str, prepared: Prepared) -> None:
        self._spec, self._name = spec, name
        self._prepared = {_of_data(spec): prepared}

    def prepare(self, view: View) -> None:
        """Prepares the data of each combination of searched values that they follow from; needs Ray's CPUs.

        Raises ConfigError where there are too many, or for a range of which each value would have data of its own.
        """
        for key, domain in self._of_data().items():
            if not isinstance(domain.values, Listed) and not all(self._has_data(key, end) for end in domain.to_check()):
                raise ConfigError(
                    f"tune.space.{key}: a range given, and each of its values needs data of its own, prepared before "
                    "trials run; choice, grid, quniform and randint are allowed"
                )
        for values in self._combinations():
            self._add(values, view)

    def __call__(self, values: Mapping[str, Any], past: Schedule = ()) -> dict[str, Any]:
        """The job of a trial with these values, after its `past`; raises HeliostatError if they cannot work."""
        spec = trial_spec(self._spec, values, past)
        prepared = self._prepared.get(_of_data(spec)) or prepare.prepared_data(spec)
        if prepared is None:
            raise ConfigError(f"the data of {dict(values)} are not prepared; values of tune.space are allowed")
        return make_job(spec, prepared, self._name).model_dump(mode="json")

    def _of_data(self) -> dict[str, Domain]:
        """The searched keys that data may follow from: the encoders of some models are learned with their settings."""
        return {key: one for key, one in self._spec.tune.space.items() if not full_key(key).startswith("train.")}

    def _has_data(self, key: str, value: Any) -> bool:
        return prepare.prepared_data(with_values(self._spec, {key: value})) is not None

    def _combinations(self) -> Iterator[dict[str, Any]]:
        choices: dict[str, list[Any]] = {}
        for key, domain in self._of_data().items():
            if isinstance(domain.values, Listed):
                choices[key] = [*domain.values.values, *([_UNSET] if domain.when else [])]
        count = math.prod(map(len, choices.values()))
        if count > MOST_PREPARED:
            raise ConfigError(
                f"tune.space: {count} combinations of {', '.join(choices)} given, and data are prepared for each; "
                f"{MOST_PREPARED} are allowed"
            )
        for chosen in product(*choices.values()):
            yield {key: value for key, value in zip(choices, chosen, strict=True) if value is not _UNSET}

    def _add(self, values: Mapping[str, Any], view: View) -> None:
        try:
            spec = with_values(self._spec, values)
        except ConfigError:  # a combination that cannot work fails with its reason if it is ever tried
            return
        if _of_data(spec) not in self._prepared:
            self._prepared[_of_data(spec)] = prepare.prepared_data(spec) or prepare.run(spec, view)


_UNSET = object()
"""In place of the value of a key whose condition does not hold."""


def _of_data(spec: Spec) -> str:
    """What prepared data follow from."""
    return json.dumps([spec.task, spec.data.model_dump(mode="json"), spec.model.model_dump(mode="json")])

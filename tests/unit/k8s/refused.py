"""Cases of what is refused: objects of the base, from which nothing is, with a few fields changed."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple

from heliostat.cluster.kubernetes import refusals
from heliostat.cluster.kubernetes.build import build
from tests.unit.k8s.conftest import K8S

GONE = object()


class Case(NamedTuple):
    """One rule: what it refuses, and the nearest thing that it takes."""

    kind: str
    refused: dict[str, Any]
    """Dotted path -> value."""
    taken: dict[str, Any]
    line: str
    """A pattern of the one line."""

    def check(self) -> None:
        """That there is this line and no other, and none for what is taken."""
        (line,) = refusals.refusals([changed(self.kind, self.refused)])
        assert re.search(self.line, line), line
        assert re.match(rf"{self.kind}/[-a-z0-9]+: ", line)
        assert "\n" not in line
        assert "hidden" not in line, "a password"
        assert refusals.refusals([changed(self.kind, self.taken)]) == []


@cache
def base() -> dict[str, dict[str, Any]]:
    """Kind -> object of the base; and a RayCronJob of its RayJob, which has none."""
    found = {one["kind"]: one for one in build(K8S / "base")}
    job = found["RayJob"]
    cron = {"schedule": "0 3 * * 1", "jobTemplate": job["spec"]}
    found["RayCronJob"] = {"apiVersion": "ray.io/v1", "kind": "RayCronJob", "metadata": {"name": "c"}, "spec": cron}
    return found


def changed(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    one = deepcopy(base()[kind])
    for path, value in values.items():
        *keys, last = path.split(".") if "annotations" not in path else path.split(".", 2)
        place: Any = one
        for key in keys:
            place = place[int(key)] if key.isdecimal() else place.setdefault(key, {})
        if value is GONE:
            place.pop(last, None)
        else:
            place[last] = deepcopy(value)
    return one

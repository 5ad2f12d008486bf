"""Applying an overlay again changes nothing: what the server and KubeRay's operator store is what is written here.

Both were watched on Kubernetes 1.36 with KubeRay 1.5.1 and 1.7.0. A list of worker groups is one value for server-side
apply: whoever writes one field of it owns all, so one field that the operator writes anew is a conflict.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from heliostat.cluster.kubernetes.pods import CLUSTERS
from tests.guides import GUIDES, commands
from tests.unit.k8s.quantities import canonical, quantities

DEFAULTS = {"numOfHosts": 1, "priority": 0}
"""What the server adds to a worker group that does not say so itself; it adds it to each apply alike."""


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (1, "1"), ("1000m", "1"), ("0.5", "500m"), ("1500m", "1500m"), ("1.5Gi", "1536Mi"), ("1024Mi", "1Gi"),
        ("2000Mi", "2000Mi"), ("1000", "1k"), ("1024", "1024"), ("0", "0"), ("0Gi", "0"), ("1000k", "1M"),
        (0.1, "100m"), ("0.5Ki", "512"), ("8Gi", "8Gi"), ("250m", "250m"),
    ],
)  # fmt: skip
def test_the_canonical_form_is_that_of_kubernetes(given: Any, stored: str) -> None:
    assert canonical(given) == stored
    assert canonical(stored) == stored


@pytest.mark.parametrize("given", ["", "1 Gi", "1gi", "Gi", "1e", "one"])
def test_what_is_no_quantity_is_found(given: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        canonical(given)


def test_quantities_are_text_in_canonical_form(manifests: Any) -> None:
    found = [one for item in manifests.objects for one in quantities(item, item["kind"])]
    assert {"sizeLimit", "cpu", "memory"} <= {path.rpartition(".")[2] for path, _ in found}
    assert [path for path, _ in found if "autoscalerOptions" in path]
    assert [(path, amount) for path, amount in found if amount != canonical(amount)] == []


def groups(manifests: Any) -> list[dict[str, Any]]:
    """Worker groups of all clusters."""
    found = []
    for kind, path in CLUSTERS.items():
        for one in manifests.of(kind):
            spec = one["spec"]
            for key in path:
                spec = spec[key]
            found += spec["workerGroupSpecs"]
    return found


def stored(group: dict[str, Any]) -> dict[str, Any]:
    """A worker group after the server has taken it and the operator has written the object back."""
    written = {**DEFAULTS, **deepcopy(group)}
    written.setdefault("scaleStrategy", {})
    for container in written["template"]["spec"]["containers"]:
        for amounts in container["resources"].values():
            amounts.update({name: canonical(amount) for name, amount in amounts.items()})
    return written


def test_a_second_apply_finds_worker_groups_as_they_are_written(manifests: Any) -> None:
    found = groups(manifests)
    assert len(found) == 3
    for group in found:
        assert group["scaleStrategy"] == {}
        assert stored(group) == {**DEFAULTS, **group}


@pytest.mark.parametrize("field", ["scaleStrategy", "resources"])
def test_a_worker_group_as_others_write_it_would_not_be(manifests: Any, field: str) -> None:
    group = deepcopy(groups(manifests)[0])
    if field == "scaleStrategy":
        del group["scaleStrategy"]
    else:
        group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = 2
    assert stored(group) != {**DEFAULTS, **group}


def test_policies_hold_no_list_that_the_server_drops(manifests: Any) -> None:
    for policy in manifests.of("NetworkPolicy"):
        for direction in ("ingress", "egress"):
            assert policy["spec"].get(direction) != [], f"{policy['metadata']['name']}.{direction}: leave it out"


def test_guides_apply_on_the_server() -> None:
    """On the client's side, what the operator writes would be taken back at each apply."""
    found = [one for guide in GUIDES for one in commands(guide, "kubectl") if one.startswith("kubectl apply")]
    assert len(found) > 3
    assert [one for one in found if "--server-side" not in one] == []

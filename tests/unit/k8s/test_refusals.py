"""Refusals of what is committed and rendered; of images; and what is taken and then does nothing."""

from __future__ import annotations

from typing import Any

import pytest

from heliostat.cluster.kubernetes import refusals
from heliostat.infra.errors import ConfigError
from tests.unit.k8s.refused import Case, base, changed

POD = "spec.headGroupSpec.template.spec"
CASES = {
    "image without a tag": Case(
        "RayCluster",
        {f"{POD}.containers.0.image": "registry:5000/ray"},
        {f"{POD}.containers.0.image": "registry:5000/ray:2.60.0"},
        r"containers\[0\]\.image: 'registry:5000/ray' given; NAME:TAG, with no tag `latest`",
    ),
    "image of another tomorrow": Case(
        "Deployment",
        {"spec.template.spec.containers.0.image": "redis:latest"},
        {"spec.template.spec.containers.0.image": f"redis@sha256:{'5e' * 32}"},
        r"Deployment/heliostat-mlflow: spec\.template\.spec\.containers\[0\]\.image: 'redis:latest' given",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_image_that_may_be_another_one_tomorrow_is_one_line(name: str) -> None:
    CASES[name].check()


def test_nothing_is_refused_of_what_is_committed_or_rendered(manifests: Any) -> None:
    assert {one["kind"] for one in manifests.objects} >= {"RayCluster", "RayJob", "RayService"}
    assert refusals.refusals(manifests.objects) == []


def test_several_refusals_are_one_error_of_one_line() -> None:
    wrong = [changed("RayJob", {"spec.backoffLimit": -1, "spec.activeDeadlineSeconds": 0})]
    with pytest.raises(ConfigError, match=r"RayJob/sentiment-1: spec\.backoffLimit: -1 given; .* \(and 1 more\)$"):
        refusals.check(wrong)
    refusals.check([changed("RayJob", {})])


def test_what_does_nothing_is_told_of() -> None:
    (first,) = refusals.ignored([changed("RayCronJob", {})])
    assert first == (
        "RayCronJob/c: kind: 'RayCronJob' given; nothing runs: the operator's feature gate RayCronJob is off unless it"
        " is switched on"
    )
    assert refusals.ignored([base()["RayService"], base()["RayJob"]]) == []


def test_objects_of_others_are_not_held_to_these_rules() -> None:
    other = {**changed("RayJob", {"spec.backoffLimit": -1}), "apiVersion": "example.com/v1"}
    assert refusals.refusals([other]) == []

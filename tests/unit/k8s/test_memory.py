"""Memory of pods, by the plan of the spec: refused where it is too small, set where the spec says so."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from heliostat.cli import app
from heliostat.cluster.kubernetes import kustomization
from heliostat.cluster.kubernetes.build import built
from heliostat.cluster.kubernetes.overlays import package
from heliostat.infra.errors import ConfigError
from heliostat.infra.memory import GIB
from heliostat.operations import memory
from heliostat.operations.render import unused, workload
from heliostat.spec import Spec, load_spec
from heliostat.train.planning.footprint import Footprint
from heliostat.train.planning.plan import largest_micro_batch
from heliostat.train.telemetry.flops import Flops
from tests.unit.k8s.conftest import Manifests

MODEL = Footprint(
    parameters=GIB // 8, trainable=GIB // 8, linear=0, activation_bytes=2**21, layer_bytes=0.0, vocabulary=0,
    flops=Flops(0, 0, 0),
)  # fmt: skip
"""A model of 134 million parameters."""
CPUS = ["train.precision=fp32", "train.zero_stage=0"]


def spec_of(*overrides: str) -> Spec:
    return load_spec("sentiment", ["storage.url=s3://bucket", *overrides])


def test_a_pod_has_room_for_ray_and_for_each_worker_with_one_record() -> None:
    spec = spec_of(*CPUS)
    states, one_record = MODEL.parameters * 16, spec.data.max_length * MODEL.activation_bytes
    assert memory.worker_bytes(spec, MODEL, 0) == pytest.approx(GIB + (states + one_record) / 0.9)
    alone, two = memory.pod_gib(spec, MODEL, 1), memory.pod_gib(spec, MODEL, 2)
    assert (alone, two) == (5, 9), "1 + 3.8 and 1 + 2 x 3.8, in whole GiB"
    assert largest_micro_batch(MODEL, spec.train, 0, spec.data.max_length, 4 * GIB) >= 1, "as `plan` counts"


@pytest.mark.parametrize(
    ("overlay", "overrides", "said"),
    [
        (
            "production",
            CPUS,
            "cluster.pod_memory_gib: not given, and 8 is what a worker pod of the overlay production has; 2 of"
            " train.workers in it need 9, one (train.cpus_per_worker=2) 5",
        ),
        (
            "production",
            [*CPUS, "cluster.pod_memory_gib=7"],
            "cluster.pod_memory_gib: 7 given, and 7 is what a worker pod of the overlay production has; 2 of",
        ),
        (
            "local",
            [*CPUS, "train.cpus_per_worker=2", "data.max_length=512"],
            "cluster.pod_memory_gib: not given, and 5 is what a worker pod of the overlay local has; 1 of train.workers"
            " in it need 6",
        ),
    ],
)
def test_a_pod_that_is_too_small_is_refused_with_what_would_fit(overlay: str, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        memory.check_memory(spec_of(*overrides), overlay, MODEL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overlay", "overrides"),
    [
        ("production", [*CPUS, "cluster.pod_memory_gib=9"]),
        ("production", [*CPUS, "train.cpus_per_worker=2"]),
        ("production", ["train.precision=fp32", "train.zero_stage=3", "train.workers=8"]),
        ("gpu", CPUS),
    ],
)
def test_what_would_fit_does(overlay: str, overrides: list[str]) -> None:
    memory.check_memory(spec_of(*overrides), overlay, MODEL)


def test_a_model_that_no_accelerator_holds_is_refused_with_the_stage_that_does() -> None:
    large = replace(MODEL, parameters=30 * GIB, trainable=30 * GIB)
    said = r"train\.zero_stage: 1 given, with which a worker needs \d+ GiB of a GPU; B200 has 180, where 2 or 3 fits"
    first, third = (
        memory.as_trained(spec_of(f"train.zero_stage={stage}", "train.workers=8"), "gpu") for stage in (1, 3)
    )
    with pytest.raises(ConfigError, match=said):
        memory.check_memory(first, "gpu", large)
    memory.check_memory(third, "gpu", large)


@pytest.mark.parametrize(
    ("overlay", "overrides", "precision"),
    [
        ("gpu", [], "bf16"),
        ("gpu", ["train.use_gpu=false"], "fp32"),
        ("production", [], "fp32"),
        ("production", ["train.precision=bf16"], "bf16"),
    ],
)
def test_memory_is_counted_in_what_gpus_compute_in_and_on_cpus_in_what_needs_most(
    overlay: str, overrides: list[str], precision: str
) -> None:
    asked = spec_of("train.precision=auto", *overrides)
    assert memory.as_trained(asked, overlay).train.precision == precision


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["model.source=hf:org/name"], "hf:org/name is not on this machine"),
        (["model.source=pkg:no_such_package/model"], "pkg:no_such_package/model is not on this machine"),
    ],
)
def test_what_is_not_here_is_not_fetched_for_a_plan(overrides: list[str], why: str) -> None:
    assert memory.planned(spec_of(*overrides)) == why


def test_a_network_that_is_built_to_fit_the_data_is_not_planned() -> None:
    assert memory.planned(load_spec("tabular")) == "model.mlp is built to fit the data"


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TRAINING", ("no_such_package",))
    assert memory.planned(spec_of()) == "no_such_package is not installed here"


def test_the_memory_of_the_spec_is_that_of_training_pods(tmp_path: Path) -> None:
    spec = spec_of("cluster.pod_memory_gib=12")
    assert unused(spec) == []
    found = Manifests("production", built(kustomization.files(_wanted(spec), "production", package())))
    for pod in found.pods():
        if pod.role == "worker":
            resources = pod.spec["containers"][0]["resources"]
            assert resources["requests"]["memory"] == resources["limits"]["memory"]
            assert (resources["limits"]["memory"] == "12Gi") == (pod.owner["kind"] != "RayService")


def _wanted(spec: Spec) -> Any:
    images = {"train": "r/heliostat/train:0.1.0", "serve": "r/heliostat/serve:0.1.0"}
    return workload(spec, "production", None, images, None)


def test_the_command_plans_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    words = ["render", "k8s", "sentiment", "storage.url=s3://bucket", "--no-serve", "--out", str(out)]
    said = CliRunner().invoke(app, [*words, "model.source=hf:org/name"])
    assert "not planned: hf:org/name is not on this machine" in said.output.replace("\n", " ")
    monkeypatch.setattr(memory, "planned", lambda _: MODEL)
    with pytest.raises(ConfigError, match=r"cluster\.pod_memory_gib: 4 given"):
        CliRunner().invoke(app, [*words, "cluster.pod_memory_gib=4"], catch_exceptions=False)
    preparing = CliRunner().invoke(app, [*words, "cluster.pod_memory_gib=4", "--job", "prepare"])
    assert preparing.exit_code == 0, preparing.output

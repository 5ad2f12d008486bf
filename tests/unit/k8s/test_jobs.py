"""Jobs other than training: what their RayJob runs, how it is named, and how large its cluster is."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from heliostat.cli import app
from heliostat.cluster.kubernetes import kustomization, refusals
from heliostat.cluster.kubernetes.build import built
from heliostat.cluster.kubernetes.overlays import OVERLAYS, package
from heliostat.infra.config.strict import build, parse_yaml
from heliostat.infra.errors import ConfigError
from heliostat.operations import sizes
from heliostat.operations.render import JOBS, workload
from heliostat.spec import Spec, load_spec
from tests.unit.k8s.conftest import IMAGES, Manifests, args_of, spec_of

each_job = pytest.mark.parametrize("job", JOBS)
MODEL = "models:/mood/3"


def manifests_of(job: str, overlay: str = "local", **more: Any) -> Manifests:
    spec = spec_of(overlay)
    wanted = workload(spec, overlay, more.get("run"), IMAGES, args_of(spec), job, MODEL)
    return Manifests(overlay, built(kustomization.files(wanted, overlay, package())))


@each_job
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_job_runs_a_command_that_there_is_with_the_spec_that_is_mounted(
    job: str, overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = manifests_of(job, overlay)
    assert refusals.refusals(found.objects) == []
    file = tmp_path / "spec.yaml"
    file.write_text(found.only("ConfigMap", "heliostat-spec")["data"]["spec.yaml"])
    settings = found.only("ConfigMap", "heliostat-environment")["data"]
    monkeypatch.setenv("HELIOSTAT_STORAGE", settings["HELIOSTAT_STORAGE"])
    program, command, spec, *rest = shlex.split(found.only("RayJob")["spec"]["entrypoint"])
    assert (program, command, spec) == ("heliostat", job, "/etc/heliostat/spec.yaml")
    said = CliRunner().invoke(app, [command, str(file), *rest, "--dry-run"])
    assert said.exit_code == 0, said.output
    planned = build(Spec, parse_yaml(said.output))
    assert (planned.name, planned.storage.url) == ("mood", "s3://bucket/models")
    trains_on_gpus = overlay == "gpu" and job in ("train", "tune")
    assert planned.train.use_gpu == (True if trains_on_gpus else "auto")


@pytest.mark.parametrize(
    ("job", "name", "options"),
    [
        ("prepare", "mood-prepare-1", []),
        ("train", "mood-1", ["--run", "mood-1"]),
        ("tune", "mood-tune-1", ["tune.resume=auto", "--search", "mood-tune-1"]),
        ("evaluate", "mood-evaluate-1", ["--model", MODEL]),
    ],
)
def test_each_job_has_a_name_of_its_own_and_the_options_that_its_command_takes(
    job: str, name: str, options: list[str]
) -> None:
    found = manifests_of(job).only("RayJob")
    assert found["metadata"]["name"] == name
    assert shlex.split(found["spec"]["entrypoint"])[3:] == options


def test_a_name_that_is_given_is_that_of_the_job_and_the_run() -> None:
    found = manifests_of("train", run="mood-7").only("RayJob")
    assert found["metadata"]["name"] == "mood-7"
    assert found["spec"]["entrypoint"].endswith("--run mood-7")
    assert manifests_of("tune", run="search-2").only("RayJob")["metadata"]["name"] == "search-2"


def test_a_name_that_the_job_makes_too_long_is_refused() -> None:
    spec = load_spec("sentiment", [f"name={'m' * 40}", "storage.url=s3://bucket"])
    with pytest.raises(ConfigError, match=r"name \(the job is m+-evaluate-1\): 'm+-evaluate-1' given; .* 47 at most"):
        workload(spec, "local", None, {}, None, "evaluate")
    assert workload(spec, "local", None, {}, None).run == f"{'m' * 40}-1"


@pytest.mark.parametrize(
    ("job", "overrides", "pods"),
    [
        ("train", ["train.workers={min: 2, max: 6}"], (1, 3)),
        ("prepare", ["train.workers={min: 4, max: 6}"], (1, 3)),
        ("evaluate", ["train.workers={min: 4, max: 6}"], (1, 3)),
        ("tune", ["train.workers={min: 4, max: 6}"], (2, 3)),
        ("tune", ["train.workers={min: 4, max: 6}", "tune.concurrent=3", "tune.lag=none"], (2, 6)),
    ],
)
def test_the_cluster_is_as_large_as_the_job_needs(job: str, overrides: list[str], pods: tuple[int, int]) -> None:
    spec = load_spec("sentiment", ["storage.url=s3://bucket", *overrides])
    found = sizes.workers(spec, "production", job)
    assert (found.least, found.most) == pods


def test_trials_that_do_not_fit_are_refused_and_training_that_does_is_not() -> None:
    spec = load_spec("sentiment", ["storage.url=s3://bucket", "tune.concurrent=2"])
    with pytest.raises(ConfigError, match=r"tune\.concurrent times train\.workers: 4 given, 2 to a pod; the overlay"):
        sizes.workers(spec, "local", "tune")
    assert sizes.workers(spec, "local").most == 1


def test_what_does_not_fit_for_training_can_still_be_prepared() -> None:
    spec = load_spec("sentiment", ["storage.url=s3://bucket", "train.workers=9"])
    with pytest.raises(ConfigError, match=r"train\.workers: 9 given"):
        sizes.workers(spec, "local")
    assert sizes.workers(spec, "local", "prepare").most == 1

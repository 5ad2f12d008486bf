"""What is rendered from a spec: deterministic, for its names and sizes, refused where it cannot run.

All that holds for the manifests of the repository is asked of what is rendered too, in the files beside.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from heliostat.cli import app
from heliostat.cluster.kubernetes import folder
from heliostat.cluster.kubernetes.build import build
from heliostat.cluster.kubernetes.overlays import OVERLAYS, package
from heliostat.infra.errors import ConfigError, ResourceError, StorageError
from heliostat.infra.registry.registry import ModelVersion
from heliostat.infra.storage.local import write_atomically
from heliostat.operations import render as operation
from heliostat.serve.replica.ingress import check_ingress
from heliostat.serve.replica.scaling import draining
from heliostat.spec import Spec, load_spec
from tests.unit.k8s.conftest import IMAGES, Manifests, args_of, manifests_of, rendered, spec_of

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def rendered_over(overlay: str) -> Manifests:
    return manifests_of(f"rendered {overlay}")


def workload(overlay: str, **more: Any) -> Any:
    spec = spec_of(overlay)
    values = {**spec.model_dump(mode="json", exclude_unset=True), **more}
    changed = Spec.model_validate(values)
    return operation.workload(changed, overlay, None, IMAGES, args_of(changed))


@each_overlay
def test_the_same_spec_gives_the_same_bytes_and_changes_nothing_the_second_time(overlay: str, tmp_path: Path) -> None:
    first, second = (rendered(overlay, tmp_path / name) for name in ("a", "b"))
    assert first == second
    assert folder.changes(tmp_path / "a", first) == folder.Changes({}, (), ())
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "a").rglob("*") if file.name != folder.RECORD}
    folder.write(tmp_path / "a", second)
    assert {file: file.stat().st_mtime_ns for file in before} == before


@each_overlay
def test_the_job_trains_the_spec_under_the_name_of_its_run(overlay: str, tmp_path: Path) -> None:
    found = rendered_over(overlay)
    job = found.only("RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert job["metadata"]["name"] == "mood-7"
    assert words[-2:] == ["--run", "mood-7"]
    assert ("train.use_gpu=true" in words) == (overlay == "gpu")
    texts = [one["data"]["spec.yaml"] for one in found.of("ConfigMap") if "spec.yaml" in one["data"]]
    (text,) = texts
    (tmp_path / "pod.yaml").write_text(text)
    spec, asked = load_spec(tmp_path / "pod.yaml", words[3:-2]), spec_of(overlay)
    assert spec.cluster.autoscales
    unlike = {"cluster", "storage", "train"}
    assert spec.model_dump(exclude=unlike) == asked.model_dump(exclude=unlike)
    assert spec.train.model_dump(exclude={"use_gpu"}) == asked.train.model_dump(exclude={"use_gpu"})
    settings = found.only("ConfigMap", "heliostat-environment")["data"]
    assert settings["HELIOSTAT_STORAGE"] == "s3://bucket/models"


@each_overlay
def test_the_endpoint_is_the_version_that_is_named(overlay: str) -> None:
    service = rendered_over(overlay).only("RayService")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert (service["metadata"]["name"], application["name"], application["route_prefix"]) == ("mood", "mood", "/mood")
    args = application["args"]
    assert (args["url"], args["digest"], args["version"]) == ("s3://bucket/models/models/mood/mood-7", "ab" * 32, "3")
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    (command,) = (container["lifecycle"]["preStop"]["exec"]["command"][-1] for container in pod["containers"])
    seconds = int(command.removeprefix("sleep ").partition(";")[0])
    assert draining(spec_of(overlay).serve)["graceful_shutdown_timeout_s"] < seconds
    assert pod["terminationGracePeriodSeconds"] >= seconds + 30
    images = {container["image"] for container in pod["containers"]}
    assert images == {IMAGES["serve"]}


@each_overlay
def test_the_ingress_is_set_to_what_replicas_ask_of_it(overlay: str) -> None:
    settings = rendered_over(overlay).only("ConfigMap", "heliostat-environment")["data"]
    check_ingress(spec_of(overlay).serve, settings)


@each_overlay
def test_without_an_endpoint_nothing_of_it_is_left(overlay: str, tmp_path: Path) -> None:
    rendered(overlay, tmp_path, is_served=False)
    found = Manifests(overlay, build(tmp_path))
    assert not found.of("RayService")
    assert not found.of("PodDisruptionBudget")
    assert found.only("RayJob")


def test_a_budget_lets_one_pod_go() -> None:
    found = rendered_over("production")
    (group,) = found.only("RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (3, 5)
    assert found.only("PodDisruptionBudget", "heliostat-serve")["spec"]["minAvailable"] == 2


@each_overlay
def test_the_sizes_of_overlays_are_those_of_their_manifests(overlay: str) -> None:
    found = rendered_over(overlay)
    for pod in found.pods():
        if pod.role == "worker":
            limits = pod.spec["containers"][0]["resources"]["limits"]
            assert float(limits["cpu"]) == OVERLAYS[overlay].cpus
            assert int(limits.get("nvidia.com/gpu", 0)) == OVERLAYS[overlay].gpus
            trains = pod.owner["kind"] != "RayService"
            assert not trains or limits["memory"] == f"{OVERLAYS[overlay].memory_gib}Gi"


@pytest.mark.parametrize(
    ("overlay", "more", "words"),
    [
        ("local", {"name": "9lives"}, "name: '9lives' given; on Kubernetes .* the first a letter"),
        ("local", {"name": "m" * 46}, r"name \(the job is m+-1\): 'm+-1' given; .* 47 at most"),
        (
            "local",
            {"train": {"workers": 4}},
            "train.workers: 4 given, 2 to a pod; the overlay local has room for 2 in all",
        ),
        (
            "local",
            {"train": {"cpus_per_worker": 3}},
            "train.cpus_per_worker: 3 given; a worker pod of the overlay local",
        ),
        ("local", {"serve": {"gpus_per_replica": 1}}, "gpus_per_replica 1; a serving pod .* has 2 CPUs and 0 GPUs"),
        (
            "production",
            {"serve": {"replicas": {"min": 2, "max": 4}}},
            "serve.replicas.min: 2 given, 2 to a pod; .* needs 2 pods: 3 replicas",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(overlay: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        workload(overlay, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "image", ["heliostat/train", "heliostat/train:latest", "r:5000/train", "a@sha256:12", "a@latest"]
)
def test_an_image_that_may_change_is_refused(image: str) -> None:
    with pytest.raises(ConfigError, match=f"--serve-image: {image} given; NAME:TAG is allowed"):
        operation.workload(spec_of("local"), "local", None, {"serve": image}, None)


def test_production_has_no_image_of_its_own() -> None:
    with pytest.raises(ConfigError, match="--train-image: not given; the overlay production names none that there is"):
        operation.workload(spec_of("production"), "production", None, {}, None)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["storage.url=/data"], "storage.url: /data given; pods need a bucket"),
        (["data.source=./reviews.csv"], "data.source: .*reviews.csv given, which no pod sees"),
        (["model.source=/models/minilm"], "model.source: /models/minilm given, which no pod sees"),
        (["serve.tls={certificate: /c.pem}"], "serve.tls: given; on Kubernetes the Gateway or Ingress"),
    ],
)
def test_what_only_this_machine_has_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        operation.check(load_spec("sentiment", ["storage.url=s3://bucket", *overrides]))


def test_keys_of_this_machine_are_told_of() -> None:
    spec = load_spec("sentiment", ["serve.port=8001", "cluster.num_cpus=4", "cluster.autoscales=true"])
    assert operation.unused(spec) == ["serve.port", "cluster.num_cpus"]


def test_what_was_edited_is_named_and_kept(tmp_path: Path) -> None:
    files = rendered("local", tmp_path)
    edited = tmp_path / "k8s" / "base" / "mlflow.yaml"
    edited.write_text(edited.read_text().replace("10Gi", "20Gi"))
    assert folder.changes(tmp_path, files).edited == ("k8s/base/mlflow.yaml",)
    with pytest.raises(ConfigError, match=r"mlflow\.yaml changed since it was rendered; --diff shows how"):
        folder.write(tmp_path, {**files, "spec.yaml": "name: other"})
    assert (tmp_path / "spec.yaml").read_text() == files["spec.yaml"], "nothing is written before"
    assert "-  resources: {requests: {storage: 20Gi}}\n+  resources: {requests: {storage: 10Gi}}" in folder.difference(
        tmp_path, files
    )
    folder.write(tmp_path, files, force=True)
    assert folder.changes(tmp_path, files) == folder.Changes({}, (), ())


def test_what_is_rendered_no_more_is_removed_and_files_of_others_stay(tmp_path: Path) -> None:
    files = rendered("production", tmp_path)
    (tmp_path / "notes.md").write_text("ours")
    without = {path: text for path, text in files.items() if not path.startswith("infra/")}
    found = folder.write(tmp_path, without)
    assert set(found.removed) == files.keys() - without.keys()
    assert not (tmp_path / "infra" / "grafana" / "kustomization.yaml").exists()
    assert (tmp_path / "notes.md").read_text() == "ours"


def test_a_file_of_somebody_else_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("name: theirs")
    with pytest.raises(ConfigError, match=r"spec\.yaml changed since it was rendered"):
        rendered("local", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["spec.yaml"]


def test_what_a_full_disk_leaves_half_written_is_nobodys_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rendered("local", tmp_path)
    second = {**{path: f"{text}# two\n" for path, text in first.items()}, "new.yaml": "two"}
    writes = iter(range(99))

    def full(file: Path, content: Any) -> None:
        if next(writes) == 5:
            raise OSError(28, "No space left on device")
        write_atomically(file, content)

    monkeypatch.setattr(folder, "write_atomically", full)
    with pytest.raises(StorageError, match="No space left on device"):
        folder.write(tmp_path, second)
    assert (
        sum((tmp_path / path).read_text() == text for path, text in second.items() if (tmp_path / path).is_file()) > 0
    )
    third = {path: f"{text}# three\n" for path, text in first.items()}
    folder.write(tmp_path, third)
    assert folder.changes(tmp_path, third) == folder.Changes({}, (), ())
    assert not (tmp_path / "new.yaml").exists()


def test_a_record_that_names_files_elsewhere_removes_none(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    place = tmp_path / "out"
    files = rendered("local", place)
    record = json.loads((place / folder.RECORD).read_text())
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    record |= {"../precious": [empty], str(tmp_path / "precious"): [empty]}
    (place / folder.RECORD).write_text(json.dumps(record))
    folder.write(place, files)
    assert (tmp_path / "precious").exists()


def test_a_damaged_record_and_a_folder_that_is_a_file_are_one_line(tmp_path: Path) -> None:
    files = rendered("local", tmp_path / "out")
    (tmp_path / "out" / folder.RECORD).write_text("[")
    with pytest.raises(ConfigError, match=r"rendered\.json: damaged"):
        folder.write(tmp_path / "out", files)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file: cannot be written"):
        folder.write(tmp_path / "file", files)


def shipped(monkeypatch: pytest.MonkeyPatch, place: Path, file: str, old: str, new: str) -> None:
    """Lets manifests be rendered from a copy of those that are shipped, with one text replaced."""
    copy = place / "package"
    shutil.copytree(package() / "k8s", copy / "k8s")
    (copy / "infra").symlink_to(package() / "infra")
    before = (copy / "k8s" / file).read_text()
    assert old in before
    (copy / "k8s" / file).write_text(before.replace(old, new))
    monkeypatch.setattr(operation, "package", lambda: copy)


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (
            "base/cluster.yaml",
            "rayVersion: 2.60.0",
            "rayVersion: 2.51.0",
            "RayCluster/heliostat: spec.rayVersion: '2.51.0' given; authOptions needs 2.52.0 or later (and 1 more)",
        ),
        (
            "overlays/local/bucket.yaml",
            "seaweedfs:4.48",
            "seaweedfs:latest",
            "Deployment/heliostat-bucket: spec.template.spec.containers[0].image: 'chrislusf/seaweedfs:latest' given",
        ),
    ],
)
def test_what_kuberay_refuses_is_refused_before_anything_is_written(
    file: str, old: str, new: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped(monkeypatch, tmp_path, file, old, new)
    out = tmp_path / "out"
    words_of = ["render", "k8s", "sentiment", "storage.url=s3://bucket", "--no-serve", "--out", str(out)]
    with pytest.raises(ConfigError, match=re.escape(words)):
        CliRunner().invoke(app, words_of, catch_exceptions=False)
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve.replicas.max=9"], "serve.replicas: 9 given, 2 to a pod; the overlay local has room for 2 in all"),
        (["serve.replicas.max=1", "train.workers=9"], "train.workers: 9 given"),
        (["serve.replicas.max=1", "name=9lives"], "name: '9lives' given"),
        (["serve.replicas.max=1", "--serve-image", "a:latest"], "--serve-image: a:latest given"),
        (["serve.replicas.max=1", "--job", "bake"], "--job: 'bake' given; prepare, train, tune, evaluate is allowed"),
        (["serve.replicas.max=1", "--overlay", "moon"], "--overlay: 'moon' given; local, gpu, production is allowed"),
    ],
)
def test_what_does_not_fit_is_said_before_the_registry_is_asked(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(spec: Spec, reference: str | None) -> ModelVersion:
        raise AssertionError("asked")

    monkeypatch.setattr("heliostat.pipeline.serve.resolve_model", resolve)
    command = ["render", "k8s", "sentiment", "storage.url=s3://bucket", *words, "--out", str(tmp_path / "out")]
    with pytest.raises(ConfigError, match=re.escape(said)):
        CliRunner().invoke(app, command, catch_exceptions=False)
    with pytest.raises(AssertionError, match="asked"):
        CliRunner().invoke(app, [*command[:4], "serve.replicas.max=1"], catch_exceptions=False)


def test_the_command_writes_shows_and_says_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = ModelVersion(
        "sentiment", 4, "s3://bucket/models/sentiment/r1", "cd" * 32, "r1", datetime.now(timezone.utc), (), {}
    )
    asked: list[tuple[str, str | None]] = []

    def resolve(spec: Spec, reference: str | None) -> ModelVersion:
        asked.append((spec.name, reference))
        return version

    monkeypatch.setattr("heliostat.pipeline.serve.resolve_model", resolve)
    out = str(tmp_path / "out")
    words = ["render", "k8s", "sentiment", "storage.url=s3://bucket", "serve.replicas.max=1", "--out", out]
    shown = CliRunner().invoke(app, [*words, "--diff"])
    assert shown.exit_code == 0, shown.output
    assert "+++ kustomization.yaml" in shown.output
    assert not Path(out).exists()
    done = CliRunner().invoke(app, [*words, "--model", "models:/sentiment/4"])
    assert done.exit_code == 0, done.output
    assert asked == [("sentiment", None), ("sentiment", "models:/sentiment/4")]
    for part in ("platform", "train", "serve"):
        assert f"kubectl apply --server-side -k {out} -l app.kubernetes.io/component={part}" in done.output.replace(
            "\n", " "
        )
    again = CliRunner().invoke(app, [*words, "--diff"])
    assert "as it would be rendered" in again.output.replace("\n", " ")


def test_a_folder_is_rendered_without_kubectl_and_other_forms_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise ResourceError("there is no kubectl")

    monkeypatch.setattr("heliostat.cluster.kubernetes.build.kubectl", none)
    words = ["render", "k8s", "sentiment", "storage.url=s3://bucket", "--no-serve", "--out", str(tmp_path / "out")]

    done = CliRunner().invoke(app, words)

    assert done.exit_code == 0, done.output
    assert "not held against what KubeRay refuses: there is no kubectl" in done.output
    assert (tmp_path / "out" / "kustomization.yaml").is_file()
    assert str(CliRunner().invoke(app, [*words, "--plain"]).exception) == "there is no kubectl"

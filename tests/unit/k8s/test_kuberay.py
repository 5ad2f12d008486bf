"""KubeRay's kinds against KubeRay's schemas, and what they say against what the code says."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray._common.utils import import_attr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner

from heliostat.cli import app
from heliostat.cluster import environment
from heliostat.infra.config.strict import build, parse_yaml
from heliostat.serve.args import AppArgs
from heliostat.serve.replica.scaling import DRAIN_SECONDS, draining
from heliostat.spec import RECIPES, Spec, load_spec

CRDS = Path(__file__).resolve().parents[4] / "shared" / "kuberay-crds"
FILES = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayService": "rayservices"}


@pytest.fixture(scope="session")
def schemas() -> dict[str, dict[str, Any]]:
    """The `v1` schema of each kind, closed to fields that it does not know."""
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's schemas are not here: {CRDS}")
    return {kind: closed(schema(name)) for kind, name in FILES.items()}


def schema(name: str) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load((CRDS / f"ray.io_{name}.yaml").read_text(), loader)
    [v1] = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
    found = v1["schema"]["openAPIV3Schema"]
    # Kubernetes itself checks the object's own metadata; the schema only says that there are some.
    found["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
    return found


def closed(node: dict[str, Any]) -> dict[str, Any]:
    """The schema as JSON Schema, with an error where Kubernetes would drop a field in silence."""
    result = {key: value for key, value in node.items() if not key.startswith("x-kubernetes-")}
    result.pop("nullable", None)
    if "properties" in node:
        result["properties"] = {key: closed(value) for key, value in node["properties"].items()}
    if isinstance(node.get("items"), dict):
        result["items"] = closed(node["items"])
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = closed(node["additionalProperties"])
    elif node.get("type") == "object" and not node.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    return result


def test_kuberay_takes_every_object_and_knows_every_field(manifests: Any, schemas: dict[str, dict[str, Any]]) -> None:
    for kind, one in schemas.items():
        found = manifests.of(kind)
        assert found
        for item in found:
            assert item["apiVersion"] == "ray.io/v1"
            jsonschema.Draft202012Validator(one).validate(item)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rayVersoin", "2.60.0", "'rayVersoin' was unexpected"),
        ("rayVersion", 2.6, "2.6 is not of type 'string'"),
        ("authOptions", {"mode": "none"}, "'none' is not one of"),
        ("workerGroupSpecs", [{"groupName": "a"}], "is a required property"),
    ],
)
def test_the_check_finds_what_is_wrong(schemas: dict[str, dict[str, Any]], field: str, value: Any, said: str) -> None:
    pods = {"spec": {"containers": [{"name": "ray-head"}]}}
    right: dict[str, Any] = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "spec": {"headGroupSpec": {"template": pods}},
    }
    validator = jsonschema.Draft202012Validator(schemas["RayCluster"])
    validator.validate(right)
    with pytest.raises(jsonschema.ValidationError, match=said):
        validator.validate({**right, "spec": {**right["spec"], field: value}})


def cluster_specs(manifests: Any) -> list[dict[str, Any]]:
    return [
        manifests.only("RayCluster")["spec"],
        manifests.only("RayJob")["spec"]["rayClusterSpec"],
        manifests.only("RayService")["spec"]["rayClusterConfig"],
    ]


def test_every_cluster_asks_for_a_token_and_runs_our_ray(manifests: Any) -> None:
    import ray

    for spec in cluster_specs(manifests):
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["rayVersion"] == ray.__version__
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_job_gets_a_cluster_like_the_one_that_stands(manifests: Any) -> None:
    assert manifests.only("RayJob")["spec"]["rayClusterSpec"] == manifests.only("RayCluster")["spec"]


def test_workers_scale_within_bounds(manifests: Any) -> None:
    for spec in cluster_specs(manifests):
        assert spec["enableInTreeAutoscaling"] is True
        for group in spec["workerGroupSpecs"]:
            assert 1 <= group["minReplicas"] <= group["maxReplicas"]
            assert "replicas" not in group, "the autoscaler's: applying ours would be a step back"


def test_pods_run_in_the_environment_of_a_local_ray(manifests: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_metrics_report_interval_ms"):
        monkeypatch.delenv(name, raising=False)
    data = manifests.only("ConfigMap", "heliostat-environment")["data"]
    ours = {name: value for name, value in environment._defaults().items() if value is not None}
    assert ours.items() <= data.items()
    assert data["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert data["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] == str(DRAIN_SECONDS)
    assert data["HELIOSTAT_STORAGE"].startswith("s3://")
    host, port = data["MLFLOW_TRACKING_URI"].removeprefix("http://").split(":")
    [service_port] = manifests.only("Service", host)["spec"]["ports"]
    assert int(port) == service_port["port"]


@pytest.fixture
def spec(manifests: Any, tmp_path: Path) -> Path:
    """The spec of the ConfigMap, as a file."""
    file = tmp_path / "spec.yaml"
    file.write_text(manifests.only("ConfigMap", "heliostat-spec")["data"]["spec.yaml"])
    return file


def test_the_spec_is_the_recipe_on_a_cluster(committed: Any, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(committed.only("ConfigMap", "heliostat-spec")["data"]["spec.yaml"])
    ours, recipe = load_spec(file), load_spec(RECIPES / "sentiment.yaml")
    assert ours.cluster.autoscales is True
    on_a_cluster = recipe.model_copy(update={"cluster": ours.cluster})
    assert ours == on_a_cluster, "k8s/base/spec.yaml: copy recipes/sentiment.yaml, keep `cluster`"


def dry_run(manifests: Any, spec: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    data = manifests.only("ConfigMap", "heliostat-environment")["data"]
    monkeypatch.setenv("HELIOSTAT_STORAGE", data["HELIOSTAT_STORAGE"])
    program, *arguments = shlex.split(manifests.only("RayJob")["spec"]["entrypoint"])
    assert program == "heliostat"
    said = CliRunner().invoke(
        app,
        [argument.replace("/etc/heliostat/spec.yaml", str(spec)) for argument in arguments] + ["--dry-run"],
    )
    assert said.exit_code == 0, said.output
    return build(Spec, parse_yaml(said.output))


def test_the_job_runs_a_command_that_there_is(manifests: Any, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = manifests.only("RayJob")
    planned = dry_run(manifests, spec, monkeypatch)
    assert planned.storage.url.startswith("s3://")
    [head] = [pod for pod in manifests.pods() if pod.role == "head" and pod.owner["kind"] == "RayJob"]
    [mounted] = [one["mountPath"] for one in head.spec["containers"][0]["volumeMounts"] if one["name"] == "spec"]
    assert f"{mounted}/spec.yaml" in job["spec"]["entrypoint"]


def test_the_job_has_room_for_its_workers(manifests: Any, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = dry_run(manifests, spec, monkeypatch).train
    [group] = manifests.only("RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert train.workers.max * train.cpus_per_worker <= group["maxReplicas"] * int(limits["cpu"])
    gpus = group["maxReplicas"] * int(limits.get("nvidia.com/gpu", 0))
    assert (train.workers.max if train.use_gpu is True else 0) <= gpus
    assert bool(gpus) == manifests.target.endswith("gpu")


def test_a_second_attempt_goes_on_with_the_run_of_the_first(manifests: Any) -> None:
    job = manifests.only("RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[words.index("--run") + 1] == job["metadata"]["name"]
    assert job["spec"]["backoffLimit"] >= 1
    attempts = job["spec"]["backoffLimit"] + 1
    assert 0 < job["spec"]["preRunningDeadlineSeconds"] < job["spec"]["activeDeadlineSeconds"]
    total = attempts * job["spec"]["activeDeadlineSeconds"]
    assert job["metadata"]["annotations"]["heliostat/total-deadline-seconds"] == str(total)
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["ttlSecondsAfterFinished"] > 0


def served(manifests: Any) -> tuple[Any, AppArgs]:
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifests.only("RayService")["spec"]["serveConfigV2"]))
    [application] = config.applications
    return config, build(AppArgs, application.args)


def test_the_endpoint_is_the_application_of_the_code(manifests: Any) -> None:
    config, args = served(manifests)
    [application] = config.applications
    module, _, name = application.import_path.partition(":")
    assert (module, name) == ("heliostat.serve.app", "build")
    assert application.name == args.name == manifests.only("RayService")["metadata"]["name"]
    assert application.route_prefix == args.route


def test_ray_builds_the_endpoint_with_its_own_function(manifests: Any) -> None:
    """As `serve deploy` and KubeRay have it built, from the text alone."""
    config, args = served(manifests)
    [application] = config.applications
    built = call_user_app_builder_with_args_if_necessary(import_attr(application.import_path), application.args)
    assert built._bound_deployment.init_args == (args.model_dump(mode="json"),)


def test_the_endpoint_listens_where_kubernetes_looks(manifests: Any) -> None:
    config, args = served(manifests)
    assert config.http_options.host == args.config.host == "0.0.0.0"
    [worker] = [pod for pod in manifests.pods() if pod.role == "worker" and pod.owner["kind"] == "RayService"]
    ports = {port["name"]: port["containerPort"] for port in worker.spec["containers"][0]["ports"]}
    assert config.http_options.port == args.config.port == ports["serve"]


def test_the_endpoint_takes_requests_with_a_key_only(manifests: Any) -> None:
    _, args = served(manifests)
    assert args.config.auth == "keys"
    assert args.keys == (), "keys come from the Secret"
    [worker] = [pod for pod in manifests.pods() if pod.role == "worker" and pod.owner["kind"] == "RayService"]
    [keys] = [one for one in worker.spec["containers"][0]["env"] if one["name"] == "HELIOSTAT_API_KEYS"]
    assert not keys["valueFrom"]["secretKeyRef"].get("optional", False)


def test_nothing_is_served_before_a_model_is_named(committed: Any) -> None:
    _, args = served(committed)
    storage = committed.only("ConfigMap", "heliostat-environment")["data"]["HELIOSTAT_STORAGE"]
    run = committed.only("RayJob")["metadata"]["name"]
    assert args.url == f"{storage}/models/{args.name}/{run}", "where the job will publish"
    assert args.digest == "0" * 64, "the digest of nothing: serve refuses it"


def test_replicas_fit_into_the_pods(manifests: Any) -> None:
    _, args = served(manifests)
    [group] = manifests.only("RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    each = int(float(limits["cpu"]) // args.config.cpus_per_replica)
    if args.config.gpus_per_replica:
        each = min(each, int(int(limits["nvidia.com/gpu"]) // args.config.gpus_per_replica))
    assert args.config.replicas.max <= each * group["maxReplicas"]
    assert args.config.replicas.min <= each * group["minReplicas"]


def test_a_serving_pod_finishes_its_longest_answer(manifests: Any) -> None:
    _, args = served(manifests)
    [worker] = [pod for pod in manifests.pods() if pod.role == "worker" and pod.owner["kind"] == "RayService"]
    command = worker.spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    seconds = int(command.removeprefix("sleep ").split(";")[0])
    assert seconds > draining(args.config)["graceful_shutdown_timeout_s"]

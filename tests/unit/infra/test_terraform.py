"""The Terraform modules, as far as can be told without providers: they parse, refer to what there is, are closed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.guides import ROOT, commands
from tests.terraform import FOLDER, Module, modules, problems, read

MODULES = modules()
CLOUDS = ("aws", "azure", "gcp")
KINDS_OF_MACHINES = {"system_machine", "accelerator"}
"""Variables whose values only the cloud knows."""


def each(*names: str) -> Any:
    return pytest.mark.parametrize("module", [MODULES[name] for name in names], ids=names)


def test_there_is_a_module_for_each_cloud_and_one_for_all() -> None:
    assert set(MODULES) == {*CLOUDS, "platform"}


def test_the_files_are_formatted_as_terraform_does() -> None:
    if (terraform := shutil.which("terraform")) is None:
        pytest.skip("no terraform here")
    done = subprocess.run([terraform, "fmt", "-check", "-diff", "-recursive", FOLDER], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@each(*MODULES)
def test_what_is_named_is_declared_and_what_is_declared_is_used(module: Module) -> None:
    assert problems(module) == []


def test_a_name_that_is_not_declared_is_found(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text(
        'variable "unused" {}\n'
        'resource "aws_eip" "nat" {\n  name = "${var.lost}-${aws_vpc.this.id}"\n  vpc = data.aws_vpc.this.id\n}\n'
        'output "x" {\n  value = [local.gone, aws_eip.nat.id]\n}\n'
    )
    assert problems(read(tmp_path)) == [
        "var.lost: not declared",
        "var.unused: not used",
        "local.gone: not declared",
        "aws_vpc.this: not declared",
        "data.aws_vpc.this: not declared",
    ]


@each(*MODULES)
def test_each_variable_says_what_it_is_and_what_it_takes(module: Module) -> None:
    for name, variable in module.named("variable").items():
        assert len(variable["description"]) > 10, name
        assert "type" in variable, name
        if name not in KINDS_OF_MACHINES:
            assert all(one["condition"] and one["error_message"] for one in variable["validation"]), name


@each(*MODULES)
def test_providers_and_charts_are_pinned(module: Module) -> None:
    [terraform] = module.blocks["terraform"]
    [required] = terraform["required_providers"]
    assert all(re.fullmatch(r"~> \d+\.\d+", one["version"]) for one in required.values()), required
    used = {sort.partition("_")[0] for sort, _ in [*module.typed("resource"), *module.typed("data")]}
    assert used <= required.keys()
    for (sort, name), release in module.typed("resource").items():
        if sort == "helm_release":
            variable = re.fullmatch(r"\$\{var\.(\w+)\}", release["version"])
            assert variable, name
            default = module.named("variable")[variable[1]]["default"]
            assert default in (None, "null") or re.fullmatch(r"\d+\.\d+\.\d+", str(default)), name


@each(*CLOUDS)
def test_a_module_that_is_called_takes_what_it_is_given(module: Module) -> None:
    for name, call in module.named("module").items():
        called = read((FOLDER / module.name / call["source"]).resolve())
        given = {key: value for key, value in call.items() if key not in ("source", "depends_on")}
        assert given.keys() <= called.named("variable").keys(), name
        assert call["depends_on"], "operators need nodes"
        for key, value in given.items():
            assert re.fullmatch(r"\d+\.\d+\.\d+", value), f"{name}.{key}"


def test_kuberay_is_one_that_the_manifests_are_written_for() -> None:
    platform = MODULES["platform"]
    assert platform.named("variable")["kuberay_version"]["default"] == "1.7.0"
    assert platform.typed("resource")["helm_release", "kuberay"]["chart"] == "kuberay-operator"


@each(*CLOUDS)
def test_nothing_lets_the_world_in(module: Module) -> None:
    """What names the whole world is a route out; the Kubernetes API is open to the administrators' addresses only."""
    for (sort, name), body in module.typed("resource").items():
        if sort != "aws_route_table":
            assert "0.0.0.0/0" not in str(body), f"{sort}.{name}"
        assert not re.search(r"security_group_rule|_ingress|firewall|network_security_rule", sort), sort
    where: dict[str, Any] = {
        "aws": lambda: MODULES["aws"].only("aws_eks_cluster")["vpc_config"][0]["public_access_cidrs"],
        "gcp": lambda: MODULES["gcp"].only("google_container_cluster")["master_authorized_networks_config"],
        "azure": lambda: MODULES["azure"].only("azurerm_kubernetes_cluster")["api_server_access_profile"],
    }
    assert "var.admin_cidrs" in str(where[module.name]())
    assert "default" not in module.named("variable")["admin_cidrs"], "nobody's addresses are everybody's"


def test_the_bucket_on_aws_is_versioned_encrypted_and_closed() -> None:
    aws = MODULES["aws"]
    [versioning] = aws.only("aws_s3_bucket_versioning")["versioning_configuration"]
    assert versioning["status"] == "Enabled"
    assert "aws:kms" in str(aws.only("aws_s3_bucket_server_side_encryption_configuration"))
    block = aws.only("aws_s3_bucket_public_access_block")
    switches = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    assert all(block[switch] is True for switch in switches)
    assert aws.typed("data")["aws_iam_policy_document", "tls_only"]["statement"][0]["effect"] == "Deny"


def test_the_bucket_on_gcp_is_versioned_encrypted_and_closed() -> None:
    bucket = MODULES["gcp"].only("google_storage_bucket")
    assert bucket["versioning"][0]["enabled"] is True
    assert "google_kms_crypto_key.this" in bucket["encryption"][0]["default_kms_key_name"]
    assert (bucket["public_access_prevention"], bucket["uniform_bucket_level_access"]) == ("enforced", True)


def test_the_storage_on_azure_is_versioned_encrypted_and_closed() -> None:
    azure = MODULES["azure"]
    account = azure.only("azurerm_storage_account")
    assert account["blob_properties"][0]["versioning_enabled"] is True
    assert account["infrastructure_encryption_enabled"] is True
    assert account["allow_nested_items_to_be_public"] is False
    assert account["shared_access_key_enabled"] is False
    assert account["network_rules"][0]["default_action"] == "Deny"
    assert azure.only("azurerm_storage_container")["container_access_type"] == "private"


ANNOTATIONS = {
    "aws": "eks.amazonaws.com/role-arn",
    "gcp": "iam.gke.io/gcp-service-account",
    "azure": "azure.workload.identity/client-id",
}


@each(*CLOUDS)
def test_the_manifests_accounts_open_the_bucket_and_no_key_is_made(module: Module) -> None:
    documents = yaml.safe_load_all((ROOT / "k8s" / "base" / "accounts.yaml").read_text())
    accounts = [one["metadata"]["name"] for one in documents]
    text = (FOLDER / module.name / "identity.tf").read_text()
    assert f"[{', '.join(f'{chr(34)}{name}{chr(34)}' for name in accounts)}]" in text
    assert "var.namespace" in text
    assert ANNOTATIONS[module.name] in str(module.named("output")["account_annotations"]["value"])
    keys = re.compile(r"access_key$|service_account_key|hmac_key|_sas$|password")
    assert not [sort for sort, _ in module.typed("resource") if keys.search(sort)]


@each(*CLOUDS)
def test_outputs_are_what_rendering_asks_for(module: Module) -> None:
    outputs = module.named("output")
    assert {"kubeconfig", "images", "account_annotations", "region"} <= outputs.keys()
    assert all(one["description"] and one["value"] for one in outputs.values())
    assert ("storage_url" in outputs) == (module.name == "aws"), "the others have no conditional writes of S3"


@each(*CLOUDS)
def test_pools_of_gpus_are_spot_and_on_demand_and_tainted_for_what_pods_tolerate(module: Module) -> None:
    default = module.named("variable")["gpu_pools"]["default"]
    assert sorted(pool["spot"] for pool in default.values()) == [False, True]
    files = "".join(file.read_text() for file in (FOLDER / module.name).glob("*.tf"))
    assert "each.value.spot" in files
    assert "nvidia.com/gpu" in files
    tolerations = (ROOT / "k8s" / "components" / "gpu" / "service.yaml").read_text()
    assert "{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}" in tolerations


def test_the_guide_gives_each_module_what_it_asks_for_and_nothing_else() -> None:
    applied = set()
    for command in commands(ROOT / "docs" / "clouds.md", "terraform"):
        words = shlex.split(command)
        module = MODULES[words[1].removeprefix("-chdir=infra/terraform/")]
        if words[2] not in ("apply", "destroy"):
            continue
        given = {following.partition("=")[0] for word, following in pairwise(words) if word == "-var"}
        variables = module.named("variable")
        assert given == {name for name, one in variables.items() if "default" not in one}, command
        applied.add(module.name)
    assert applied == set(CLOUDS)


GIVEN = {
    "aws": {
        "region": "eu-central-1", "zones": ["eu-central-1a", "eu-central-1b"], "bucket": "my-heliostat",
        "admin_cidrs": ["203.0.113.7/32"],
    },
    "gcp": {
        "project": "my-project", "region": "europe-west4", "gpu_zones": ["europe-west4-a"], "bucket": "my-heliostat",
        "admin_cidrs": ["203.0.113.7/32"],
    },
    "azure": {
        "subscription": "00000000-0000-0000-0000-000000000000", "location": "westeurope",
        "storage_account": "myheliostat", "registry": "myheliostat",
        "admin_group": "00000000-0000-0000-0000-000000000000", "admin_cidrs": ["203.0.113.7/32"],
    },
    "platform": {},
}  # fmt: skip
POOL = {"machine": "x", "gpus": 1, "min": 0, "max": 1, "spot": True}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *((cloud, {"admin_cidrs": ["0.0.0.0/0"]}, "your own addresses") for cloud in CLOUDS),
    *((cloud, {"admin_cidrs": []}, "your own addresses") for cloud in CLOUDS),
    *((cloud, {"gpu_pools": {"l4": {**POOL, "min": 2}}}, "0 <= min <= max") for cloud in CLOUDS),
    ("aws", {"zones": ["eu-central-1a"]}, "Two zones at least"),
    ("aws", {"bucket": "My_Bucket"}, "3 to 63"),
    ("aws", {"kubernetes_version": "1.29"}, "1.30 or a newer minor"),
    ("aws", {"region": "Frankfurt"}, "A region such as"),
    ("gcp", {"gpu_zones": ["us-central1-a"]}, "At least one zone of the region"),
    ("azure", {"gpu_pools": {"a10-spot": POOL}}, "at most 12"),
    ("azure", {"storage_account": "my-heliostat"}, "3 to 24"),
    ("platform", {"kuberay_version": "1.5.1"}, "1.7.0 or a newer"),
    ("platform", {"device_plugin_version": "latest"}, "MAJOR.MINOR.PATCH"),
]


def planned(module: str, given: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """What Terraform says of values for the module's variables, which need no provider."""
    if (terraform := shutil.which("terraform")) is None:
        pytest.skip("no terraform here")
    shutil.copy(FOLDER / module / "variables.tf", folder)
    (folder / "given.tfvars.json").write_text(json.dumps({**GIVEN[module], **given}))
    command = [terraform, f"-chdir={folder}", "plan", "-no-color", "-input=false", "-var-file=given.tfvars.json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@each(*MODULES)
def test_terraform_takes_the_values_of_the_guide(module: Module, tmp_path: Path) -> None:
    done = planned(module.name, {}, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("module", "given", "says"), REFUSED)
def test_terraform_refuses_what_a_variable_does_not_take(
    module: str, given: dict[str, Any], says: str, tmp_path: Path
) -> None:
    done = planned(module, given, tmp_path)
    assert done.returncode != 0
    assert says in " ".join(done.stderr.replace("│", "").split())

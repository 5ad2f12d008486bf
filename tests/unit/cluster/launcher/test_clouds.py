"""What each cloud is asked for, by the nearest that there is offline: its SDK's model, Ray's own set-up, a template."""

from __future__ import annotations

import importlib
import json
import sys
from copy import deepcopy
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import botocore.session
import pytest
import ray.autoscaler._private
from botocore.validate import ParamValidator
from ray.autoscaler._private.aws import config as ray_aws
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.node_launch_exception import NodeLaunchException

from heliostat.cluster.launcher.__main__ import examples
from heliostat.cluster.launcher.render import parts

TEMPLATE = Path(next(iter(ray.autoscaler._private.__path__))) / "_azure" / "azure-vm-template.json"


def prepared(provider: str, **changed: Any) -> dict[str, Any]:
    """The file as Ray's launcher reads it, with other values in the provider's section."""
    launcher = examples()
    section = getattr(launcher, provider).model_copy(update=changed)
    given = launcher.model_copy(update={provider: section})
    return dict(prepare_config({key: value for part in parts(given, provider) for key, value in part.values.items()}))


def node_configs(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: kind["node_config"] for name, kind in config["available_node_types"].items()}


def test_ec2_knows_each_parameter_of_an_instance() -> None:
    operation = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances")
    for name, node in node_configs(prepared("aws")).items():
        given = {key: value for key, value in node.items() if key != "SubnetIds"}  # Ray's own; it gives SubnetId
        asked = {**given, "SubnetId": node["SubnetIds"][0], "MinCount": 1, "MaxCount": 1}
        assert operation.input_shape
        report = ParamValidator().validate(asked, operation.input_shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])


class Ec2:
    """Answers what Ray's set-up of a cluster asks, and makes a key pair, but nothing else."""

    def __init__(self, folder: Path) -> None:
        self.made: list[str] = []
        self.folder = folder
        self.subnets = SimpleNamespace(all=self.all_subnets, filter=lambda Filters: self.all_subnets())  # noqa: N803
        groups = [SimpleNamespace(vpc_id="vpc-1")]
        self.security_groups = SimpleNamespace(filter=lambda Filters: groups)  # noqa: N803
        self.key_pairs = SimpleNamespace(filter=lambda Filters: [])  # noqa: N803

    def all_subnets(self) -> list[SimpleNamespace]:
        aws = examples().aws
        assert aws
        zones = dict(zip(aws.subnets, ("us-west-2a", "us-west-2b"), strict=True))
        return [
            SimpleNamespace(
                subnet_id=one, vpc_id="vpc-1", state="available", map_public_ip_on_launch=True, availability_zone=zone
            )
            for one, zone in zones.items()
        ]

    def create_key_pair(self, KeyName: str) -> SimpleNamespace:  # noqa: N803
        self.made.append("key pair")
        return SimpleNamespace(key_material="secret")


def test_ray_sets_up_aws_without_a_role_or_a_security_group_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ec2 = Ec2(tmp_path)
    monkeypatch.setattr(ray_aws, "_resource", lambda name, config: {"ec2": ec2}[name])
    monkeypatch.setattr(ray_aws, "_client", lambda name, config: pytest.fail(f"asked for a client of {name}"))
    before = prepared("aws")
    after = ray_aws.bootstrap_aws(deepcopy(before))
    assert ec2.made == ["key pair"]
    for name, node in node_configs(after).items():
        ours = node_configs(before)[name]
        assert {key: node[key] for key in ours} == ours
        assert node.keys() - ours.keys() == {"KeyName"}
    assert after["head_node"] == {}, "a role of Ray's own would stand here"


def fake_modules(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Stands in for SDKs that are not installed here: whatever is asked of them is a class of no use."""

    class Anything(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (Exception,), {})

    for name in names:
        for at in range(1, name.count(".") + 2):
            part = ".".join(name.split(".")[:at])
            module = Anything(part)
            module.__path__ = []
            monkeypatch.setitem(sys.modules, part, module)
            parent, _, last = part.rpartition(".")
            if parent:
                monkeypatch.setattr(sys.modules[parent], last, module, raising=False)


GOOGLE = (
    "googleapiclient.discovery", "googleapiclient.errors", "google_auth_httplib2", "httplib2",
)  # fmt: skip
AZURE = (
    "azure.common.credentials", "azure.core.exceptions", "azure.identity", "azure.mgmt.compute", "azure.mgmt.network",
    "azure.mgmt.resource.resources.models",
)  # fmt: skip


@pytest.fixture
def nodes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class that the provider's file names, with an SDK that cannot do anything."""
    provider = request.param
    fake_modules(monkeypatch, *{"gcp": GOOGLE, "azure": AZURE}[provider])
    before = set(sys.modules)
    module, _, name = prepared(provider)["provider"]["module"].rpartition(".")
    yield getattr(importlib.import_module(module), name)
    for loaded in set(sys.modules) - before:
        del sys.modules[loaded]


@pytest.mark.parametrize("nodes", ["gcp", "azure"], indirect=True)
def test_the_autoscaler_remembers_that_a_cloud_refused_a_machine(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("QUOTA_EXCEEDED")

    monkeypatch.setattr(nodes.__mro__[1], "create_node", refuse)
    with pytest.raises(NodeLaunchException, match="QUOTA_EXCEEDED"):
        nodes.__new__(nodes).create_node({}, {}, 1)


@pytest.mark.parametrize("nodes", ["gcp"], indirect=True)
def test_ray_gives_machines_on_gcp_no_other_network_and_no_other_kind(nodes: Any) -> None:
    ray_gcp = importlib.import_module("ray.autoscaler._private.gcp.config")
    before = prepared("gcp")
    assert ray_gcp._configure_subnet(deepcopy(before), compute=None) == before, "no subnet is looked for"
    for node in node_configs(before).values():
        assert ray_gcp.get_node_type(node) == ray_gcp.GCPNodeType.COMPUTE


def test_only_the_head_on_gcp_has_a_public_address_and_only_where_asked_for() -> None:
    def public(config: dict[str, Any]) -> set[str]:
        return {
            name
            for name, node in node_configs(config).items()
            if any("accessConfigs" in interface for interface in node["networkInterfaces"])
        }

    assert public(prepared("gcp")) == {"head"}
    assert public(closed := prepared("gcp", public_head=False)) == set()
    assert closed["provider"]["use_internal_ips"] is True


def test_a_spot_machine_on_gcp_is_deleted_when_it_is_taken_away() -> None:
    scheduling: dict[str, Any] = {name: node.get("scheduling") for name, node in node_configs(prepared("gcp")).items()}
    assert scheduling["head"] is None
    assert scheduling["l4-spot"]["instanceTerminationAction"] == "DELETE"
    assert scheduling["l4-spot"]["provisioningModel"] == "SPOT"
    assert "provisioningModel" not in scheduling["l4-on-demand"]


def test_the_template_of_a_machine_on_azure_has_each_parameter_and_lacks_none() -> None:
    parameters = json.loads(TEMPLATE.read_text())["parameters"]
    of_ray = {"vmName", "adminUsername", "publicKey", "vmTags", "vmCount", "provisionPublicIp", "msi", "nsg", "subnet"}
    needed = {name for name, one in parameters.items() if "defaultValue" not in one} - of_ray
    kinds = {"string": str, "int": int, "object": dict}
    for node in node_configs(prepared("azure")).values():
        given = node["azure_arm_parameters"]
        assert given.keys() <= parameters.keys() - of_ray
        assert needed <= given.keys()
        assert all(isinstance(value, kinds[parameters[name]["type"]]) for name, value in given.items())


def test_no_machine_on_azure_has_a_public_address() -> None:
    provider = prepared("azure")["provider"]
    assert provider["use_internal_ips"] is True
    assert "use_external_head_ip" not in provider


@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
def test_a_head_is_no_spot_machine(provider: str) -> None:
    head = json.dumps(node_configs(prepared(provider))["head"])
    assert "spot" not in head.lower()

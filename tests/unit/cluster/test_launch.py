"""Each file of cluster/launch, which `heliostat render launcher` wrote, by what Ray's own launcher makes of it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.commands import get_or_create_head_node
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.ray_installer import RayInstaller
from ray.core.generated.instance_manager_pb2 import Instance
from ray.serve._private.constants import RAY_SERVE_HAPROXY_MAXCONN

import heliostat.cluster
from heliostat.cluster.haproxy.settings import CONNECTIONS_VARIABLE
from heliostat.cluster.launcher.__main__ import contents
from heliostat.cluster.launcher.render import SCORER
from tests.dockerfile import builds, command, environment, packages
from tests.guides import ROOT

FOLDER = Path(next(iter(heliostat.cluster.__path__))) / "launch"
FILES = sorted(FOLDER.iterdir())
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
HEAD_IP = "192.0.2.10"
STAGE = "cluster"
"""The stage of the Dockerfile that the launcher's image is built from."""
BUILT_IN = {"echo", "exit", "export", "source", "test"}
ESSENTIAL = {"bash", "/bin/bash", "cat", "mkdir", "printenv"}
"""Programs of Debian's bash and coreutils, which every image has."""
OF_PACKAGES = {"ssh": "openssh-client", "rsync": "rsync", "sudo": "sudo", "wget": "wget"}


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(yaml.safe_load(request.param.read_text()))


class Nodes(NodeProvider):
    """A cloud that gives out addresses."""

    def __init__(self, provider_config: dict[str, Any]) -> None:
        super().__init__(provider_config, "heliostat")
        self.tags: dict[str, dict[str, str]] = {}

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:
        self.tags[HEAD_IP] = dict(tags)

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        return [node for node, tags in self.tags.items() if tag_filters.items() <= tags.items()]

    def node_tags(self, node_id: str) -> dict[str, str]:
        return self.tags.setdefault(node_id, {})

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        self.node_tags(node_id).update(tags)

    def is_terminated(self, node_id: str) -> bool:
        return False

    def internal_ip(self, node_id: str) -> str:
        return node_id

    external_ip = internal_ip


@dataclass
class Runner:
    """Takes the place of `subprocess` in Ray's launcher: writes down what is run, and answers as docker would."""

    ran: list[list[str]] = field(default_factory=list)
    DEVNULL = None

    def check_call(self, words: list[str], **_: Any) -> None:
        self.ran.append(words)

    def check_output(self, words: list[str]) -> bytes:
        self.ran.append(words)
        answers = {
            "command -v docker": "/usr/bin/docker",
            "json .Config.Env": json.dumps([f"{name}={value}" for name, value in environment(STAGE).items()]),
            "/proc/meminfo": "MemAvailable: 16000000 kB",
            "printenv HOME": environment(STAGE).get("HOME", "/home/heliostat"),
        }
        return next((answer for asked, answer in answers.items() if asked in words[-1]), "").encode()

    def on_machines(self) -> list[str]:
        """The commands that SSH runs on the other side, out of the shell that Ray puts round each."""
        lines = [words[-1] for words in self.ran if words[0] == "ssh"]
        return [unwrapped(shlex.split(line)[0]) for line in lines]

    def in_containers(self) -> list[str]:
        found = []
        for line in self.on_machines():
            for inner in re.findall(r"docker exec (?:-it )? *heliostat ((?:.|\n)*)", line):
                words = shlex.split(inner)
                found.append(unwrapped(shlex.split(words[2])[-1]) if words[0] == "/bin/bash" else inner)
        return found


def unwrapped(line: str) -> str:
    return re.sub(r"^source ~/\.bashrc; export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore && \((.*)\)$", r"\1", line)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the token and the key that the files name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (".ray/auth_token", ".ssh/id_ed25519", "ray_bootstrap_key.pem"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("secret")
    return tmp_path


@pytest.fixture
def head(config: dict[str, Any], home: Path) -> Runner:
    """What `ray up` runs where it is typed."""
    runner, prepared = Runner(), prepare_config(deepcopy(config))
    prepared["auth"].setdefault("ssh_private_key", str(home / ".ssh/id_ed25519"))  # on AWS, Ray makes one
    provider = Nodes(prepared["provider"])
    get_or_create_head_node(prepared, "cluster.yaml", False, False, True, None, _provider=provider, _runner=runner)
    return runner


@pytest.fixture
def worker(config: dict[str, Any], home: Path) -> Runner:
    """What the head runs, in its own container, to start a worker."""
    runner, prepared = Runner(), prepare_config(deepcopy(config))
    prepared["auth"]["ssh_private_key"] = str(home / "ray_bootstrap_key.pem")
    kind = next(name for name in prepared["available_node_types"] if name != "head")
    instance = Instance(instance_id="1", cloud_instance_id="192.0.2.11", instance_type=kind)
    provider = Nodes(prepared["provider"])
    RayInstaller(provider, AutoscalingConfig(prepared), runner).install_ray(instance, HEAD_IP)
    return runner


def programs(line: str) -> set[str]:
    """What a line of the shell calls, but for what it falls back to."""
    words = shlex.shlex(re.sub(r"\|\| (\{[^}]*\}|[^;]*)", "", line), posix=True, punctuation_chars=";&")
    words.whitespace_split = True
    before = [";", *words]
    return {word for last, word in pairwise(before) if last in (";", "&&") and word not in (";", "&&")}


def missing(names: set[str]) -> set[str]:
    """Those of the programs that an image of STAGE does not have."""
    scripts = {script.name for script in entry_points(group="console_scripts")}
    ours = {program for program, package in OF_PACKAGES.items() if package in packages(STAGE)}
    return names - BUILT_IN - ESSENTIAL - scripts - ours


def starts(runner: Runner) -> Sequence[str]:
    [line] = [line for line in runner.on_machines() if line.startswith("docker run ")]
    return shlex.split(line)


def test_the_files_are_those_that_the_examples_are_rendered_to() -> None:
    written = {file.name: file.read_text() for file in FILES}
    assert written == contents(), "python -m heliostat.cluster.launcher writes them"


def test_ray_takes_it(config: dict[str, Any]) -> None:
    jsonschema.validate(config, SCHEMA)
    validate_config(prepare_config(deepcopy(config)))


def test_the_image_is_one_that_the_dockerfile_builds(config: dict[str, Any]) -> None:
    registry, _, name = config["docker"]["image"].partition("/")
    assert registry == "registry.example.com"
    assert builds()[name] == STAGE


def test_the_container_is_a_shell_that_stays(head: Runner, worker: Runner, config: dict[str, Any]) -> None:
    for runner in (head, worker):
        *_, image, asked = starts(runner)
        assert image == config["docker"]["image"]
        assert [*command("ENTRYPOINT", STAGE), asked] == ["bash"]


def test_files_land_in_the_home_of_the_image(head: Runner, worker: Runner) -> None:
    for runner in (head, worker):
        words = starts(runner)
        mounted = [words[at + 1].partition(":")[2] for at, word in enumerate(words) if word == "-v"]
        assert mounted == ["/home/heliostat/.ray/auth_token"]
    for file in ("ray_bootstrap_config.yaml", "ray_bootstrap_key.pem"):
        assert any(line.endswith(f" heliostat:/home/heliostat/{file}") for line in head.on_machines())


def test_the_image_has_every_program_that_is_run_in_it(head: Runner, worker: Runner) -> None:
    for runner in (head, worker):
        called = set().union(*(programs(line) for line in runner.in_containers()))
        assert {"ray", "test"} <= called
        assert missing(called) == set()
    assert any("rsync -e 'docker exec -i'" in line for line in head.on_machines())
    assert missing({"rsync"}) == set(), "the other end of it"


def test_the_image_has_what_its_head_starts_workers_with(worker: Runner) -> None:
    called = {words[0] for words in worker.ran}
    assert called == {"ssh", "rsync"}
    assert missing(called) == set()


def test_a_program_that_the_image_has_not_is_found() -> None:
    assert missing(programs("export A=1; apt-get update && ray stop")) == {"apt-get"}


def test_containers_are_given_gpus_only_where_the_launcher_starts_them() -> None:
    assert environment(STAGE)["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert not [name for name in environment("train") if name.startswith("NVIDIA")]


def test_it_grows_and_shrinks_within_limits(config: dict[str, Any]) -> None:
    prepared = prepare_config(deepcopy(config))
    assert 0 < config["idle_timeout_minutes"] <= 30
    for kind in prepared["available_node_types"].values():
        assert 0 <= kind["min_workers"] <= kind["max_workers"] <= config["max_workers"]


def test_every_node_starts_ray_with_the_token_and_the_dashboard_stays_inside(config: dict[str, Any]) -> None:
    assert "~/.ray/auth_token" in config["file_mounts"]
    for role in ("head", "worker"):
        start = config[f"{role}_start_ray_commands"][-1]
        assert start.startswith("export RAY_AUTH_MODE=token ")
        assert "ray start" in start
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_every_node_has_the_environment_of_a_node_on_kubernetes(config: dict[str, Any]) -> None:
    lines = (ROOT / "k8s" / "base" / "environment.env").read_text().splitlines()
    expected = dict(line.split("=", 1) for line in lines if line.startswith("RAY_"))
    assert int(expected.pop(CONNECTIONS_VARIABLE)) == RAY_SERVE_HAPROXY_MAXCONN, "Ray's own, which need not be said"
    for role in ("head", "worker"):
        exported, _, _ = config[f"{role}_start_ray_commands"][-1].removeprefix("export ").partition(";")
        given = dict(word.split("=", 1) for word in exported.split())
        assert given.pop("RAY_AUTH_MODE") == "token"
        if role == "head":
            assert given.pop("RAY_enable_autoscaler_v2") == "0"
            scorer = given.pop("RAY_AUTOSCALER_UTILIZATION_SCORER", None)
            assert scorer == (None if config["provider"]["type"] == "local" else SCORER)
        assert given == {name: value for name, value in expected.items() if name not in environment(STAGE)}

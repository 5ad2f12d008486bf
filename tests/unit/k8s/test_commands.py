"""Commands in the manifests: there are such programs in the images that they run in, and they take those arguments."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import mlflow.cli
import pytest
from packaging.requirements import Requirement

from tests.package_sets import programs_of, serve_packages

EVERYWHERE = {"bash", "sh", "sleep", "python"}
"""Of Debian's essential packages, so in every image that is made of it, and of Python's own image."""
PACKAGES = {"heliostat/serve": serve_packages(), "heliostat/train": [Requirement("heliostat")]}
"""What is installed into our images, beside Heliostat."""
OTHERS = {
    "chrislusf/seaweedfs": {"weed", "sleep"},
    "redis": {"redis-server", "redis-cli", "sh", "grep", "sleep"},
}
"""Programs of images of others: their own, and what their Alpine or Debian has."""


@cache
def programs(image: str) -> set[str]:
    """What can be run in an image, by its name without registry and version."""
    if image in OTHERS:
        return OTHERS[image]
    return EVERYWHERE | {"heliostat"} | programs_of(PACKAGES[image])


def name_of(image: str) -> str:
    return re.sub(r"(@|:).*", "", "/".join(image.split("/")[-2:]))


def called(command: list[str]) -> Iterator[str]:
    """The programs that a command calls; those of each line that it hands to a shell, too."""
    yield command[0]
    if command[0] in ("bash", "sh"):
        assert command[1] == "-c"
        checked = subprocess.run(["bash", "-n", "-c", command[2]], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        line = re.sub(r"<<(\w+)\n.*?\n\1\b", "", command[2].replace("exec ", ""), flags=re.DOTALL)  # input of a program
        yield from (shlex.split(part)[0] for part in re.split(r"[;&|\n]+", line) if part.strip())


def commands(manifests: Any) -> Iterator[tuple[str, list[str]]]:
    """Each command with the image that it runs in."""
    for pod in manifests.pods():
        for container in [*pod.spec.get("initContainers", []), *pod.spec["containers"]]:
            image = name_of(container["image"])
            if "command" in container:
                yield image, [*container["command"], *container.get("args", [])]
            for hook in container.get("lifecycle", {}).values():
                yield image, hook["exec"]["command"]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if "exec" in container.get(probe, {}):
                    yield image, container[probe]["exec"]["command"]
    yield "heliostat/train", shlex.split(manifests.only("RayJob")["spec"]["entrypoint"])


def test_commands_call_programs_that_their_images_have(manifests: Any) -> None:
    found = list(commands(manifests))
    assert {command[0] for _, command in found} >= {"mlflow", "ray", "bash", "sleep", "heliostat"}
    for image, command in found:
        for program in called(command):
            assert program in programs(image), f"{image}: {program}"


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("heliostat/serve", ["mlflow-server"]),
        ("heliostat/serve", ["deepspeed"]),
        ("heliostat/train", ["weed", "server"]),
        ("heliostat/train", ["bash", "-c", "sleep 5; rey stop"]),
    ],
)
def test_a_program_that_an_image_has_not_is_found(image: str, command: list[str]) -> None:
    assert not set(called(command)) <= programs(image)


def test_a_line_that_is_no_shell_is_found() -> None:
    with pytest.raises(AssertionError, match="syntax error"):
        list(called(["bash", "-c", "sleep 5; (ray stop"]))


def test_mlflow_takes_the_arguments_of_its_server(manifests: Any) -> None:
    [command] = [command for _, command in commands(manifests) if command[0] == "mlflow"]
    server = mlflow.cli.cli.commands[command[1]]
    given = server.make_context("mlflow server", command[2:]).params
    assert given["backend_store_uri"].startswith("sqlite:////mlflow/")
    assert given["artifacts_destination"].startswith("/mlflow/")
    [port] = manifests.only("Service", "heliostat-mlflow")["spec"]["ports"]
    assert (given["host"], given["port"]) == ("0.0.0.0", port["port"])
    assert f"heliostat-mlflow:{port['port']}" in given["allowed_hosts"]

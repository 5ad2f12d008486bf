"""`ray up` and `ray down` with a rendered file, on two machines that are namespaces of this one."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from heliostat.cluster.launcher.__main__ import examples
from heliostat.cluster.launcher.render import text
from tests.dockerfile import command, environment, packages
from tests.guides import ROOT
from tests.machines import Image, Laptop, machines, missing

FILE = "cluster/launch/local.yaml"
CONFIG = yaml.safe_load((ROOT / FILE).read_text())
HEAD, WORKER = CONFIG["provider"]["head_ip"], CONFIG["provider"]["worker_ips"][0]
STATUS = f"ray exec {FILE} 'RAY_AUTH_MODE=token ray status'"
SECONDS = 300
"""For a command, and for all machines to be there; a fraction of that where nothing else is going on."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the test's own with the launcher's file, rendered for two machines there."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    launcher = examples()
    assert launcher.local
    one_worker = launcher.model_copy(update={"local": launcher.local.model_copy(update={"workers": (WORKER,)})})
    (tmp_path / FILE).parent.mkdir(parents=True)
    (tmp_path / FILE).write_text(text(one_worker, "local", FILE))
    return tmp_path


def image(stage: str) -> Image:
    """What the Dockerfile says of a stage, with this Heliostat in it."""
    variables = {**environment(stage), "PYTHONPATH": str(ROOT)}
    entry_point, words = command("ENTRYPOINT", stage), command("CMD", stage)
    return Image(entry_point, words, variables, packages(stage), home="/home/heliostat")


def typed(name: str) -> str:
    """The command that the file's own comment says, which asks nothing back."""
    [found] = re.findall(rf"^#   (ray {name}\b.*?)(?: +#.*)?$", (ROOT / FILE).read_text(), re.MULTILINE)
    return f"{found} --yes" if name in ("up", "down") else str(found)


def says(laptop: Laptop, line: str) -> str:
    done = laptop.run(line, timeout=SECONDS)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{laptop.log(HEAD)}"
    return done.stdout


def nodes(status: str) -> int:
    return sum(map(int, re.findall(r"^ (\d+) local\.cluster\.node$", status, re.MULTILINE)))


def runs_container(laptop: Laptop, address: str) -> bool:
    done = laptop.run(f"ssh -tt -i ~/.ssh/id_ed25519 ubuntu@{address} docker exec heliostat true")
    return done.returncode == 0


def test_ray_up_makes_a_cluster_of_all_machines_and_ray_down_ends_it(folder: Path) -> None:
    assert STATUS in (ROOT / "docs" / "clusters.md").read_text()
    with machines(folder, [HEAD, WORKER], {CONFIG["docker"]["image"]: image("cluster")}) as laptop:
        says(laptop, typed("get-auth-token"))
        says(laptop, typed("up"))
        deadline = time.monotonic() + SECONDS
        while nodes(status := says(laptop, STATUS)) < 2:
            assert time.monotonic() < deadline, status + laptop.log(WORKER)
        assert HEAD in says(laptop, f"ray exec {FILE} 'RAY_AUTH_MODE=token RAY_ADDRESS=auto heliostat status'")
        assert all(runs_container(laptop, address) for address in (HEAD, WORKER))
        says(laptop, typed("down"))
        assert not any(runs_container(laptop, address) for address in (HEAD, WORKER))


def test_an_image_with_an_entry_point_of_its_own_is_no_machine_of_a_cluster(folder: Path) -> None:
    wrong = replace(image("cluster"), entrypoint=command("ENTRYPOINT", "train"))
    with machines(folder, [HEAD], {CONFIG["docker"]["image"]: wrong}) as laptop:
        says(laptop, typed("get-auth-token"))
        done = laptop.run(typed("up"), timeout=SECONDS)
        assert done.returncode != 0
        assert not runs_container(laptop, HEAD)

"""What continuous integration and the commit hooks run: the developer's own commands, and nothing that installs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.guides import ROOT

RUN = ROOT / ".ci" / "run"
HOOKS = ROOT / ".pre-commit-config.yaml"
BIN = Path(sys.executable).parent


def calls() -> list[str]:
    lines = [line.strip() for line in RUN.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#") and line.split()[0] not in ("set", "cd")]


def test_continuous_integration_runs_two_commands_of_the_developer() -> None:
    assert calls() == ["make check", "make test"]
    subprocess.run(["bash", "-n", str(RUN)], check=True)


@pytest.mark.parametrize("call", ["make check", "make test", "make demo", "make faults", "make bench"])
def test_a_target_is_there(call: str) -> None:
    done = subprocess.run([*shlex.split(call), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_target_that_is_not_there_is_found() -> None:
    done = subprocess.run(["make", "tset", "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_commit_hooks_are_valid_and_run_what_make_check_runs() -> None:
    subprocess.run([BIN / "pre-commit", "validate-config", HOOKS], check=True, capture_output=True)
    [repository] = yaml.safe_load(HOOKS.read_text())["repos"]
    entries = [shlex.split(hook["entry"]) for hook in repository["hooks"]]
    check = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert check
    programs = {shlex.split(line)[0].removeprefix("$(BIN)/") for line in check.group(1).splitlines()}
    assert {Path(entry[0]).name for entry in entries} == programs
    for entry in entries:
        assert (BIN / Path(entry[0]).name).exists(), entry

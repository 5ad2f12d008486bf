from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.infra.scratch import scratch

PROGRAM = """
import time
from heliostat.infra.scratch import scratch
with scratch("test") as folder:
    (folder / "weights").write_text("large")
    print(folder, flush=True)
    time.sleep(60)
"""
OLD = (1.0, 1.0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds a folder, which has been there for long."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        held = Path(process.stdout.readline().strip())
        os.utime(held, OLD)
        yield process, held
        process.kill()


def test_it_is_gone_afterwards() -> None:
    with scratch("test") as folder:
        (folder / "file").touch()
        assert folder.name.startswith("heliostat-test-")
    assert not folder.exists()


def test_what_a_killed_process_left_is_deleted_by_the_next(other: tuple[subprocess.Popen[str], Path]) -> None:
    process, held = other
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (held / "weights").exists()
    with scratch("test"):
        assert not held.exists()


def test_what_is_in_use_stays(other: tuple[subprocess.Popen[str], Path]) -> None:
    _, held = other
    with scratch("test"):
        assert (held / "weights").exists()


def test_other_kinds_and_young_folders_stay(folder: Path) -> None:
    (folder / "heliostat-other-1").mkdir()
    os.utime(folder / "heliostat-other-1", OLD)
    (folder / "heliostat-test-2").mkdir()
    with scratch("test"):
        assert {one.name for one in folder.iterdir()} >= {"heliostat-other-1", "heliostat-test-2"}

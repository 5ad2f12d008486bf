"""The backup that docs/production.md describes: the database in one piece, then the files, restored elsewhere."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from heliostat.infra.errors import IntegrityError
from heliostat.infra.registry import bundle, registry
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from tests.guides import ROOT, commands

NAME = "sentiment"


def publish(storage: StorageConfig, number: int, source: Path) -> None:
    """A version with one file, published as runs do."""
    source.mkdir()
    (source / "weights").write_text(f"weights of {number}")
    place = f"models/{NAME}/run-{number}"
    manifest = bundle.publish_directory(open_store(storage), place, source)
    registry.register(storage, NAME, f"{storage.url}/{place}", manifest.digest, f"run-{number}", {})


def back_up(database: Path, copy: Path) -> None:
    """Runs the guide's own command on this machine's database."""
    [command] = [one for one in commands(ROOT / "docs/production.md", "kubectl") if "backup(" in one]
    script = shlex.split(command)[-1].replace("/mlflow/mlflow.db", str(database)).replace("/tmp/backup.db", str(copy))
    assert len(re.findall(re.escape(str(database.parent)), script)) == 1
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_registry_that_is_written_to_is_backed_up_and_restored_elsewhere(tmp_path: Path) -> None:
    storage, stop = StorageConfig(url=str(tmp_path / "storage")), Event()
    publish(storage, 1, tmp_path / "1")
    registry.promote(storage, NAME, 1)
    written: list[int] = []

    def go_on() -> None:
        while not stop.is_set():
            written.append(len(written) + 2)
            publish(storage, written[-1], tmp_path / str(written[-1]))

    writer = Thread(target=go_on)
    writer.start()
    try:
        back_up(Path(storage.url) / "mlflow.db", tmp_path / "backup.db")
        shutil.copytree(Path(storage.url) / "models", tmp_path / "elsewhere" / "models")
    finally:
        stop.set()
        writer.join()
    shutil.copy(tmp_path / "backup.db", tmp_path / "elsewhere" / "mlflow.db")
    shutil.rmtree(storage.url)

    restored = StorageConfig(url=str(tmp_path / "elsewhere"))
    found = registry.list_models(restored)
    assert registry.resolve(restored, f"models:/{NAME}@production").version == 1
    for version in found:
        place = version.url.removeprefix(f"{restored.url}/")
        bundle.fetch_directory(
            open_store(restored), place, tmp_path / f"served-{version.version}", digest=version.digest
        )
        assert (tmp_path / f"served-{version.version}" / "weights").read_text() == f"weights of {version.version}"


def test_what_was_not_restored_whole_is_refused_by_name(tmp_path: Path) -> None:
    storage = StorageConfig(url=str(tmp_path / "storage"))
    publish(storage, 1, tmp_path / "1")
    found = registry.resolve(storage, f"models:/{NAME}/1")
    (Path(found.url) / "weights").unlink()

    with pytest.raises(IntegrityError, match="weights"):
        bundle.fetch_directory(
            open_store(storage), found.url.removeprefix(f"{storage.url}/"), tmp_path / "out", digest=found.digest
        )

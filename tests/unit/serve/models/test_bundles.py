from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.errors import IntegrityError, ModelError
from heliostat.infra.registry import bundle
from heliostat.infra.registry.published import PublishedModel, write_description
from heliostat.infra.storage.store import open_store
from heliostat.serve.models.bundles import check_manifest, fetched


def publish(root: Path, task: str = "text-classification") -> tuple[str, str]:
    folder = root / "build"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    values: dict[str, Any] = {"name": "tiny", "base_model": "b", "run_id": "r", "data_fingerprint": "0", "metrics": {}}
    values |= {"heliostat_version": "0", "created": "2026-01-01T00:00:00Z", "max_length": 8, "task": task}
    write_description(folder, PublishedModel.model_validate(values))
    manifest = bundle.publish_directory(open_store(str(root / "storage")), "models/tiny/r", folder)
    return str(root / "storage" / "models" / "tiny" / "r"), manifest.digest


def test_a_published_model_is_fetched_and_gone_afterwards(tmp_path: Path) -> None:
    url, digest = publish(tmp_path)
    check_manifest(url, digest, None)
    with fetched(f"{url}/", digest, None) as found:
        assert found.description.name == "tiny"
        assert (found.folder / "model.safetensors").stat().st_size == 10240
    assert not found.folder.exists()


def test_one_altered_byte_is_refused(tmp_path: Path) -> None:
    url, digest = publish(tmp_path)
    weights = Path(url) / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[5000] ^= 1
    weights.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"model/model\.safetensors"), fetched(url, digest, None):
        pytest.fail("an altered model was handed out")


def test_another_manifest_is_refused_before_any_file_is_read(tmp_path: Path) -> None:
    url, _ = publish(tmp_path)
    with pytest.raises(IntegrityError, match=f"its manifest has SHA-256 [0-9a-f]{{64}}, and {'0' * 64} is expected"):
        check_manifest(url, "0" * 64, None)


def test_a_folder_that_was_not_published_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no published model here.*serve takes published models only") as caught:
        check_manifest(str(tmp_path / "model"), "0" * 64, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["tabular-classification", "image-generation"])
def test_a_model_whose_inputs_do_not_fit_its_task_is_refused(tmp_path: Path, task: str) -> None:
    url, digest = publish(tmp_path, task=task)
    with pytest.raises(ModelError, match=f"a model for {task} with the inputs None cannot"), fetched(url, digest, None):
        pytest.fail("handed out")


def test_a_task_that_cannot_be_served_is_refused(tmp_path: Path) -> None:
    url, digest = publish(tmp_path, task="image-captioning")
    with pytest.raises(ModelError, match="task 'image-captioning' cannot be served"), fetched(url, digest, None):
        pytest.fail("handed out")

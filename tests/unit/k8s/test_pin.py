"""Promotion into a rendered folder: what it writes is what rendering again would, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from heliostat.cli import app
from heliostat.cluster.kubernetes import folder, pin
from heliostat.cluster.kubernetes.build import build, built
from heliostat.cluster.kubernetes.helm import chart
from heliostat.cluster.kubernetes.kustomization import files
from heliostat.cluster.kubernetes.overlays import package
from heliostat.cluster.kubernetes.plain import plain
from heliostat.infra.errors import ConfigError
from heliostat.infra.registry.registry import ModelVersion
from heliostat.operations.render import FORMS, workload
from tests.unit.k8s.conftest import IMAGES, Manifests, args_of, spec_of

each_form = pytest.mark.parametrize("form", FORMS)
THIRD = pin.Pin("s3://bucket/models/models/mood/mood-7", "ab" * 32, "3")
FOURTH = pin.Pin("s3://bucket/models/models/mood/mood-8", "1e" * 32, "4")
HOLDER = {"kustomize": "kustomization.yaml", "plain": "manifests.yaml", "helm": "values.yaml"}


def rendered(form: str, version: pin.Pin = THIRD) -> dict[str, str]:
    spec = spec_of("production")
    args = args_of(spec).model_copy(update={"url": version.url, "digest": version.digest, "version": version.version})
    found = files(workload(spec, "production", "mood-7", IMAGES, args), "production", package())
    if form == "kustomize":
        return found
    return {"manifests.yaml": plain(built(found))} if form == "plain" else chart(built(found), "mood", "0.1.0")


def promoted(monkeypatch: pytest.MonkeyPatch, moved: list[tuple[Any, ...]]) -> None:
    """A registry that has the fourth version, and notes what is asked of it."""

    def promote(_storage: object, name: str, version: int, alias: str) -> ModelVersion:
        moved.append((name, version, alias))
        now = datetime.now(timezone.utc)
        return ModelVersion(name, version, FOURTH.url, FOURTH.digest, "mood-8", now, (alias,), {})

    monkeypatch.setattr("heliostat.infra.registry.registry.promote", promote)


@each_form
def test_the_folder_becomes_what_rendering_the_version_gives(form: str, tmp_path: Path) -> None:
    folder.write(tmp_path, rendered(form))
    found = pin.holder(tmp_path, "mood")
    assert (found.name, found.pin) == (HOLDER[form], THIRD)
    assert pin.write(found, FOURTH)
    wanted = rendered(form, FOURTH)
    assert folder.changes(tmp_path, wanted) == folder.Changes({}, (), ())
    assert pin.holder(tmp_path, "mood").pin == FOURTH


@each_form
def test_a_second_time_changes_nothing(form: str, tmp_path: Path) -> None:
    folder.write(tmp_path, rendered(form))
    pin.write(pin.holder(tmp_path, "mood"), FOURTH)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.rglob("*") if file.is_file()}
    assert not pin.write(pin.holder(tmp_path, "mood"), FOURTH)
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in before} == before


def test_the_endpoint_that_is_built_serves_the_version(tmp_path: Path) -> None:
    folder.write(tmp_path, rendered("kustomize"))
    pin.write(pin.holder(tmp_path, "mood"), FOURTH)
    config = yaml.safe_load(Manifests("promoted", build(tmp_path)).only("RayService")["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    assert {key: application["args"][key] for key in ("url", "digest", "version")} == {
        "url": FOURTH.url, "digest": FOURTH.digest, "version": "4",
    }  # fmt: skip


@each_form
def test_a_folder_of_another_model_is_refused(form: str, tmp_path: Path) -> None:
    folder.write(tmp_path, rendered(form))
    with pytest.raises(ConfigError, match=r"--into: .* given, which serves mood; the folder of joy is allowed"):
        pin.holder(tmp_path, "joy")


def test_a_folder_without_an_endpoint_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    wanted = workload(spec_of("production"), "production", None, IMAGES, None)
    folder.write(tmp_path / "out", files(wanted, "production", package()))
    for place in (tmp_path / "out", tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"which serves nothing; a folder that `heliostat render` wrote"):
            pin.holder(place, "mood")


@each_form
def test_an_edited_file_is_refused_and_other_files_may_be_edited(form: str, tmp_path: Path) -> None:
    wanted = rendered(form)
    folder.write(tmp_path, wanted)
    for path in wanted:
        if path != HOLDER[form]:
            (tmp_path / path).write_text(wanted[path] + "# ours\n")
    pin.write(pin.holder(tmp_path, "mood"), FOURTH)
    file = tmp_path / HOLDER[form]
    file.write_text(file.read_text() + "# ours\n")
    before = file.read_text()
    with pytest.raises(ConfigError, match=rf"{re.escape(str(file))}: changed since it was rendered; .* --diff"):
        pin.holder(tmp_path, "mood")
    assert file.read_text() == before


def test_files_that_no_rendering_wrote_are_refused(tmp_path: Path) -> None:
    for path, text in rendered("plain").items():
        (tmp_path / path).write_text(text)
    with pytest.raises(ConfigError, match=r"manifests\.yaml: not rendered by `heliostat render`"):
        pin.holder(tmp_path, "mood")


def test_the_command_moves_the_alias_and_writes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[Any, ...]] = []
    promoted(monkeypatch, moved)
    folder.write(tmp_path, rendered("kustomize"))
    words = ["models", "promote", "mood", "4", "--into", str(tmp_path)]
    first, second = (CliRunner().invoke(app, words).output for _ in range(2))
    assert "mood@production is version 4" in first
    assert f"{tmp_path / 'kustomization.yaml'}: version 4, was 3; nothing is committed or applied" in first
    assert f"{tmp_path / 'kustomization.yaml'}: version 4, as it was" in second
    assert moved == [("mood", 4, "production")] * 2
    assert pin.holder(tmp_path, "mood").pin == replace(FOURTH, version="4")


def test_no_alias_is_moved_for_a_folder_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[Any, ...]] = []
    promoted(monkeypatch, moved)
    folder.write(tmp_path, rendered("plain"))
    with pytest.raises(ConfigError, match="the folder of joy is allowed"):
        CliRunner().invoke(app, ["models", "promote", "joy", "4", "--into", str(tmp_path)], catch_exceptions=False)
    assert moved == []
    without = CliRunner().invoke(app, ["models", "promote", "joy", "4"])
    assert "joy@production is version 4; heliostat serve puts it to work" in without.output

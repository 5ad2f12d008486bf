"""Which run a command goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.errors import ConfigError
from heliostat.pipeline.runs import find_run, write_run
from heliostat.spec import Spec, load_spec


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    monkeypatch.setenv("HELIOSTAT_STORAGE", str(tmp_path / "storage"))
    return load_spec("sentiment", [])


def auto(spec: Spec) -> Spec:
    return spec.model_copy(update={"train": spec.train.model_copy(update={"resume": "auto"})})


def wrote(spec: Spec, name: str, status: str, **more: Any) -> None:
    write_run(spec, name, {"status": status, **more})


def test_without_a_name_a_run_is_new(spec: Spec) -> None:
    wrote(spec, "old", "running")
    assert find_run(spec, None, resume=False) is None


def test_a_name_is_taken_whether_or_not_there_is_such_a_run(spec: Spec) -> None:
    assert find_run(spec, "nightly", resume=False) == "nightly"
    assert find_run(auto(spec), "nightly", resume=False) == "nightly"


def test_resume_takes_the_newest_and_says_where_there_is_none(spec: Spec) -> None:
    with pytest.raises(ConfigError, match="--resume: no run yet of sentiment"):
        find_run(spec, None, resume=True)
    with pytest.raises(ConfigError, match="--resume: no run 'other' of sentiment"):
        find_run(spec, "other", resume=True)
    wrote(spec, "old", "running")
    wrote(spec, "new", "running")
    assert find_run(spec, None, resume=True) == "new"
    assert find_run(spec, "old", resume=True) == "old"
    wrote(spec, "new", "finished", version=3)
    with pytest.raises(ConfigError, match=r"run new has finished \(version 3\)"):
        find_run(spec, None, resume=True)


def test_auto_goes_on_with_the_newest_that_has_not_finished_or_begins(spec: Spec) -> None:
    assert find_run(auto(spec), None, resume=False) is None
    wrote(spec, "new", "running")
    assert find_run(auto(spec), None, resume=False) == "new"
    wrote(spec, "new", "finished", version=1)
    assert find_run(auto(spec), None, resume=False) is None


def test_a_name_that_is_no_folder_is_refused(spec: Spec) -> None:
    with pytest.raises(ConfigError, match=r"--run: '\.\./x' given"):
        find_run(spec, "../x", resume=False)

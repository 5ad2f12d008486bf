"""All trials of a search compute in one precision, which it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.infra.config.strict import dump_yaml
from heliostat.pipeline.search_precision import settle_precision
from heliostat.pipeline.searches import write_search
from heliostat.spec import Spec, load_spec
from heliostat.train import launch
from heliostat.view.terminal import View


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the cluster answers to those who ask whether its workers compute bfloat16."""
    answers: list[bool] = []
    monkeypatch.setattr(launch, "resolve_use_gpu", lambda _: False)
    monkeypatch.setattr(launch, "one_worker_has_bf16", lambda *_: answers.pop())
    return answers


def spec_of(folder: Path, precision: str, recipe: str = "sentiment") -> Spec:
    return load_spec(recipe, [f"storage.url={folder}", f"train.precision={precision}", "train.workers=2"])


@pytest.mark.parametrize(
    ("precision", "has_bf16", "found", "said"),
    [
        ("auto", True, "bf16", ""),
        ("auto", False, "fp32", "train.precision: fp32, since 2 of 2 workers cannot compute bf16 in hardware\n"),
        ("bf16", True, "bf16", ""),
        ("bf16", False, "bf16", "train.precision: bf16, which 2 of 2 workers emulate: slower than fp32\n"),
    ],
)
def test_a_new_search_asks_the_cluster(
    precision: str, has_bf16: bool, found: str, said: str, asked: list[bool], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked.append(has_bf16)
    assert settle_precision(spec_of(tmp_path, precision), "s", View()).train.precision == found
    assert capsys.readouterr().out == said


def test_float32_needs_no_asking(asked: list[bool], tmp_path: Path) -> None:
    assert settle_precision(spec_of(tmp_path, "fp32"), "s", View()).train.precision == "fp32"


@pytest.mark.parametrize(("precision", "found"), [("auto", "fp32"), ("bf16", "bf16")])
def test_a_search_that_goes_on_keeps_its_precision_and_another_one_is_left_to_its_contract(
    precision: str, found: str, asked: list[bool], tmp_path: Path
) -> None:
    begun = spec_of(tmp_path, "fp32")
    write_search(begun, "s", {"spec": dump_yaml(begun), "status": "running"})
    assert settle_precision(spec_of(tmp_path, precision), "s", View()).train.precision == found


def test_a_gan_is_searched_in_fp32(asked: list[bool], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked.append(False)
    assert settle_precision(spec_of(tmp_path, "auto", "gan"), "s", View()).train.precision == "fp32"
    assert capsys.readouterr().out == ""

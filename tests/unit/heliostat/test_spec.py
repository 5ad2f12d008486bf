"""Where the paths of a spec count from."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.infra.errors import ConfigError
from heliostat.spec import load_spec

SPEC = """
name: shop
task: text-classification
model: {{source: {model}}}
data: {{source: {data}}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a folder for specs in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "specs").mkdir()
    return tmp_path


def test_a_source_that_begins_with_a_dot_counts_from_the_folder_of_the_spec(folder: Path) -> None:
    (folder / "specs" / "shop.yaml").write_text(SPEC.format(model="../base", data="./rows.csv"))
    for path in ("specs/shop.yaml", folder / "specs" / "shop.yaml"):
        spec = load_spec(path)
        assert spec.data.source == str(folder / "specs" / "rows.csv")
        assert Path(spec.model.source or "").resolve() == folder / "base"


@pytest.mark.parametrize("source", ["rows.csv", "/rows.csv", "pkg:shop/rows.csv", ".rows.csv", "s3://bucket/rows.csv"])
def test_a_source_that_is_no_path_here_stays_as_it_is(folder: Path, source: str) -> None:
    (folder / "specs" / "shop.yaml").write_text(SPEC.format(model=source, data=source))
    spec = load_spec("specs/shop.yaml")
    assert (spec.data.source, spec.model.source) == (source, source)


def test_on_the_command_line_a_source_counts_from_the_working_directory(folder: Path) -> None:
    (folder / "specs" / "shop.yaml").write_text(SPEC.format(model="base", data="./rows.csv"))
    assert load_spec("specs/shop.yaml", ["data.source=./other.csv"]).data.source == "./other.csv"


def test_what_lies_in_the_working_directory_is_found_from_others_too(folder: Path) -> None:
    (folder / "base").mkdir()
    (folder / "rows.csv").touch()
    (folder / "shop.yaml").write_text(SPEC.format(model="base", data="elsewhere.csv"))
    spec = load_spec("shop.yaml", ["data.source=rows.csv"])
    assert (spec.data.source, spec.model.source) == (str(folder / "rows.csv"), str(folder / "base"))


def test_a_model_that_has_no_source_gets_none(folder: Path) -> None:
    (folder / "None").touch()
    assert load_spec("tabular").model.source is None


@pytest.mark.parametrize(
    ("recipe", "override", "said"),
    [
        ("gan", "data.augment={flip: true}", "data.augment: given, and task is image-generation; it is for image-"),
        ("tabular", "data.augment={crop: 2}", "data.augment: given, and task is tabular-classification"),
        ("tabular", "data.images={height: 4}", "data.images: given, .* for image-classification and image-generation"),
        ("sentiment", "data.columns.features=[a, b]", "data.columns.features: given, .* for tabular-classification"),
        ("digits", "data.columns.text=body", "data.columns.text: given, .* for text-classification and causal-lm"),
        ("sentiment", "data.label_names={'1': a, '1.0': b}", "data.label_names: '1' given twice, in two spellings"),
        ("chat", "data.overflow=split", "data.overflow: split given; it is for causal-lm on plain texts, data.columns"),
        ("sentiment", "data.stride=9", "data.stride: given, and task is text-classification; it is for causal-lm"),
        ("language-model", "data.stride=256", "data.stride: 256 given; less than data.max_length, 256, is allowed"),
        ("chat", "data.label_names={a: b}", "data.label_names: given, and task is causal-lm"),
        ("digits", "data.missing=fill", "data.missing: fill given, and task is image-classification; fail and drop"),
        ("language-model", "data.columns={prompt: a, answer: b}", "data.columns: a chat given; model.decoder learns"),
        ("chat", "data.columns={prompt: a}", "data.columns: prompt and answer go together"),
        (
            "chat",
            "data.columns={context: a}",
            "data.columns: prompt and answer go together, and context goes with both",
        ),
        ("chat", "data.columns.messages=a", "data.columns: messages and prompt given"),
        ("gan", "train.precision=bf16", "train.precision: bf16 given; model.gan is trained in fp32, auto and fp32"),
    ],
)
def test_a_key_that_would_do_nothing_is_refused(recipe: str, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_spec(recipe, [override])


def test_auto_is_allowed_where_bf16_is_not() -> None:
    assert load_spec("gan", ["train.precision=auto"]).train.precision == "auto"


def test_what_is_no_section_is_left_to_the_check(folder: Path) -> None:
    (folder / "specs" / "shop.yaml").write_text("name: shop\ntask: causal-lm\nmodel: {source: base}\ndata: ./rows.csv")
    with pytest.raises(ConfigError, match=r"data: .*a mapping of keys is needed"):
        load_spec("specs/shop.yaml")


def test_a_folder_that_is_called_like_a_recipe_does_not_hide_it(folder: Path) -> None:
    (folder / "images").mkdir()
    assert load_spec("images").task == "image-classification"

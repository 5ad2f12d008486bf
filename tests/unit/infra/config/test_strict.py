from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from heliostat.infra.config.strict import StrictModel, apply_overrides, build, dump_yaml, parse_yaml, read_yaml
from heliostat.infra.errors import ConfigError


class Part(StrictModel):
    size: Annotated[int, Field(gt=0)] | None = None
    name: str = "part"


class Pair(StrictModel):
    low: float = 0
    high: float = 1

    @model_validator(mode="after")
    def _ordered(self) -> Pair:
        if self.low > self.high:
            raise ValueError(f"pair.low: {self.low} is above pair.high ({self.high})")
        return self


class Whole(StrictModel):
    rate: float
    count: int = 1
    flag: bool | Literal["auto"] = "auto"
    part: Part = Part()
    parts: dict[str, Part] = Field(default_factory=dict)
    row: list[Part] = Field(default_factory=list)
    pair: Pair = Pair()
    free: dict[str, Any] = Field(default_factory=dict)


def message(values: dict[str, Any], source: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        build(Whole, values, source=source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        ("-.5e+3", -500.0),
        ("+2.e1", 20.0),
        ("e5", "e5"),
        ("1e5x", "1e5x"),
        ("12", 12),
        ("0.5", 0.5),
    ],
)
def test_numbers_with_an_exponent_are_numbers(text: str, value: object) -> None:
    assert parse_yaml(text) == value
    assert type(parse_yaml(text)) is type(value)


def test_a_key_given_twice_fails_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"^size: given twice, at spec\.yaml line 4$"):
        parse_yaml("part:\n  size: 1\n  name: a\n  size: 2\n", "spec.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: &x [*x]", "spec.yaml line 2: refers to itself"),
        ("b: &x {c: {d: *x}}", "spec.yaml line 1: refers to itself"),
        ("a: " + "[" * 5000 + "]" * 5000, "spec.yaml: nested too deeply; a spec has a few levels"),
        ("a: " + "{a: " * 5000 + "1" + "}" * 5000, "spec.yaml: nested too deeply; a spec has a few levels"),
        (
            "a0: &a0 [1, 2]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
            "spec.yaml: stands for more than 1,048,576 values; use fewer aliases (*name)",
        ),
    ],
)
def test_yaml_without_an_end_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "spec.yaml")
    assert str(caught.value) == reason


def test_a_file_that_is_too_long_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("a: " + "x" * (1 << 20))
    with pytest.raises(ConfigError, match=r"spec\.yaml: longer than 1,048,576 characters, so it is not a spec$"):
        read_yaml(tmp_path / "spec.yaml")


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_are_finite(value: float) -> None:
    assert message({"rate": value}) == f"rate: {value} given; must be a finite number"
    assert message({"rate": 1, "pair": {"high": value}}) == f"pair.high: {value} given; must be a finite number"


def test_merged_keys_may_be_overridden() -> None:
    text = "deep: {er: &b {<<: &a {x: 1}, x: 2}}\nother: {<<: *b}\n"
    assert parse_yaml(text) == {"deep": {"er": {"x": 2}}, "other": {"x": 2}}


@pytest.mark.parametrize(
    "text", ["a: [1, 2", "a: 2024-13-45", "a: !!python/object:os.system x", "? [1]\n: 2", "a: 1\n---\nb: 2"]
)
def test_bad_yaml_is_one_line_with_the_file(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^spec\.yaml.*: not valid YAML: ") as caught:
        parse_yaml(text, "spec.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot be read: No such file"), (b"\xff\xfe\xfa", "cannot be read"), (b"", "holds nothing")],
)
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    file = tmp_path / "spec.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{file}: {complaint}"):
        read_yaml(file)


def test_overrides_set_nested_keys_and_leave_the_original() -> None:
    values = {"rate": 1, "part": {"size": 1}, "pair": None}
    given = ["part.name=x", "pair.high=3e-4", "free.a.b=[1, {c: 2}]", "rate=2"]
    assert apply_overrides(values, given) == {
        "rate": 2,
        "part": {"size": 1, "name": "x"},
        "pair": {"high": 3e-4},
        "free": {"a": {"b": [1, {"c": 2}]}},
    }
    assert values == {"rate": 1, "part": {"size": 1}, "pair": None}


def test_an_override_keeps_what_follows_the_first_equals_sign() -> None:
    assert apply_overrides({}, ["where=source == 'imdb'"]) == {"where": "source == 'imdb'"}


@pytest.mark.parametrize("override", ["rate", "=3", "part..size=1", ".rate=1", "rate.=1"])
def test_what_is_no_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"not an override; write key\.path=value"):
        apply_overrides({}, [override])


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"part\.size\.x: 'size' is 3, which has no keys below it"):
        apply_overrides({"part": {"size": 3}}, ["part.size.x=1"])


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"rat": 1, "rate": 1}, "rat: unknown key; did you mean 'rate'? (allowed: rate, count, flag"),
        (
            {"rate": 1, "part": {"sise": 1}},
            "part.sise: unknown key; did you mean 'size'? (allowed: size, name)",
        ),
        ({"rate": 1, "parts": {"a": {"xyz": 1}}}, "parts.a.xyz: unknown key (allowed: size, name)"),
        ({"rate": 1, "row": [{}, {"nme": 1}]}, "row.1.nme: unknown key; did you mean 'name'?"),
        ({}, "rate: missing, a value is needed"),
        ({"rate": "fast"}, "rate: 'fast' given; must be a valid number"),
        ({"rate": 1, "count": True}, "count: True given; true and false are not allowed here"),
        ({"rate": 1, "part": {"size": 0}}, "part.size: 0 given; must be greater than 0"),
        ({"rate": 1, "part": None}, "part: None given; a mapping of keys is needed"),
        ({"rate": 1, "parts": 3}, "parts: 3 given; a mapping of keys is needed"),
        ({"rate": 1, "pair": {"low": 2}}, "pair.low: 2.0 is above pair.high (1)"),
        ({"rate": "x" * 200}, "rate: 'xxxxx"),
    ],
)
def test_a_wrong_value_gives_its_key_itself_and_what_is_allowed(values: dict[str, Any], line: str) -> None:
    assert message(values).startswith(line)
    assert len(message(values)) < 200


def test_a_union_is_one_line_without_pydantics_names() -> None:
    line = message({"rate": 1, "flag": "maybe"})
    assert line.startswith("flag: 'maybe' given; must be a valid boolean")
    assert line.endswith("or must be 'auto'")


def test_further_wrong_keys_are_counted_and_the_file_is_named() -> None:
    line = message({"rate": "a", "count": "b", "part": {"size": -1}}, source="spec.yaml")
    assert line.startswith("spec.yaml: rate: 'a' given")
    assert line.endswith("(and 2 more)")


def test_a_dumped_section_reads_back_the_same() -> None:
    whole = build(Whole, {"rate": 5e-5, "flag": True, "parts": {"é": {"size": 2}}, "free": {"a": [1, None]}})
    assert build(Whole, parse_yaml(dump_yaml(whole))) == whole

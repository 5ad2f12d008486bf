"""One file of YAML: what `kubectl apply -k` would apply, in an order in which it can be, the same bytes each time."""

from __future__ import annotations

import difflib
import random
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from heliostat.cli import app
from heliostat.cluster.kubernetes.build import LOADER
from heliostat.cluster.kubernetes.plain import dump, plain
from tests.unit.k8s.conftest import Manifests
from tests.unit.k8s.golden import FILE, RENEW, golden


@cache
def text_of(manifests: Manifests) -> str:
    """All objects of a target as one text."""
    return plain(manifests.objects)


@cache
def documents_of(manifests: Manifests) -> list[dict[str, Any]]:
    """What is read of that text."""
    return list(yaml.load_all(text_of(manifests), Loader=LOADER))


def test_the_text_has_all_objects_and_no_other(manifests: Manifests) -> None:
    documents = documents_of(manifests)
    assert len(documents) == len(manifests.objects)
    assert all(one in documents for one in manifests.objects)


def test_the_same_objects_give_the_same_bytes_in_whatever_order_they_come(manifests: Manifests) -> None:
    mixed = random.Random(7).sample(manifests.objects, len(manifests.objects))
    assert mixed != manifests.objects
    assert plain(mixed) == text_of(manifests)


def test_what_others_stand_on_comes_first(manifests: Manifests) -> None:
    kinds = [one["kind"] for one in documents_of(manifests)]
    assert kinds[: kinds.index("ServiceAccount")] == ["NetworkPolicy"] * kinds.count("NetworkPolicy")
    assert kinds[-3:] == ["RayCluster", "RayJob", "RayService"]
    last_read = max(
        index for index, kind in enumerate(kinds) if kind in ("ConfigMap", "PersistentVolumeClaim", "Service")
    )
    assert last_read < kinds.index("Deployment") < len(kinds) - 3


def test_texts_of_several_lines_are_blocks() -> None:
    assert dump({"a": "one: 1\ntwo: 2\n", "b": "2", "c": 2}) == "a: |\n  one: 1\n  two: 2\nb: '2'\nc: 2\n"


def test_a_change_of_the_spec_or_the_manifests_is_seen_in_the_golden_file() -> None:
    found = golden()
    known = FILE.read_text()
    lines = difflib.unified_diff(known.splitlines(), found.splitlines(), "committed", "rendered", lineterm="")
    changed = "\n".join(lines)
    assert found == known, f"{RENEW} renews it, if this is meant:\n{changed}"


def test_the_command_writes_one_file_and_says_how_it_is_applied(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["render", "k8s", "sentiment", "storage.url=s3://bucket", "--no-serve", "--out", str(out)]
    done = CliRunner().invoke(app, [*words, "--plain"])
    assert done.exit_code == 0, done.output
    assert [file.name for file in out.iterdir() if file.suffix == ".yaml"] == ["manifests.yaml"]
    said = done.output.replace("\n", " ")
    for part in ("platform", "train"):
        file = out / "manifests.yaml"
        assert f"kubectl apply --server-side -f {file} -l app.kubernetes.io/component={part}" in said
    first = (out / "manifests.yaml").read_bytes()
    assert CliRunner().invoke(app, [*words, "--plain"]).exit_code == 0
    assert (out / "manifests.yaml").read_bytes() == first
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (out / "kustomization.yaml").is_file()
    assert not (out / "manifests.yaml").exists(), "a folder has one form"


def test_texts_that_other_readers_take_for_numbers_are_quoted() -> None:
    texts = ["1e3", "12e34", "y", "N", "0x1f", "6Gi", "-1", ".5", "on", "null"]
    assert dump(texts) == "".join(f"- '{text}'\n" for text in texts)
    assert dump(["yes and no", "a1", "nano"]) == "- yes and no\n- a1\n- nano\n"


def test_values_that_stand_twice_are_written_twice() -> None:
    value = {"a": "b"}
    assert dump({"first": value, "second": value}) == "first:\n  a: b\nsecond:\n  a: b\n"

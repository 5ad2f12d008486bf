"""A job's environment and spec, its spans as parts of the submit, and how often it is submitted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from heliostat.cluster import jobs
from heliostat.infra.errors import ConfigError, JobError
from heliostat.infra.tracing import semconv
from heliostat.infra.tracing import tracer as tracing
from heliostat.operations.submit import Submission, submit_command
from heliostat.spec import load_spec, sources_here
from tests.spans import Kept, id_of, trace_of


def test_a_job_is_told_that_its_spans_are_parts_of_the_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    passed: dict[str, str] = {}

    @contextmanager
    def environment(_: Mapping[str, Path], variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
        passed.update(variables)
        yield {}

    monkeypatch.setattr(tracing, "tracer", lambda: kept.tracer)
    monkeypatch.setattr(jobs, "environment", environment)
    monkeypatch.setattr(jobs, "submit", lambda *_, **__: "raysubmit_1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")
    submit_command(Submission("train", load_spec("digits"), "digits"), "http://head:8265", wait=False)
    span = kept.one("submit")
    assert passed["TRACEPARENT"].split("-")[1:3] == [trace_of(span), f"{id_of(span):016x}"]
    assert dict(span.attributes or {}) == {semconv.COMMAND: "train", semconv.MODEL: "digits"}
    assert passed["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert "OTEL_EXPORTER_OTLP_HEADERS" not in passed
    assert passed["HELIOSTAT_PROGRESS"] == "json"
    assert passed["HELIOSTAT_NEXT"] == "heliostat submit serve digits --address http://head:8265"
    assert "COLUMNS" not in passed, "whoever looks at it has no terminal here"


def test_files_beside_the_spec_travel_and_those_of_the_cluster_do_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent: dict[str, str] = {}

    def submitted(_: str, entrypoint: str, runtime_env: Mapping[str, str], **__: object) -> str:
        folder = Path(runtime_env["working_dir"])
        sent.update({str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.*") if file.is_file()})
        assert entrypoint.endswith(" -m heliostat prepare spec.yaml")
        return "raysubmit_1"

    monkeypatch.setattr(jobs, "submit", submitted)
    (tmp_path / "rows.csv").write_text("a,churned\n1,yes\n")
    for source, travels in (("./rows.csv", True), (str(tmp_path / "rows.csv"), False)):
        sent.clear()
        file = tmp_path / "shop.yaml"
        file.write_text(
            f"name: shop\ntask: tabular-classification\nmodel: {{mlp: {{}}}}\n"
            f"data: {{source: {source}, columns: {{label: churned}}}}\n"
        )
        job = Submission("prepare", load_spec(file), "shop.yaml", sources_here(file))
        submit_command(job, "http://head:8265", wait=False)
        assert sent.get("data/rows.csv") == ("a,churned\n1,yes\n" if travels else None)
        expected = "./data/rows.csv" if travels else str(tmp_path / "rows.csv")
        assert yaml.safe_load(sent["spec.yaml"])["data"]["source"] == expected


def test_a_file_that_should_travel_and_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(
        "name: shop\ntask: tabular-classification\nmodel: {mlp: {}}\ndata: {source: ./no.csv, columns: {label: a}}\n"
    )
    with pytest.raises(ConfigError, match=r"data\.source: '\./no\.csv' given; no such file or folder here to send"):
        sources_here(file)


class Attempts:
    """A cluster on which a job ends as told, the next one as told next."""

    def __init__(self, *ends: tuple[str, int | None]) -> None:
        self.ends = list(ends)
        self.submitted: list[tuple[str | None, str]] = []

    def submit(self, _: str, entrypoint: str, *__: object, job: str | None, **___: object) -> str:
        self.submitted.append((job, entrypoint.partition(" -m heliostat ")[2]))
        return job or f"raysubmit_{len(self.submitted)}"

    def find(self, _: str, job: str) -> jobs.Job:
        state, code = self.ends[len(self.submitted) - 1]
        return jobs.Job(job, state, "", "", {}, code, None, None)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Attempts]:
    def made(*ends: tuple[str, int | None]) -> Attempts:
        cluster = Attempts(*ends)
        monkeypatch.setattr(jobs, "submit", cluster.submit)
        monkeypatch.setattr(jobs, "find", cluster.find)
        monkeypatch.setattr(jobs, "follow", lambda *_: iter(["step 1\n"]))
        return cluster

    return made


def test_a_job_that_fails_is_submitted_again_as_the_same_run(attempts: Callable[..., Attempts]) -> None:
    cluster = attempts(("FAILED", None), ("FAILED", 1), ("SUCCEEDED", 0))
    submit_command(Submission("train", load_spec("digits"), "digits", {}, "nightly", 2), "http://head:8265", wait=True)
    names, lines = zip(*cluster.submitted, strict=True)
    assert names == ("nightly", "nightly-2", "nightly-3")
    assert len(set(lines)) == 1
    assert re.fullmatch(r"train spec\.yaml --run \d{8}-\d{6}-[0-9a-f]{4}", lines[0])


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([("FAILED", 1)] * 3, 3),
        ([("FAILED", 2)], 1),
        ([("STOPPED", None)], 1),
    ],
    ids=["too often", "a mistake in the spec", "stopped by somebody"],
)
def test_a_job_is_not_submitted_again_where_that_does_not_help(
    ends: list[tuple[str, int | None]], expected: int, attempts: Callable[..., Attempts]
) -> None:
    cluster = attempts(*ends)
    with pytest.raises(JobError):
        submit_command(Submission("prepare", load_spec("digits"), "digits", {}, None, 2), "http://head:8265", wait=True)
    assert [line for _, line in cluster.submitted] == ["prepare spec.yaml"] * expected


def test_a_search_that_is_submitted_again_goes_on(attempts: Callable[..., Attempts]) -> None:
    cluster = attempts(("FAILED", None), ("SUCCEEDED", 0))
    submit_command(Submission("tune", load_spec("digits"), "digits", {}, None, 2), "http://head:8265", wait=True)
    first, second = [line for _, line in cluster.submitted]
    assert first == second
    assert re.fullmatch(r"tune spec\.yaml tune\.resume=auto --search search-\d{8}-\d{6}-[0-9a-f]{4}", first)


def test_serving_as_a_job_ends_when_the_endpoint_answers(attempts: Callable[..., Attempts]) -> None:
    cluster = attempts(("SUCCEEDED", 0))
    submit_command(Submission("serve", load_spec("digits"), "digits"), "http://head:8265", wait=True)
    assert cluster.submitted == [(None, "serve spec.yaml --detach")]

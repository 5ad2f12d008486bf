"""All workers of a run compute in one precision, which it keeps."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from heliostat.infra.storage.store import open_store
from heliostat.spec import load_spec
from heliostat.train.checkpoints.checkpoint import Checkpoints
from heliostat.train.job import Job
from heliostat.train.parallel.distributed import World
from heliostat.train.precision import explained, is_bf16, settled
from heliostat.train.worker import contract, describe, settle_precision
from tests.unit.train.checkpoints.test_checkpoint import FakeEngine

PRECISIONS = ("bf16", "fp32")
HAS = "heliostat.train.worker.has_bf16"


class Trio(World):
    """Rank 0 of three, of which so many others lack bfloat16."""

    def __init__(self, lacking: int) -> None:
        super().__init__(0, 3, "cpu")
        object.__setattr__(self, "lacking", lacking)

    def sum(self, *values: float) -> list[float]:
        return [value + vars(self)["lacking"] for value in values]

    def from_first(self, make: Callable[[], Any]) -> Any:
        return make()


class Events:
    """A channel that keeps what is posted."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self.post = SimpleNamespace(remote=self.all.append)


@pytest.fixture
def job(tmp_path: Any) -> Job:
    return job_of("sentiment", f"storage.url={tmp_path}", "train.precision=auto")


def job_of(recipe: str, *overrides: str) -> Job:
    spec = load_spec(recipe, overrides)
    return Job(
        name=spec.name, task=spec.task, run_id="r", model=spec.model, data=spec.data, data_fingerprint="f",
        train=spec.train, storage=spec.storage, spec="",
    )  # fmt: skip


def begin(job: Job, lacking: int = 0) -> tuple[str, str]:
    """The precision of a run, and the line on it, if so many of three workers lack bfloat16."""
    events = Events()
    found = settle_precision(job, Trio(lacking), events).train.precision
    (event,) = events.all
    assert (event["kind"], event["precision"]) == ("precision", found)
    return found, event["message"]


@pytest.mark.parametrize(
    ("own", "lacking", "expected"), [(True, 0, "bf16"), (True, 1, "fp32"), (False, 0, "fp32"), (False, 2, "fp32")]
)
def test_the_least_able_worker_decides(
    own: bool, lacking: int, expected: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HAS, lambda device: own)
    found, line = begin(job, lacking)
    count = lacking + (not own)
    assert found == expected
    assert line == (
        f"train.precision: fp32, since {count} of 3 workers cannot compute bf16 in hardware" if count else ""
    )


def test_what_the_spec_says_is_done_and_emulation_is_told_of(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HAS, lambda device: False)
    asked = {one: job.model_copy(update={"train": settled(job.train, job.model, one == "bf16")}) for one in PRECISIONS}
    assert begin(asked["bf16"]) == (
        "bf16", "train.precision: bf16, which 1 of 3 workers emulate: slower than fp32",
    )  # fmt: skip
    assert begin(asked["fp32"]) == ("fp32", "")


@pytest.mark.parametrize("before", PRECISIONS)
def test_a_run_that_goes_on_elsewhere_keeps_its_precision(
    before: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = job.model_copy(update={"train": settled(job.train, job.model, before == "bf16")})
    points = Checkpoints(open_store(job.storage), f"{job.prefix}/checkpoints", World(0, 1, "cpu"), contract(begun))
    points.save(FakeEngine(7), 7, {})
    points.wait()
    monkeypatch.setattr(HAS, lambda device: before == "fp32")
    assert begin(job)[0] == before


def test_a_gan_is_trained_in_fp32_without_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    gan = job_of("gan", f"storage.url={tmp_path}", "train.precision=auto")
    for own in (True, False):
        monkeypatch.setattr(HAS, lambda device, own=own: own)
        assert begin(gan) == ("fp32", "")


def test_the_published_model_says_what_it_was_trained_in(job: Job) -> None:
    parts: Any = SimpleNamespace(prepared=SimpleNamespace(labels=["a"]))
    test: Any = SimpleNamespace(metrics={})
    for has_bf16 in (True, False):
        done = job.model_copy(update={"train": settled(job.train, job.model, has_bf16)})
        described = describe(done, parts, torch.nn.Linear(1, 1), test, None)
        assert described.precision == ("bf16" if has_bf16 else "fp32")


def test_auto_is_settled_before_anything_depends_on_it(job: Job) -> None:
    assert is_bf16(settled(job.train, job.model, True))
    with pytest.raises(AssertionError):
        is_bf16(job.train)


def test_there_is_nothing_to_say_where_all_compute_it() -> None:
    assert explained("bf16", "bf16", 0, 4) == explained("fp32", "fp32", 4, 4) == ""

"""What is made of a gang's errors."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError

from heliostat.infra.errors import ModelError, RecordTooLargeError, TrainingError
from heliostat.train.micro_batch import PassTooLargeError
from heliostat.tune.failures import Failure, failure

CLOSED = RuntimeError("[/pytorch/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:31337")
FULL = OutOfMemoryError(
    "Memory on the node (IP: 10.0.0.1) was 7.61GB used / 8.00GB limit, which exceeds the memory usage threshold"
)


def test_members_that_all_return_have_not_failed() -> None:
    assert failure([{"step": 1}, {"step": 1}], 8) is None


@pytest.mark.parametrize("outcomes", [[None, None], [{"step": 1}, None]])
def test_a_gang_that_does_not_answer_is_lost(outcomes: list[object]) -> None:
    assert failure(outcomes, 8) == Failure("lost", "a worker does not answer")


@pytest.mark.parametrize("others", [[None], [CLOSED], [PassTooLargeError(8, 1)], [ActorDiedError()]])
def test_a_pass_that_is_too_large_is_halved_whatever_befell_the_others(others: list[Exception | None]) -> None:
    for outcomes in ([PassTooLargeError(8, 1), *others], [*others, PassTooLargeError(8, 1)]):
        found = failure(outcomes, 8)
        assert found == Failure("memory", "worker 1: out of memory with 8 records in a pass", 4)
        assert not found.keeps_gang


def test_a_worker_that_ray_ended_for_a_full_machine_goes_on_with_half_of_what_it_was_begun_with() -> None:
    found = failure([CLOSED, FULL], 6)
    assert found is not None
    assert (found.kind, found.limit) == ("memory", 3)
    assert "a machine ran out of memory (7.61GB used / 8.00GB limit)" in found.reason
    single = failure([None, FULL], 1)
    assert single is not None
    assert (single.kind, single.limit) == ("trial", None)


@pytest.mark.parametrize("outcomes", [[CLOSED, ActorDiedError()], [ActorDiedError(), None], [CLOSED, None]])
def test_a_worker_that_is_gone_is_no_fault_of_the_trial(outcomes: list[Exception | None]) -> None:
    found = failure(outcomes, 8)
    assert found is not None
    assert (found.kind, found.keeps_gang) == ("lost", False)


def test_the_reason_is_that_of_the_member_that_failed_first_of_itself() -> None:
    found = failure([CLOSED, IndexError("no such class: 7")], 8)
    assert found == Failure("trial", "no such class: 7")


def test_a_gang_whose_members_all_refuse_a_trial_takes_the_next_one() -> None:
    refused = [ModelError("too many labels"), ModelError("too many labels")]
    assert failure(refused, 8) == Failure("trial", "too many labels", keeps_gang=True)
    diverged = [TrainingError("loss is nan at step 3"), TrainingError("loss is nan at step 3")]
    assert failure(diverged, 8) == Failure("trial", "loss is nan at step 3", keeps_gang=True)


@pytest.mark.parametrize("other", [None, {"step": 1}, CLOSED, ValueError("sizes differ")])
def test_a_gang_of_which_one_member_came_to_another_end_is_replaced(other: object) -> None:
    found = failure([TrainingError("the label is unknown"), other], 1)
    assert found is not None
    assert (found.kind, found.keeps_gang) == ("trial", False)


def test_a_gang_that_ran_out_of_memory_with_one_record_is_replaced_though_all_its_members_say_so() -> None:
    found = failure([RecordTooLargeError("out of memory")] * 2, 1)
    assert found is not None
    assert (found.kind, found.keeps_gang) == ("trial", False)

"""What a trial and its gang are worth after a member has failed.

Members meet in collective operations: where one raises, the others wait in theirs, for half an hour with gloo and for
ever in DeepSpeed's shared memory, and no call reaches them there. So nobody waits for them. What was begun of a
collective operation stays in the process group too, and would be taken for a part of the next trial: only a gang whose
members all came to the same end together can take another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError
from ray.exceptions import OutOfMemoryError, RayActorError

from heliostat.infra.errors import HeliostatError, RecordTooLargeError
from heliostat.train.launch import FULL_NODE, innermost
from heliostat.train.micro_batch import PassTooLargeError

BROKEN = ("Connection closed", "Connection reset", "Broken pipe", "connection failure", "NCCL", "Gloo", "gloo")
"""Marks of the errors that a member raises for what befell another one."""


@dataclass(frozen=True)
class Failure:
    """Why members did not return, and what can be done."""

    kind: Literal["memory", "lost", "trial"]
    """`memory`: a pass was too large; `lost`: a worker or its node is gone; `trial`: the trial cannot work."""
    reason: str
    limit: int | None = None
    """Of `memory`: the most records of a micro-batch that the trial goes on with; the global batch stays."""
    keeps_gang: bool = False
    """Whether the gang can take another trial; it has to be replaced otherwise."""


def failure(outcomes: Sequence[Any], micro_batch_size: int) -> Failure | None:
    """Why a call of all members failed; None if it did not.

    `micro_batch_size` is what the trial was trained with: a member that ran out of the machine's memory cannot tell.
    """
    errors = [one for one in outcomes if isinstance(one, Exception)]
    if not errors:
        return Failure("lost", "a worker does not answer") if None in outcomes else None
    for error in errors:
        if isinstance(error, PassTooLargeError):
            return Failure("memory", str(error), error.size // 2)
    full = next(
        (error for error in errors if isinstance(error, OutOfMemoryError) or FULL_NODE.search(str(error))), None
    )
    if full:
        return _of_a_full_machine(innermost(full), micro_batch_size)
    lost = next((error for error in errors if isinstance(error, RayActorError)), None)
    own = next((error for error in errors if not lost and not _is_broken(error)), None)
    if own:
        return Failure("trial", innermost(own), keeps_gang=len(errors) == len(outcomes) and all(map(_is_said, errors)))
    return Failure("lost", innermost(lost or errors[0]))


def _of_a_full_machine(reason: str, size: int) -> Failure:
    return Failure("memory", reason, size // 2) if size > 1 else Failure("trial", reason)


def _is_broken(error: Exception) -> bool:
    """Whether it is about another member, which this one waited for."""
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in BROKEN)


def _is_said(error: Exception) -> bool:
    """Whether a member raised it on purpose, between collective operations, where all others do."""
    return isinstance(error, HeliostatError | ValidationError) and not isinstance(error, RecordTooLargeError)

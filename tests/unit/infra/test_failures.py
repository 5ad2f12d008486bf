"""Failures of disks and databases, as libraries report them, become one line; mistakes of the program do not."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest
import sqlalchemy.exc
from ray.exceptions import RayTaskError

from heliostat.infra.errors import DataError, StorageError
from heliostat.infra.failures import explain

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/rows.arrow")


def task_error(cause: Exception) -> Exception:
    """What `ray.get` raises for a task that failed with `cause`."""
    return RayTaskError("scan", "Traceback\n" * 40 + str(cause), cause).as_instanceof_cause()


def caused(by: Exception) -> Exception:
    error = RuntimeError("writing failed")
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FULL, ["/data/rows.arrow", "No space left on device", "free some"]),
        (OSError(errno.EROFS, "x", "/data"), ["/data", "Read-only file system", "written to"]),
        (PermissionError(errno.EACCES, "x", "/data"), ["/data", "Permission denied", "another place"]),
        (OSError(errno.EMFILE, "x"), ["Too many open files", "ulimit -n"]),
        (caused(FULL), ["/data/rows.arrow", "No space left"]),
        (task_error(FULL), ["/data/rows.arrow", "No space left"]),
        (RuntimeError("I/O error: No space left on device (os error 28)\nin write"), ["I/O error", "free some"]),
        (sqlite3.OperationalError("attempt to write a readonly database"), ["database", "readonly", "written to"]),
        (
            sqlalchemy.exc.OperationalError("INSERT INTO runs\nVALUES (1)", {}, Exception("database or disk is full")),
            ["MLflow's database", "database or disk is full"],
        ),
    ],
)
def test_a_failure_of_the_surroundings_is_one_line_that_says_what_to_do(error: Exception, words: list[str]) -> None:
    found = explain(error)
    assert isinstance(found, StorageError)
    assert "\n" not in str(found)
    assert all(word in str(found) for word in words), str(found)


def test_an_error_for_users_that_a_task_raised_loses_the_traceback_of_its_worker() -> None:
    found = explain(task_error(DataError("data.csv line 3: not UTF-8")))
    assert type(found) is DataError
    assert str(found) == "data.csv line 3: not UTF-8"


@pytest.mark.parametrize("error", [KeyError("label"), OSError(errno.EINVAL, "x"), task_error(ValueError("bad"))])
def test_a_mistake_of_the_program_stays_a_traceback(error: Exception) -> None:
    assert explain(error) is None

"""What fails at the edges of a process (disk, database), turned into errors of one line.

Libraries report these failures in exceptions of their own, deep inside their calls. `explain` recognises the failure
wherever it is in the chain of causes, so that no call has to be wrapped.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from heliostat.infra.errors import HeliostatError, StorageError

_ADVICE = {
    errno.ENOSPC: "free some, or give another place",
    errno.EDQUOT: "free some, or give another place",
    errno.EFBIG: "the limit of this user or file system is reached",
    errno.EROFS: "give a place that can be written to",
    errno.EACCES: "let this user read and write there, or give another place",
    errno.EPERM: "let this user read and write there, or give another place",
    errno.EIO: "the disk or its connection fails",
    errno.ESTALE: "the network file system has lost it; try again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "this machine has too many files open",
}
"""Failures of the surroundings rather than of the program, with what to do."""
_TOLD_BY_TEXT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Failures that libraries without an OSError (safetensors, torch, Arrow) report by the system's text alone."""
_DATABASES = ("sqlite3", "sqlalchemy", "alembic")


def explain(error: BaseException) -> HeliostatError | None:
    """The error of one line for a failure at the edges, found in `error` or what caused it; None for any other."""
    for link in _chain(error):
        found = link if isinstance(link, HeliostatError) else _explained(link)
        if found is not None:
            return found
    return None


def is_database_error(error: BaseException) -> bool:
    """Whether a database or SQLAlchemy raised it."""
    return type(error).__module__.partition(".")[0] in _DATABASES


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, outermost first; an error of a Ray task is replaced by the one that the task raised."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        inner = getattr(link, "cause", None)  # of ray.exceptions.RayTaskError, whose text is the worker's traceback
        if not isinstance(inner, BaseException):
            yield link
            inner = link.__cause__
        link = inner


def _explained(error: BaseException) -> HeliostatError | None:
    if isinstance(error, OSError) and error.errno in _ADVICE:
        what = f"{error.filename}: " if error.filename else ""
        return StorageError(f"{what}{os.strerror(error.errno)}; {_ADVICE[error.errno]}")
    if is_database_error(error):
        return StorageError(f"MLflow's database: {_first_line(error)}; check its place, and that it can be written to")
    for code in _TOLD_BY_TEXT:
        if os.strerror(code) in str(error):
            return StorageError(f"{_first_line(error)}; {_ADVICE[code]}")
    return None


def _first_line(error: BaseException) -> str:
    """The first line of the message, 200 characters at most; SQLAlchemy adds the statement and links below it."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]

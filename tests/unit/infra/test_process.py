"""Output and account of a process: no sign and no user makes a command fail."""

from __future__ import annotations

import getpass
import io
import os
import sys
from pathlib import Path

import pytest

from heliostat.infra import process
from heliostat.infra.errors import ConfigError, StorageError


def printed(text: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    process.prepare()
    stream.write(text)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("╭──┬──╮ │ ━╸", "+--+--+ | --"),
        ("⠋ train…", "* train..."),
        ("Erkältung – très", "Erk?ltung - tr?s"),
        ("█▁", "**"),
        ("movies", "movies"),
    ],
)
def test_a_terminal_that_lacks_a_sign_shows_a_plain_one(text: str, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(text, "ascii", monkeypatch) == plain


def test_letters_that_the_terminal_has_stay_and_half_a_pair_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed("Erkältung│", "latin-1", monkeypatch) == "Erkältung|"
    assert printed("│\ud83d", "utf-8", monkeypatch) == "│?"


def test_a_user_whom_the_system_does_not_know_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    process.prepare()
    assert getpass.getuser() == f"user-{os.getuid()}"
    del os.environ["HOME"]
    with pytest.raises(ConfigError, match=r"^HOME: not set, and user \d+ has no home here"):
        process.prepare()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        full.write("a table")
        with pytest.raises(StorageError, match=r"^standard output: No space left on device$"):
            process.flush_output()

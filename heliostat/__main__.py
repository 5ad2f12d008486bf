"""Entry point of `heliostat` and `python -m heliostat`."""

from __future__ import annotations

import sys
from typing import NoReturn

from heliostat.infra import failures, process
from heliostat.infra.errors import HeliostatError


def main() -> None:
    """Runs a command; a user's mistake ends in one line and a non-zero exit code, not in a traceback."""
    try:
        process.prepare()
        from heliostat.cli import app

        try:
            app()
        finally:
            process.flush_output()
    except ModuleNotFoundError as error:
        from heliostat.infra.installed import explain

        reason = explain(error)
        if reason is None:
            raise
        fail(f"{command()}{reason}", HeliostatError.exit_code)
    except KeyboardInterrupt:
        fail("stopped", 130)
    except Exception as error:
        found = failures.explain(error)
        if found is None:
            raise
        fail(str(found), found.exit_code)


def fail(line: str, exit_code: int) -> NoReturn:
    """Prints `line` to stderr and exits with `exit_code`."""
    sys.stderr.write(f"heliostat: {line}\n")
    sys.exit(exit_code)


def command() -> str:
    """The command that was called, as a prefix of a message; empty if there was none."""
    return next((f"{word}: " for word in sys.argv[1:2] if not word.startswith("-")), "")


if __name__ == "__main__":
    main()

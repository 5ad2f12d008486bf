"""`heliostat`, and `python -m heliostat`."""

from __future__ import annotations

import sys

from heliostat.infra.errors import HeliostatError


def main() -> None:
    """Runs a command; a user's mistake ends in one line and a non-zero exit, never in a traceback."""
    from heliostat.cli import app

    try:
        app()
    except HeliostatError as error:
        sys.stderr.write(f"heliostat: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("heliostat: stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()

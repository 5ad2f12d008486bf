"""Writes the files of rules into a checkout: `python -m heliostat.infra.alerts`."""

from __future__ import annotations

from heliostat.infra.alerts.files import contents


def main() -> None:
    """Writes each file."""
    for file, text in contents():
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

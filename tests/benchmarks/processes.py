"""Starts processes that measure something, and takes what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def measured(
    module: str, arguments: list[str], workers: int | None = None, environment: Mapping[str, str] | None = None
) -> Any:
    """What `say` was told in `python -m module arguments`, by one of `workers` under torchrun where they are given.

    SystemExit with its stderr where that was nothing.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)] if workers else []
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", module, *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(done.stderr[-5000:])
    return json.loads(lines[0].removeprefix("RESULT "))


def say(result: Any) -> None:
    """Hands a result to `measured`."""
    sys.stdout.write("RESULT " + json.dumps(result) + "\n")

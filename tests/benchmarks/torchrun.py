"""Starts workers that measure something, and takes what rank 0 says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def measured(module: str, arguments: list[str], workers: int, environment: Mapping[str, str] | None = None) -> Any:
    """What `say` was told in `python -m module arguments` under torchrun; SystemExit with its stderr where nothing."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    done = subprocess.run(
        [*launcher, "-m", module, *arguments],
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

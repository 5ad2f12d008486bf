"""Load on HTTP servers with wrk, and servers that are started for it."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Load:
    """What a server did under load."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float


def wrk(url: str, connections: int, seconds: float, script: Path | None = None) -> Load:
    """Keeps `connections` requests going for `seconds`; one thread, as the server needs the cores.

    Ends the benchmark where an answer is no 2xx or 3xx, or a socket fails.
    """
    program = shutil.which("wrk")
    if program is None:
        sys.exit("wrk: not found; it makes the load (Debian: apt-get install wrk)")
    command = [program, "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "--latency"]
    command += ["-s", str(script)] if script else []
    out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    errors = sum(int(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    for line in re.findall(r"Socket errors: (.*)", out):
        errors += sum(int(count) for count in re.findall(r"\d+", line))
    if errors:
        sys.exit(f"{url}: {errors} requests failed, so the figures mean nothing:\n{out}")
    return Load(float(_found(r"Requests/sec:\s+([\d.]+)", out)), _ms("50", out), _ms("99", out))


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"wrk said nothing like {pattern}:\n{text}")
    return match.group(1)


def _ms(percentile: str, text: str) -> float:
    found = _found(rf"\s{percentile}%\s+([\d.]+[a-z]+)", text)
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", found).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[unit]


def median(loads: Sequence[Load]) -> Load:
    """The median of each figure."""
    return Load(
        statistics.median(load.requests_per_second for load in loads),
        statistics.median(load.p50_ms for load in loads),
        statistics.median(load.p99_ms for load in loads),
    )


def command(benchmark: str, *arguments: object) -> list[str]:
    """What runs a benchmark's module again, as one of its own servers."""
    return [sys.executable, "-m", f"tests.benchmarks.{benchmark}", *(str(argument) for argument in arguments)]


def end_with_the_benchmark() -> None:
    """Ends this process once its standard input closes."""
    sys.stdin.read()
    os.kill(os.getpid(), 15)


@contextmanager
def server(arguments: Sequence[str], ready_url: str, *, seconds: float = 180, log: Path) -> Iterator[int]:
    """Runs a server until the block ends, and gives its process ID; it must stop once its standard input closes."""
    root = Path(__file__).parents[2]
    pipes: Any = {"stdin": subprocess.PIPE, "cwd": root}
    with log.open("wb") as out, subprocess.Popen(arguments, stdout=out, stderr=out, **pipes) as process:
        try:
            _wait_for(ready_url, process, time.monotonic() + seconds, log)
            yield process.pid
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes], until: float, log: Path) -> None:
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{url} does not come up:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.2)

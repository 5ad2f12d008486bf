"""The demo, cut down further, from the first record to the last sample."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

DEMO = """
from heliostat.demo import DEMOS, run_demo
from heliostat.spec import load_spec
smaller = ("data.limit=320", "data.max_length=32", "tune.trials=2")
run_demo(load_spec("sentiment", (*DEMOS["sentiment"], *smaller)), keep=False)
"""
SHOWN = (
    "conflicting",
    "Trials, best first",
    "training loss",
    "in MLflow: mlflow ui",
    "f1",
    "predicted positive",
    "manifest SHA-256",
    "/report.html",
    "sentiment answers",
    'ray_heliostat_requests_total{model="sentiment", status="200", version="1"}',
    "total",
)


def test_the_demo_shows_every_stage_and_leaves_nothing_running(home: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "COLUMNS": "120", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", DEMO], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert [one for one in SHOWN if one not in done.stdout] == []
    assert [
        one.pid for one in psutil.process_iter(["cmdline"]) if str(home) in " ".join(one.info["cmdline"] or ())
    ] == []

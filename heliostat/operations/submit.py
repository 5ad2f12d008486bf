"""`heliostat submit`: runs a command as a job on a Ray cluster."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from heliostat.cluster import jobs
from heliostat.infra import log
from heliostat.infra.config.strict import dump_yaml
from heliostat.infra.errors import TrainingError
from heliostat.infra.tracing import semconv, settings
from heliostat.infra.tracing.span import traceparent
from heliostat.infra.tracing.tracer import traced
from heliostat.spec import Spec
from heliostat.view.terminal import View

FORWARDED = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL_S3", *log.VARIABLES, *settings.VARIABLES)
"""Environment variables that are passed to the job. Credentials are not: the cluster has its own."""


def submit_command(command: str, spec: Spec, address: str, wait: bool) -> None:
    """Runs `heliostat COMMAND` with the resolved spec on the cluster; with `wait`, follows its log until it ends.

    Raises ResourceError if the cluster cannot be reached and TrainingError if the job fails.
    """
    view, span = View(), {semconv.COMMAND: command, semconv.MODEL: spec.name}
    with traced("submit", span):
        job = submit(command, spec, address)
        view.say(f"job {job} on {address}; look: ray job logs {job}; end: ray job stop {job}")
        if wait:
            follow(job, address, view)


def submit(command: str, spec: Spec, address: str) -> str:
    """Submits the job, whose spans are parts of the current one; returns its id."""
    with tempfile.TemporaryDirectory(prefix="heliostat-submit-") as folder:
        file = Path(folder) / "spec.yaml"
        file.write_text(dump_yaml(spec), encoding="utf-8")
        variables = {name: os.environ[name] for name in FORWARDED if name in os.environ}
        if parent := traceparent():
            variables[settings.TRACEPARENT] = parent
        with jobs.environment([file], variables) as environment:
            return jobs.submit(address, jobs.python_command(f"-m heliostat {command} {file.name}"), environment)


def follow(job: str, address: str, view: View) -> None:
    """Prints the job's log as it is written.

    Raises TrainingError if the job does not succeed, and KeyboardInterrupt, which says so, if it goes on unwatched.
    """
    try:
        for text in jobs.logs(address, job):
            view.console.print(text, end="", markup=False, soft_wrap=True)
        state = jobs.status(address, job)
    except KeyboardInterrupt:
        end = f"ray job stop --address {address} {job}"
        raise KeyboardInterrupt(f"job {job} goes on at {address}; end: {end}") from None
    if state != "SUCCEEDED":
        raise TrainingError(f"job {job}: {state}: {jobs.reason(address, job)}")

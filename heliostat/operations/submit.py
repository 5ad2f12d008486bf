"""`heliostat submit`: runs a command as a job on a Ray cluster."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from heliostat.cluster import jobs
from heliostat.infra import log
from heliostat.infra.config.strict import dump_yaml
from heliostat.infra.tracing import semconv, settings
from heliostat.infra.tracing.span import traceparent
from heliostat.infra.tracing.tracer import traced
from heliostat.operations.jobs import WHAT, follow_job
from heliostat.spec import Spec
from heliostat.view.terminal import View

FORWARDED = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL_S3", *log.VARIABLES, *settings.VARIABLES)
"""Environment variables that are passed to the job. Credentials are not: the cluster has its own."""


def submit_command(command: str, spec: Spec, address: str, wait: bool) -> None:
    """Runs `heliostat COMMAND` with the resolved spec on the cluster; with `wait`, follows its log until it ends.

    Raises ResourceError if the cluster cannot be reached and JobError if the job fails.
    """
    view, span = View(), {semconv.COMMAND: command, semconv.MODEL: spec.name}
    with traced("submit", span):
        job = submit(command, spec, address)
        view.say(f"job {job} on {address}; look: heliostat jobs follow {job}; end: heliostat jobs stop {job}")
        if wait:
            follow_job(job, address, view)


def submit(command: str, spec: Spec, address: str) -> str:
    """Submits the job, whose spans are parts of the current one; returns its id."""
    with tempfile.TemporaryDirectory(prefix="heliostat-submit-") as folder:
        file = Path(folder) / "spec.yaml"
        file.write_text(dump_yaml(spec), encoding="utf-8")
        variables = {name: os.environ[name] for name in FORWARDED if name in os.environ}
        if parent := traceparent():
            variables[settings.TRACEPARENT] = parent
        with jobs.environment([file], variables) as environment:
            entrypoint = jobs.python_command(f"-m heliostat {command} {file.name}")
            return jobs.submit(address, entrypoint, environment, metadata={WHAT: f"{command} {spec.name}"})

"""`heliostat submit`: runs a command as a job on a Ray cluster."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heliostat.cluster import jobs
from heliostat.infra import log
from heliostat.infra.config.strict import dump_yaml
from heliostat.infra.errors import ConfigError, JobError
from heliostat.infra.tracing import semconv, settings
from heliostat.infra.tracing.span import traceparent
from heliostat.infra.tracing.tracer import traced
from heliostat.operations.jobs import WHAT, follow_job
from heliostat.pipeline.runs import new_run_id
from heliostat.pipeline.searches import new_search
from heliostat.pipeline.train import NEXT
from heliostat.spec import Spec
from heliostat.view import progress
from heliostat.view.terminal import View

FORWARDED = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL_S3", *log.VARIABLES, *settings.VARIABLES)
"""Environment variables that are passed to the job. Credentials are not: the cluster has its own."""


@dataclass(frozen=True)
class Submission:
    """What is to be run on a cluster."""

    command: str
    """`prepare`, `tune`, `train`, `evaluate` or `serve`."""
    spec: Spec
    given: str
    """How the user calls the spec: its file or recipe, and what is set over it."""
    sources: Mapping[str, Path] = field(default_factory=dict)
    """Files and folders of this machine that `data` and `model` of the spec name, which travel with the job."""
    id: str | None = None
    """The job's ID; a new one where None."""
    retries: int = 0
    """How often a job that fails is submitted again."""


def submit_command(submission: Submission, address: str, wait: bool) -> None:
    """Runs the command as a job; with `wait`, follows it until it ends, and submits it again where that is wanted.

    Raises ResourceError if the cluster cannot be reached and JobError if the job fails.
    """
    view, span = View(), {semconv.COMMAND: submission.command, semconv.MODEL: submission.spec.name}
    arguments = _arguments(submission)
    with traced("submit", span):
        for attempt in range(submission.retries + 1):
            name = f"{submission.id}-{attempt + 1}" if submission.id and attempt else submission.id
            job = submit(submission, arguments, name, address, view)
            view.say(f"job {job} on {address}; look: heliostat jobs follow {job}; end: heliostat jobs stop {job}")
            if not wait or _succeeds(job, address, view, may_fail=attempt < submission.retries):
                return


def _arguments(submission: Submission) -> str:
    """What follows the spec on the command line of the job.

    A run or a search that is to be tried again has a name, by which the next attempt goes on with it.
    """
    names_a_run = submission.command == "train" and submission.retries and submission.spec.train.resume != "auto"
    if names_a_run:
        return f" --run {new_run_id()}"
    if submission.command == "tune" and submission.retries and submission.spec.tune.resume != "auto":
        return f" tune.resume=auto --search {new_search()}"
    return " --detach" if submission.command == "serve" else ""


def _succeeds(job: str, address: str, view: View, *, may_fail: bool) -> bool:
    """Whether the job has succeeded; raises JobError instead of False unless another attempt may and can help."""
    try:
        follow_job(job, address, view)
    except JobError as error:
        is_wrong = error.exit_code == ConfigError.exit_code
        if not may_fail or is_wrong or jobs.find_patiently(address, job).status != "FAILED":
            raise
        view.say(f"{error}; it is submitted again")
        return False
    return True


def submit(submission: Submission, arguments: str, name: str | None, address: str, view: View) -> str:
    """Submits the job, whose spans are parts of the current one; returns its ID, which is `name` where given."""
    command, spec = submission.command, submission.spec
    with tempfile.TemporaryDirectory(prefix="heliostat-submit-") as folder:
        file = Path(folder) / "spec.yaml"
        places = {key: f"{key}/{path.name}" for key, path in submission.sources.items()}
        file.write_text(dump_yaml(_with_sources(spec, places)), encoding="utf-8")
        files = {file.name: file, **{places[key]: path for key, path in submission.sources.items()}}
        variables = _variables(view, f"heliostat submit serve {submission.given} --address {address}")
        with jobs.environment(files, variables) as environment:
            entrypoint = jobs.python_command(f"-m heliostat {command} {file.name}{arguments}")
            what = {WHAT: f"{command} {spec.name}"}
            return jobs.submit(address, entrypoint, environment, metadata=what, job=name)


def _with_sources(spec: Spec, places: Mapping[str, str]) -> Spec:
    """The spec with the sources of `data` and `model` that travel, by their places beside its file."""
    update = {key: getattr(spec, key).model_copy(update={"source": f"./{place}"}) for key, place in places.items()}
    return spec.model_copy(update=update)


def _variables(view: View, next_command: str) -> dict[str, str]:
    """The job's environment; its bars are lines, and its tables as wide as the terminal here, if this is one."""
    variables = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    if parent := traceparent():
        variables[settings.TRACEPARENT] = parent
    width = {"COLUMNS": str(view.console.width)} if view.console.is_terminal else {}
    return {**variables, progress.VARIABLE: "json", NEXT: next_command, **width}

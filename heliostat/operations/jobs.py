"""`heliostat jobs`: what runs on a Ray cluster, and how it ends."""

from __future__ import annotations

from datetime import datetime, timezone

from heliostat.cluster import jobs
from heliostat.cluster.jobs import Job
from heliostat.infra.errors import JobError, ResourceError
from heliostat.view.progress import Follower, progress_bar, without_bars
from heliostat.view.terminal import View

WHAT = "heliostat"
"""Key in a job's metadata: the command that it runs, as `train sentiment`."""


def list_jobs(address: str) -> None:
    """Prints the cluster's jobs, newest first."""
    found = jobs.every(address)
    rows = [[job.id, job.status.lower(), _what(job), _began(job), _lasted(job)] for job in found]
    View().table(
        f"Jobs on {address}" if rows else f"No jobs on {address}", ["job", "state", "what", "began", "for"], rows
    )


def follow_job(job: str, address: str, view: View) -> None:
    """Prints the job's output as it is written, with its progress; raises JobError if it does not succeed.

    KeyboardInterrupt, and ResourceError where the cluster is away for too long, say that the job goes on.
    """
    goes_on = f"job {job} goes on at {address}; look: heliostat jobs follow {job}; end: heliostat jobs stop {job}"
    try:
        with Follower(view.console) as follower:
            for text in jobs.follow(address, job):
                follower.write(text)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(goes_on) from None
    except ResourceError as error:
        raise ResourceError(f"{error}; {goes_on}") from error
    check(jobs.find_patiently(address, job))


def show_logs(job: str, address: str, view: View) -> None:
    """Prints all that the job has written so far, Ray's own lines too."""
    view.console.print(without_bars(jobs.logs(address, job)), end="", markup=False, soft_wrap=True)


def wait_for(job: str, address: str, seconds: float) -> None:
    """Waits without a word until the job has ended; raises JobError if it does not succeed, or not in time."""
    found = jobs.wait(address, job, seconds)
    if not found.has_ended:
        raise JobError(f"job {job}: {found.status.lower()} after {seconds:g} s", None)
    check(found)


def stop_job(job: str, address: str, view: View) -> None:
    """Asks the job to stop and waits until it has; says so if it had ended already."""
    if not jobs.stop(address, job):
        view.say(f"job {job} had ended: {jobs.find(address, job).status.lower()}")
        return
    view.say(f"job {job}: asked to stop; it has {jobs.STOP_SECONDS // 60} minutes, a run for its checkpoint")
    with progress_bar(view.console) as bar:
        bar.show(f"job {job}: stopping")
        ended = jobs.wait(address, job)
    view.say(f"job {job}: {ended.status.lower()}")


def check(job: Job) -> None:
    """Raises JobError unless the job succeeded."""
    if job.status != "SUCCEEDED":
        raise JobError(f"job {job.id}: {job.status.lower()}: {job.message}", job.exit_code)


def _what(job: Job) -> str:
    return job.metadata.get(WHAT) or job.entrypoint[:60]


def _began(job: Job) -> str:
    return f"{job.started:%Y-%m-%d %H:%M:%S} UTC" if job.started else ""


def _lasted(job: Job) -> str:
    until = job.ended or datetime.now(timezone.utc)
    return f"{(until - job.started).total_seconds():.0f} s" if job.started else ""

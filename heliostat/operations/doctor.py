"""`heliostat doctor`: checks of this machine, or of a cluster that it joins or sends a job to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from heliostat.cluster import jobs
from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.doctor.machine import Check
from heliostat.infra.config.strict import dump_yaml
from heliostat.infra.errors import ResourceError
from heliostat.infra.storage.config import StorageConfig, is_s3
from heliostat.operations.jobs import WHAT, follow_job
from heliostat.spec import Spec
from heliostat.view.terminal import View


def show(title: str, checks: Iterable[Check], view: View) -> bool:
    """Prints the report; returns whether nothing failed."""
    rows = [[check.status, check.name, check.found, check.advice] for check in checks]
    view.table(title, ["", "check", "found", "what to do"], rows)
    return all(row[0] != "fail" for row in rows)


def check_machine(spec: Spec | None, compile_operators: bool) -> bool:
    """Checks this machine, for the spec's storage and port; returns whether nothing failed."""
    from heliostat.cluster.doctor.doctor import checks
    from heliostat.serve.config import ServeConfig

    storage = spec.storage if spec else StorageConfig()
    port = (spec.serve if spec else ServeConfig()).port
    return show("Doctor", checks(storage, port, compile_operators), View())


def check_cluster(spec: Spec | None, address: str | None, bandwidth: bool) -> bool:
    """Checks the cluster at `address`, of the spec, or of RAY_ADDRESS: as a job where that is a dashboard's URL.

    Returns whether nothing failed; raises JobError where something did in a job, and what `join_and_check` raises.
    """
    where = address or ("" if spec and spec.cluster.address else os.environ.get("RAY_ADDRESS", ""))
    if where.startswith(("http://", "https://")):
        submit_check(spec, where, bandwidth)
        return True
    return join_and_check(spec, address, bandwidth)


def join_and_check(spec: Spec | None, address: str | None, bandwidth: bool) -> bool:
    """Joins the Ray at `address`, of the spec, or of RAY_ADDRESS, and checks it; returns whether nothing failed.

    Raises ConfigError for an address of another kind, ResourceError if there is no such Ray or it cannot be joined,
    as one with another version of Ray or Python.
    """
    from heliostat.cluster.doctor.nodes.checks import cluster_checks
    from heliostat.cluster.session.address import find_address, split_address
    from heliostat.cluster.session.session import session

    config = spec.cluster if spec else ClusterConfig()
    if address and address != "auto":
        split_address(address, "--address")
    found = address or find_address(config)
    if found is None:
        raise ResourceError("--cluster: no Ray to join; give --address, cluster.address in a spec, or RAY_ADDRESS")
    storage = spec.storage if spec else StorageConfig() if os.environ.get("HELIOSTAT_STORAGE") else None
    view = View()
    with session(ClusterConfig(address=found), cpus=0), view.progress("doctor") as advance:
        checks = cluster_checks(storage, bandwidth, advance)
    return show(f"Doctor of Ray at {found}", checks, view)


def submit_check(spec: Spec | None, address: str, bandwidth: bool) -> None:
    """Runs the checks as a job of the cluster whose dashboard is at `address`, and follows it.

    Raises JobError, with its exit code, if something failed there.
    """
    view = View()
    with ExitStack() as stack:
        files = []
        if spec is not None:
            files.append(
                Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heliostat-doctor-"))) / "spec.yaml"
            )
            files[0].write_text(dump_yaml(_for_inside(spec)), encoding="utf-8")
        words = ["-m heliostat doctor", *(file.name for file in files), "--cluster"]
        words += [] if bandwidth else ["--no-bandwidth"]
        environment = stack.enter_context(jobs.environment({file.name: file for file in files}, _variables()))
        command = jobs.python_command(" ".join(words))
        job = jobs.submit(address, command, environment, metadata={WHAT: "doctor --cluster"})
    follow_job(job, address, view)


def _for_inside(spec: Spec) -> Spec:
    """The spec without an address: a job joins the cluster that it runs on."""
    return spec.model_copy(update={"cluster": spec.cluster.model_copy(update={"address": None})})


def _variables() -> dict[str, str]:
    """Our bucket, for a job; a folder, an address of a server and credentials mean something else on the cluster."""
    url = os.environ.get("HELIOSTAT_STORAGE", "")
    return {"HELIOSTAT_STORAGE": url} if is_s3(url) else {}

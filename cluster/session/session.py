"""Start a Ray on this machine, or join one, while a command runs.

    with session(spec.cluster, cpus=2):
        ...  # ray.remote, ray.train, ray.serve

A Ray that is started here listens on the loopback only, requires a token, and is stopped afterwards, whether the work
succeeds, fails, or is stopped by Ctrl-C, SIGTERM or SIGHUP. A Ray that is joined is left running.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partialmethod
from pathlib import Path
from typing import Any

from heliostat.cluster import scrape
from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.environment import applied, is_loopback, joining_environment, local_environment
from heliostat.cluster.folders import LOOPBACK, ray_folder
from heliostat.cluster.haproxy.ingress import delete_old_haproxy_folders
from heliostat.cluster.package import code_runtime_env
from heliostat.cluster.session import processes
from heliostat.cluster.session.address import check_is_ray, find_address
from heliostat.cluster.session.interrupts import Terminated, interrupts_ignored, on_signals, signals_as_interrupt
from heliostat.cluster.session.resources import check_cluster, check_local, local_cpus, warn_if_busy
from heliostat.cluster.session.watcher import Watcher, watching
from heliostat.infra import log as logs
from heliostat.infra.errors import HeliostatError, ResourceError
from heliostat.infra.log import get
from heliostat.infra.tracing import settings as traces

log = get(__name__)

NAMESPACE = "heliostat"
"""Ray namespace of all our actors and placement groups."""
KEPT_SESSIONS = 5


@contextmanager
def session(
    config: ClusterConfig,
    *,
    cpus: float,
    gpus: float = 0,
    key: str = "train.workers",
    dashboard: bool = False,
) -> Iterator[None]:
    """A Ray for the length of the block with `cpus` CPUs and `gpus` GPUs in all, which the spec's `key` asks for.

    Joins the Ray at `config.address`, at RAY_ADDRESS or the detached one, or starts one on this machine if there is
    none; `dashboard` only applies to one that is started. Inside another session, or in a process that already uses
    Ray, it only checks the resources.

    Raises ResourceError before anything starts if the resources exceed what is possible, and within about ten seconds
    if no Ray answers at the address; ConfigError for a malformed address.
    """
    if _ray_is_up():
        check_cluster(config, key, cpus, gpus)
        yield
        return
    with signals_as_interrupt():
        address = find_address(config)
        with _joined(config, address, key, cpus, gpus) if address else _local(config, key, cpus, gpus, dashboard):
            yield


def logs_folder() -> Path:
    """Log folder of the current Ray on this machine, including its workers' output."""
    from ray._private.worker import _global_node

    if _global_node is None:
        raise ResourceError("Ray: not in use here, so it has no logs; open a session first")
    return Path(_global_node.get_logs_dir_path())


def _ray_is_up() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def _joined(config: ClusterConfig, address: str, key: str, cpus: float, gpus: float) -> Iterator[None]:
    with applied(joining_environment(address)):
        check_is_ray(address)
        code = {} if is_loopback(address) else code_runtime_env()
        try:
            _init(f"Ray at {address}", address=address, runtime_env={**code, **_watching_runtime_env()} or None)
            check_cluster(config, key, cpus, gpus)
            warn_if_busy(key, cpus, gpus)
            yield
        finally:
            with interrupts_ignored():
                _shutdown()  # Ray ends the actors and placement groups of a driver that disconnects


def _watching_runtime_env() -> dict[str, Any]:
    """Settings of our log and traces, for workers of a Ray that was started elsewhere. A job's came with the job."""
    variables = {} if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else logs.variables() | traces.variables()
    return {"env_vars": variables} if variables else {}


@contextmanager
def _local(config: ClusterConfig, key: str, cpus: float, gpus: float, dashboard: bool) -> Iterator[None]:
    check_local(config, key, cpus, gpus)
    processes.end_orphans()
    _delete_old_sessions(ray_folder())
    delete_old_haproxy_folders()
    mark = processes.new_process_mark()
    with applied(local_environment()), watching(mark) as watcher:
        try:
            with (
                applied({processes.MARK: mark}),
                _without_helpers(dashboard),
                _with_free_agent_port(),
                _out_of_our_group(watcher),
            ):
                _init("Ray on this machine", **_local_options(config, dashboard))
            with nullcontext() if dashboard else scrape.discoverable():
                yield
        except Exception as error:
            _log_logs_folder(error)
            raise
        finally:
            with interrupts_ignored():
                started = processes.family(mark)
                _shutdown()
                processes.end([*started, *processes.family(mark)])


def _local_options(config: ClusterConfig, dashboard: bool) -> dict[str, Any]:
    return {
        "address": "local",
        "num_cpus": config.num_cpus or local_cpus(),
        "num_gpus": config.num_gpus,
        "include_dashboard": dashboard,
        "dashboard_host": LOOPBACK,
        "_node_ip_address": LOOPBACK,
        "_temp_dir": str(ray_folder()),
    }


def _init(what: str, **options: Any) -> None:
    """Calls `ray.init` quietly; turns errors into one line of ResourceError that begins with `what`."""
    import ray

    try:
        ray.init(
            namespace=NAMESPACE,
            log_to_driver=_wants_worker_output(),
            logging_level=logging.WARNING,
            **options,
        )
    except SystemExit:  # ray.init turns SIGTERM into it
        raise Terminated from None
    except Exception as error:  # Ray raises bare Exception here, among others
        raise ResourceError(f"{what}: cannot be used: {' '.join(str(error).split())}") from error
    on_signals()  # ray.init has replaced the handler


def _wants_worker_output() -> bool:
    """Whether workers' output is copied to the terminal, according to RAY_LOG_TO_DRIVER."""
    return os.environ.get("RAY_LOG_TO_DRIVER", "0").lower() in ("1", "true")


@contextmanager
def _without_helpers(dashboard: bool) -> Iterator[None]:
    """Starts Ray without three processes that a command on one machine does not need.

    They are the autoscaler's monitor, the API server, and the log monitor, which copies workers' output to the
    terminal. `ray.init` has no option for this. It saves a third of the start time and 40 % of its CPU time.
    """
    from ray._private.node import Node

    unused = [] if dashboard else ["start_monitor", "start_api_server"]
    unused += [] if _wants_worker_output() else ["start_log_monitor"]
    before = {name: getattr(Node, name) for name in unused}
    for name in unused:
        setattr(Node, name, _skip)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)


@contextmanager
def _with_free_agent_port() -> Iterator[None]:
    """Lets the node's agent choose its HTTP port; Ray's is 52365, and `ray.init` has no option for it.

    Of two Rays on a machine, the one whose agent finds 52365 taken takes no jobs ("No available agent to submit job").
    """
    from ray._private.parameter import RayParams

    before = RayParams.__init__
    RayParams.__init__ = partialmethod(before, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        RayParams.__init__ = before


@contextmanager
def _out_of_our_group(watcher: Watcher) -> Iterator[None]:
    """Starts Ray's processes in sessions of their own, and lets `watcher` know them.

    A signal to the command's process group (Ctrl-C, `timeout`, a closed terminal) then reaches the command alone,
    which stops Ray once the work has ended. `ray.init` has no option for this.
    """
    from ray._private import services

    popen = services.ConsolePopen

    def start(*arguments: Any, **options: Any) -> Any:
        process = popen(*arguments, start_new_session=True, **options)
        watcher.watch(process.pid)
        return process

    services.ConsolePopen = start
    try:
        yield
    finally:
        services.ConsolePopen = popen


def _skip(*_: object, **__: object) -> None:
    """Replaces a startup step that is left out."""


def _log_logs_folder(error: Exception) -> None:
    if not isinstance(error, HeliostatError) and _ray_is_up():
        log.warning("the logs of Ray and its workers are in %s", logs_folder())


def _shutdown() -> None:
    ray = sys.modules.get("ray")
    if ray is None:
        return
    try:
        ray.shutdown()
    except Exception:
        log.exception("Ray did not shut down cleanly; its processes are ended")
    # Serve caches its controller by job ID, and the first job of every Ray has the same one.
    if context := sys.modules.get("ray.serve.context"):
        context._set_global_client(None)


def _delete_old_sessions(folder: Path) -> None:
    """Deletes the folders of ended sessions, except the newest few, whose logs may still be useful."""
    over = [one for one in folder.glob("session_2*") if processes.started_at(int(one.name.rpartition("_")[2])) is None]
    for one in sorted(over)[:-KEPT_SESSIONS]:
        shutil.rmtree(one, ignore_errors=True)

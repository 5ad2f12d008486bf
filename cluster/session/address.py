"""Finds the address of the Ray to use, and checks that it answers."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from heliostat.cluster.config import ClusterConfig
from heliostat.infra.errors import ConfigError, ResourceError

ANSWER_SECONDS = 5.0
PLACES = "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
"""Where Ray looks for a token."""


def find_address(config: ClusterConfig) -> str | None:
    """`host:port` of the Ray to join: the spec's, RAY_ADDRESS, or the detached one; None to start a new one.

    Raises ConfigError for an address of another kind, ResourceError if `auto` finds none.
    """
    given, key = (config.address, "cluster.address") if config.address else (_from_environment(), "RAY_ADDRESS")
    if given == "local":
        return None
    if given == "auto":
        return _find_any(key)
    if given:
        split_address(given, key)
        return given
    from heliostat.cluster.session.detached import find_detached

    record = find_detached()
    return record.address if record else None


def _from_environment() -> str | None:
    return os.environ.get("RAY_ADDRESS") or None


def _find_any(key: str) -> str:
    """The cluster that Ray's own `auto` lookup finds on this machine."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return str(canonicalize_bootstrap_address("auto"))
    except ConnectionError as error:
        raise ResourceError(f"{key}: auto given, but no Ray runs on this machine; start one with ray start") from error


def split_address(address: str, key: str) -> tuple[str, int]:
    """Host and port of `host:port`; raises ConfigError, which names `key`, for anything else."""
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"{key}: {address} is a dashboard; send work there with heliostat submit --address {address}, or give the "
            "host:port of a Ray that this machine is part of"
        )
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 65536) or "://" in address:
        raise ConfigError(f"{key}: {address} given; host:port, auto or local is allowed")
    return host.strip("[]"), int(port)


def check_answers(host: str, port: int, what: str) -> None:
    """Raises ResourceError, within seconds, if nothing accepts a connection; `what` begins its message."""
    try:
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise ResourceError(f"{what}: nothing answers there ({reason}); check the address, or that Ray runs") from error


def check_is_ray(address: str) -> None:
    """Raises ResourceError, within about ten seconds, if this machine is not a node of a Ray cluster at `address`.

    Ray itself tries for 40 to 100 s before it gives up.
    """
    check_answers(*split_address(address, "address"), what=f"Ray at {address}")
    nodes = _nodes(address)
    from ray._private.services import find_node_ids

    if not {node.node_id.hex() for node in nodes} & set(find_node_ids()):
        raise ResourceError(
            f"Ray at {address}: this machine is not one of its nodes; run there, or send the work with "
            "heliostat submit --address http://HOST:8265"
        )


def drivers(address: str) -> list[str]:
    """What is at work on the Ray at `address`, as users know it: its drivers' process IDs and command lines.

    Raises ResourceError if it does not answer.
    """
    from ray.core.generated.gcs_service_pb2 import GetAllJobInfoRequest
    from ray.core.generated.gcs_service_pb2_grpc import JobInfoGcsServiceStub

    request = GetAllJobInfoRequest(skip_submission_job_info_field=True, skip_is_running_tasks_field=True)
    jobs = _ask(address, JobInfoGcsServiceStub, "GetAllJobInfo", request).job_info_list
    alive = [job for job in jobs if not job.is_dead and not job.config.ray_namespace.startswith("_ray_internal")]
    return [f"process {job.driver_pid} ({job.entrypoint})" for job in alive]


def head_folder(address: str) -> Path:
    """The temporary folder of the cluster's head, on the head's machine; raises ResourceError if it does not answer."""
    return next(
        (Path(node.temp_dir) for node in _nodes(address) if node.is_head_node and node.temp_dir), Path("/tmp/ray")
    )


def _nodes(address: str) -> list[Any]:
    """The nodes of the cluster."""
    from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    return list(_ask(address, NodeInfoGcsServiceStub, "GetAllNodeInfo", GetAllNodeInfoRequest()).node_info_list)


def _ask(address: str, service: Any, method: str, request: Any) -> Any:
    """The reply of the cluster's head over gRPC, which has timeouts, unlike Ray's client."""
    import grpc  # type: ignore[import-untyped]
    from ray._private.grpc_utils import init_grpc_channel
    from ray.exceptions import AuthenticationError

    with init_grpc_channel(address) as channel:
        try:
            return getattr(service(channel), method)(request, timeout=ANSWER_SECONDS)
        except AuthenticationError as error:
            raise ResourceError(f"Ray at {address}: there is no token here; give its own in {PLACES}") from error
        except grpc.RpcError as error:
            raise ResourceError(f"Ray at {address}: {_explain(error.code().name)}") from error


def _explain(code: str) -> str:
    if code == "UNAUTHENTICATED":
        return f"it refuses our token; give its own in {PLACES}"
    return f"something answers there, but not as Ray does ({code}); check the address"

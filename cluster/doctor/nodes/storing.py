"""A node's access to storage: it reads an object that the command wrote, then writes, reads and deletes its own.

Sent to the nodes by value, as `facts` is: uses boto3 as `heliostat.infra.storage.s3` does, and nothing of Heliostat.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

DATA = b"heliostat doctor"
_CONNECT_SECONDS = 5
_READ_SECONDS = 10
_ATTEMPTS = 2


class Place(TypedDict):
    """Storage as a node needs to know it."""

    url: str
    endpoint_url: str | None
    marker: str
    """Key of the object that the command wrote, with DATA in it."""
    own: str
    """Key for the node's own object."""


class Stored(TypedDict):
    """How it went."""

    host: str
    """Server that the node asks; empty for a folder."""
    addresses: list[str]
    """What its name resolves to on the node."""
    operation: str
    """What failed: `read what the command wrote`, `write`, `read`, `delete`, `connect`; empty if nothing did."""
    code: str
    """S3's code of the error, such as AccessDenied."""
    message: str


def try_storage(place: Place) -> Stored:
    """Tries all operations in order and stops at the first that fails; raises nothing."""
    done: Stored = {"host": "", "addresses": [], "operation": "connect", "code": "", "message": ""}
    try:
        put, get, delete = _bucket(place, done) if place["url"].startswith("s3://") else _folder(Path(place["url"]))
        done["operation"] = "read what the command wrote"
        _same(get(place["marker"]))
        for done["operation"], call in (
            ("write", lambda: put(place["own"], DATA)),
            ("read", lambda: _same(get(place["own"]))),
            ("delete", lambda: delete(place["own"])),
        ):
            call()
    except Exception as error:  # of boto3, of the file system, or that boto3 is not installed: told, not raised
        said = getattr(error, "response", {}).get("Error", {})
        done["code"], done["message"] = str(said.get("Code", "")), str(said.get("Message", "")) or _text(error)
        return done
    done["operation"] = ""
    return done


_Calls = tuple[Callable[[str, bytes], Any], Callable[[str], bytes], Callable[[str], Any]]


def _bucket(place: Place, done: Stored) -> _Calls:
    """Write, read and delete in a bucket; notes in `done` which server that is."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client: Any = boto3.session.Session().client("s3", endpoint_url=place["endpoint_url"], config=config)
    done["host"] = urlsplit(client.meta.endpoint_url).hostname or ""
    try:
        found = socket.getaddrinfo(done["host"], None, type=socket.SOCK_STREAM)
    except OSError:
        raise OSError(f"{done['host']}: the name does not resolve") from None
    done["addresses"] = list(dict.fromkeys(str(one[4][0]) for one in found))
    bucket, _, prefix = place["url"].removeprefix("s3://").partition("/")

    def full(key: str) -> dict[str, str]:
        return {"Bucket": bucket, "Key": f"{prefix}/{key}".lstrip("/")}

    return (
        lambda key, data: client.put_object(**full(key), Body=data),
        lambda key: bytes(client.get_object(**full(key))["Body"].read()),
        lambda key: client.delete_object(**full(key)),
    )


def _folder(root: Path) -> _Calls:
    """Write, read and delete in a folder."""

    def put(key: str, data: bytes) -> None:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        with (root / key).open("wb") as stream:
            stream.write(data)
            os.fsync(stream.fileno())

    return put, lambda key: (root / key).read_bytes(), lambda key: (root / key).unlink()


def _same(data: bytes) -> None:
    if data != DATA:
        raise OSError("other bytes came back than were written")


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]

"""Storage as the nodes reach it: an object that this process writes, which all read, and one of each node's own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from heliostat.cluster.doctor.machine import Check
from heliostat.cluster.doctor.nodes.cluster import ANSWER_SECONDS, Missing, ask
from heliostat.cluster.doctor.nodes.judge import Verdict, together
from heliostat.cluster.doctor.nodes.storing import DATA, Place, Stored
from heliostat.infra.errors import StorageError
from heliostat.infra.storage.config import StorageConfig, is_s3
from heliostat.infra.storage.s3_errors import explain
from heliostat.infra.storage.store import open_store

_NAME = "storage"
_MARKER_SECONDS = 20.0


def check_storage(storage: StorageConfig, actors: Mapping[str, Any]) -> list[Check]:
    """Reads, writes and deletes from each node; deletes what it wrote."""
    folder = f"doctor/{uuid4().hex}"
    store = open_store(storage, deadline_seconds=_MARKER_SECONDS)
    try:
        store.write_bytes(f"{folder}/marker", DATA)
    except StorageError as error:
        return [Check(_NAME, "fail", f"this command: {error}", "nodes were not asked; correct this first")]
    try:
        calls = {
            name: actor.storage.remote(_place(storage, folder, number))
            for number, (name, actor) in enumerate(actors.items())
        }
        answers = ask(calls, ANSWER_SECONDS)
    finally:
        with suppress(StorageError):
            store.delete(folder)
    return together(_NAME, {name: verdict(storage, answer) for name, answer in answers.items()})


def _place(storage: StorageConfig, folder: str, number: int) -> Place:
    own, marker = f"{folder}/{number}", f"{folder}/marker"
    return {"url": storage.url, "endpoint_url": storage.endpoint_url, "marker": marker, "own": own}


def verdict(storage: StorageConfig, answer: Stored | Missing) -> Verdict:
    """What a node's attempt means."""
    if isinstance(answer, Missing):
        return "fail", answer.why, "the network to the storage from there"
    if not answer["operation"]:
        at = f" at {answer['host']} ({answer['addresses'][0]})" if answer["addresses"] else ""
        return "pass", f"{storage.url}{at} takes, returns and deletes an object", ""
    if not is_s3(storage.url):
        found = f"{storage.url}: cannot {answer['operation']}: {answer['message']}"
        return "fail", found, "use a bucket, or a folder that all nodes mount at the same place"
    return "fail", _explained(storage, answer), "credentials and network are the node's own: its environment, its role"


def _explained(storage: StorageConfig, answer: Stored) -> str:
    if not answer["code"]:
        return f"{storage.url}: cannot {answer['operation']}: {answer['message']}"
    error = ClientError({"Error": {"Code": answer["code"], "Message": answer["message"]}}, answer["operation"])
    return str(explain(error, answer["operation"], storage.url, storage.endpoint_url, 0))

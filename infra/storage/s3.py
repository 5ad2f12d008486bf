"""Storage in a bucket on S3, or any compatible server, through boto3.

No operation waits forever: each request has timeouts and a limited number of retries with backoff, and each operation
has an overall deadline.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from s3transfer.exceptions import RetriesExceededError
from s3transfer.manager import TransferManager
from s3transfer.subscribers import BaseSubscriber

from heliostat.infra.errors import ConfigError, NotFoundError
from heliostat.infra.storage import deadline
from heliostat.infra.storage.base import Entry, check_key
from heliostat.infra.storage.deadline import ContextExecutor, Deadline, DeadlineExceededError
from heliostat.infra.storage.measured import retried
from heliostat.infra.storage.s3_errors import (
    NO_SUCH_BUCKET,
    endpoint_key,
    explain,
    is_expired,
    is_missing,
    is_taken,
)

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

T = TypeVar("T")

_MIB = 1 << 20
_TRANSFER = TransferConfig(multipart_threshold=16 * _MIB, multipart_chunksize=16 * _MIB, max_concurrency=4)
_BROKEN_BODY = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_FAILURES = (
    ClientError,
    BotoCoreError,
    Boto3Error,
    RetriesExceededError,
    DeadlineExceededError,
    OSError,
    RecursionError,  # botocore follows a redirect by a request that is redirected itself
)
_DELETE_BATCH = 1000  # the most keys per DeleteObjects request


@dataclass(frozen=True)
class Limits:
    """Timeouts and retries of a store."""

    attempts: int = 8
    """Attempts per request."""
    connect_seconds: float = 5
    read_seconds: float = 30
    """Longest time without data from the server within one attempt."""
    deadline_seconds: float = 120
    """For a whole operation, retries included; transfers get more, according to `bytes_per_second`."""
    bytes_per_second: float = 2e6
    """The slowest transfer that is accepted."""


@dataclass(frozen=True)
class S3Store:
    """The keys below `s3://bucket/prefix`. Credentials and region come from boto3's default chain."""

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    limits: Limits = Limits()

    @property
    def url(self) -> str:
        """The root: `s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read_bytes(self, key: str) -> bytes:
        """All bytes of `key`."""
        return self._bounded("read", key, lambda client: self._get(client, key))

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Stores `data`; with `if_absent`, raises AlreadyExistsError if `key` exists."""
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}

        def call(client: S3Client) -> None:
            try:
                client.put_object(Bucket=self.bucket, Key=self._full(key), Body=data, **condition)
            except ClientError as error:
                # If a first attempt succeeded but its response was lost, the retry finds the object it wrote itself.
                retried = error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
                if not (is_taken(error) and retried and self._get(client, key) == data):
                    raise

        self._bounded("write", key, call)

    def upload(self, file: Path, key: str) -> None:
        """Stores a local file; large files are sent in parallel parts."""

        def start(manager: TransferManager, progress: BaseSubscriber) -> Any:
            return manager.upload(str(file), self.bucket, self._full(key), subscribers=[progress])

        self._transfer("write", key, start)

    def download(self, key: str, file: Path) -> None:
        """Downloads `key` to a local file, which is renamed once it is complete."""

        def start(manager: TransferManager, progress: BaseSubscriber) -> Any:
            file.parent.mkdir(parents=True, exist_ok=True)
            return manager.download(self.bucket, self._full(key), str(file), subscribers=[progress])

        self._transfer("read", key, start)

    def exists(self, key: str) -> bool:
        """Whether `key` is stored."""

        def call(client: S3Client) -> None:
            try:
                client.head_object(Bucket=self.bucket, Key=self._full(key))
            except ClientError as error:
                if is_missing(error) and _lacks_bucket(client, self.bucket):
                    raise NO_SUCH_BUCKET from error
                raise

        try:
            self._bounded("look for", key, call)
        except NotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> list[Entry]:
        """All keys under `prefix`, sorted."""
        root = len(self.prefix) + 1 if self.prefix else 0
        found = self._bounded("list", prefix, lambda client: list(self._pages(client, prefix)))
        entries = [Entry(key[root:], size, tag, at) for key, size, tag, at in found if not key.endswith("/")]
        return sorted(entries, key=lambda entry: entry.key)

    def delete(self, prefix: str) -> None:
        """Deletes `prefix` and all keys under it, a thousand per request."""
        check_key(prefix)

        def call(client: S3Client) -> None:
            keys = [self._full(prefix), *(key for key, *_ in self._pages(client, prefix))]
            for start in range(0, len(keys), _DELETE_BATCH):
                batch: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in keys[start:][:_DELETE_BATCH]]
                answer = client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})
                for error in answer.get("Errors", []):
                    code, message = error.get("Code", ""), error.get("Message", "")
                    raise ClientError({"Error": {"Code": code, "Message": message}}, "DeleteObjects")

        self._bounded("delete", prefix, call)

    def __getstate__(self) -> dict[str, Any]:
        """The pickled state: everything except the client."""
        return {name: value for name, value in self.__dict__.items() if name != "_made"}

    def _full(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, check_key(key, prefix=True)) if part)

    def _get(self, client: S3Client, key: str) -> bytes:
        """Retries when a response body breaks off, which botocore does not."""
        for _ in range(self.limits.attempts - 1):
            try:
                return client.get_object(Bucket=self.bucket, Key=self._full(key))["Body"].read()
            except _BROKEN_BODY:
                retried()
        return client.get_object(Bucket=self.bucket, Key=self._full(key))["Body"].read()

    def _pages(self, client: S3Client, prefix: str) -> Iterator[tuple[str, int, str, float]]:
        """(full key, size in bytes, ETag, Unix time of the last write) of all in the folder `prefix`, page by page."""
        folder = self._full(prefix)
        lister = client.get_paginator("list_objects_v2")
        for page in lister.paginate(Bucket=self.bucket, Prefix=f"{folder}/" if folder else ""):
            for item in page.get("Contents", []):
                yield item["Key"], item["Size"], item.get("ETag", ""), item["LastModified"].timestamp()

    def _transfer(self, operation: str, key: str, start: Callable[[TransferManager, BaseSubscriber], Any]) -> None:
        def call(client: S3Client) -> None:
            with TransferManager(client, _TRANSFER, executor_cls=ContextExecutor) as manager:
                start(manager, _Progress(deadline.current())).result()

        self._bounded(operation, key, call)

    def _bounded(self, operation: str, key: str, call: Callable[[S3Client], T]) -> T:
        """Returns what `call` does, within the deadline; turns every failure into a StorageError."""
        name = f"s3://{self.bucket}/{self._full(key)}"
        limit = Deadline(self.limits.deadline_seconds, self.limits.bytes_per_second)
        try:
            return deadline.bounded(lambda: self._renewing(call), limit)
        except _FAILURES as error:
            seconds = limit.elapsed_seconds()
            raise explain(error, operation, name, self.endpoint_url, seconds) from error

    def _renewing(self, call: Callable[[S3Client], T]) -> T:
        """Calls again with a new session if the credentials have expired: they may have been renewed."""
        try:
            return call(self._client())
        except ClientError as error:
            if not is_expired(error):
                raise
            self.__dict__.pop("_made", None)
            return call(self._client())

    def _client(self) -> S3Client:
        """The client of this process; clients can neither be pickled nor survive a fork."""
        process, client = self.__dict__.get("_made", (0, None))
        if process != os.getpid():
            client = _make_client(self.endpoint_url, self.limits)
            self.__dict__["_made"] = (os.getpid(), client)
        return client


class _Progress(BaseSubscriber):
    """s3transfer's progress callback: extends the deadline by each transferred chunk."""

    def __init__(self, limit: Deadline) -> None:
        self._limit = limit

    def on_progress(self, future: Any, bytes_transferred: int, **_: Any) -> None:
        self._limit.moved(bytes_transferred)


def _before_attempt(request: AWSRequest, operation_name: str, **_: Any) -> None:
    """Called before each attempt of a request; cleaning up a broken upload is allowed after the deadline too."""
    if request.context["retries"]["attempt"] > 1:
        retried()
    if operation_name != "AbortMultipartUpload":
        deadline.current().check()


def _lacks_bucket(client: S3Client, bucket: str) -> bool:
    """Whether the bucket is missing: HEAD responses do not tell a missing key from a missing bucket."""
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        return is_missing(error)
    return False


def _make_client(endpoint_url: str | None, limits: Limits) -> S3Client:
    """A client with these limits; raises ConfigError for an endpoint that is no URL."""
    config = Config(
        retries={"mode": "standard", "total_max_attempts": limits.attempts},
        connect_timeout=limits.connect_seconds,
        read_timeout=limits.read_seconds,
        max_pool_connections=32,
        # Bundles have their own SHA-256 sums, and some S3-compatible servers refuse checksum trailers.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        client = boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)
    except ValueError as error:
        if isinstance(error, BotoCoreError):
            raise
        raise ConfigError(
            f"{endpoint_key(endpoint_url)}: {error}; http://host:port or https://host is allowed"
        ) from error
    client.meta.events.register("request-created.s3", _before_attempt)
    return client

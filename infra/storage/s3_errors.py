"""Explains S3 failures to the user."""

from __future__ import annotations

import os

from botocore.exceptions import (
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from s3transfer.exceptions import RetriesExceededError

from heliostat.infra.errors import AlreadyExistsError, NotFoundError, StorageError
from heliostat.infra.storage.deadline import DeadlineExceededError

_MISSING = ("NoSuchKey", "NotFound", "404")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
_TAKEN = ("PreconditionFailed", "412")

_DENIED = "access denied: let these credentials use the bucket, or give others (AWS_ACCESS_KEY_ID, AWS_PROFILE)"
_REGION = "the bucket is in another region: set AWS_REGION to it"
_REDIRECTED = "the server sends every request to another address: set storage.endpoint_url to the one that answers"
_BUSY = "the server is overloaded: try again later"
_MEANING = {
    **dict.fromkeys(("AccessDenied", "Forbidden", "AllAccessDisabled", "403"), _DENIED),
    **dict.fromkeys(("PermanentRedirect", "AuthorizationHeaderMalformed", "301"), _REGION),
    **dict.fromkeys(("302", "303", "307", "308", "TemporaryRedirect"), _REDIRECTED),
    **dict.fromkeys(("SlowDown", "ServiceUnavailable", "503"), _BUSY),
    **dict.fromkeys(_EXPIRED, "the credentials have expired: renew them"),
    **dict.fromkeys(_TAKEN, "it exists already and is never overwritten"),
    "ConditionalRequestConflict": "another process is writing it now",
    "NoSuchBucket": "no such bucket: make it, or correct storage.url",
    "InvalidBucketName": "not a name that a bucket can have: correct storage.url",
    "InvalidAccessKeyId": "the server does not know the access key: check AWS_ACCESS_KEY_ID and the endpoint",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
}

NO_SUCH_BUCKET = ClientError({"Error": {"Code": "NoSuchBucket"}}, "HeadBucket")


def is_missing(error: ClientError) -> bool:
    """Whether the object does not exist."""
    return _code(error) in _MISSING


def is_expired(error: ClientError) -> bool:
    """Whether the credentials have expired."""
    return _code(error) in _EXPIRED


def is_taken(error: ClientError) -> bool:
    """Whether a conditional write failed because its key exists."""
    return _code(error) in _TAKEN


def explain(error: Exception, operation: str, name: str, endpoint_url: str | None, seconds: float) -> StorageError:
    """One line with the operation, the object (`s3://bucket/key`), the cause and what to do.

    `seconds` is how long it was tried.
    """
    if isinstance(error, RetriesExceededError) and isinstance(error.last_exception, Exception):
        error = error.last_exception
    if isinstance(error, ClientError) and is_missing(error):
        return NotFoundError(f"{name}: cannot {operation}: no such object")
    if isinstance(error, DeadlineExceededError):
        meaning = f"given up after {seconds:.0f} s: the server or the network is too slow"
    else:
        meaning = _meaning(error, endpoint_url)
    kind = AlreadyExistsError if isinstance(error, ClientError) and is_taken(error) else StorageError
    return kind(f"{name}: cannot {operation}: {' '.join(meaning.split())}")


def _code(error: ClientError) -> str:
    """The server's error code, such as `NoSuchKey`, or the HTTP status if the response has no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _meaning(error: Exception, endpoint_url: str | None) -> str:
    if isinstance(error, ClientError):
        message = error.response.get("Error", {}).get("Message", "")
        return _MEANING.get(_code(error)) or f"the server answers {_code(error)}: {message}"
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        return "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, (ConnectionError, HTTPClientError)):
        what = f"{_endpoint(endpoint_url)} does not answer ({type(error).__name__})"
        return f"{what}: check storage.endpoint_url and the network"
    if isinstance(error, RecursionError):
        return _REDIRECTED
    if isinstance(error, OSError):
        return f"{error.filename or 'connection'}: {error.strerror or error}"
    return str(error)


def endpoint_key(endpoint_url: str | None) -> str:
    """The key or variable that the address of the server comes from."""
    variables = (name for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(name))
    return "storage.endpoint_url" if endpoint_url else next(variables, "endpoint_url in AWS's configuration file")


def _endpoint(endpoint_url: str | None) -> str:
    set_outside = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return endpoint_url or set_outside or "the AWS endpoint"

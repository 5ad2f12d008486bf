"""The `storage` section of a spec."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.errors import ConfigError

DEFAULT_FOLDER = "heliostat-data"
Kind = Literal["local", "s3"]


def is_s3(url: str) -> bool:
    """Whether `url` is a bucket rather than a local path."""
    return url.startswith("s3://")


def check_url(url: str) -> str:
    """The URL of a bucket without a trailing slash, or the absolute path of a folder; raises ValueError for others."""
    if is_s3(url):
        if not re.match(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/|$)", url):
            raise ValueError("a bucket is needed: s3://bucket/prefix, the bucket in a-z, 0-9, dots and dashes")
        found = url.rstrip("/")
    elif "://" in url or url.startswith("file:") or not url.strip():
        raise ValueError("s3://bucket/prefix or a local path is allowed")
    else:
        found = _absolute(url)
    if any(sign in found for sign in "%?\0"):
        # MLflow puts it into addresses, of its database and of artifacts, where these have another meaning.
        raise ValueError(f"a place without % and ? is needed, and this is {found!r}")
    return found


def _absolute(url: str) -> str:
    """The absolute path, because a Ray worker has another working directory than the command that started it."""
    try:
        return str(Path(url).expanduser().absolute())
    except RuntimeError as error:  # `~` of a user without a home folder
        raise ValueError(f"a path that exists is needed: {error}") from None


def _from_environment() -> str:
    """HELIOSTAT_STORAGE, or the default folder; raises ConfigError, which names the variable."""
    given = os.environ.get("HELIOSTAT_STORAGE")
    key, url = ("HELIOSTAT_STORAGE", given) if given else ("storage.url", DEFAULT_FOLDER)
    try:
        return check_url(url)
    except ValueError as error:
        raise ConfigError(f"{key}: {url!r} given; {error}") from None


class StorageConfig(StrictModel):
    """The `storage` section of a spec. Credentials are never in it: boto3 finds them where it always does."""

    url: str = Field(default_factory=_from_environment)
    """`s3://bucket/prefix` or a local path; HELIOSTAT_STORAGE where left out."""
    endpoint_url: str | None = None
    """Address of an S3-compatible server; AWS_ENDPOINT_URL_S3 where left out, and AWS where neither is."""

    @property
    def kind(self) -> Kind:
        """Whether it is a folder or a bucket."""
        return "s3" if is_s3(self.url) else "local"

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        return check_url(url)

    @field_validator("endpoint_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"https?://[^/\s]", url):
            raise ValueError("http://host:port or https://host is allowed")
        return url

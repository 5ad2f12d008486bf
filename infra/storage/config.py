"""The `storage` section of a spec."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import Field, field_validator

from heliostat.infra.config.strict import StrictModel

DEFAULT_FOLDER = "heliostat-data"


def is_s3(url: str) -> bool:
    """Whether `url` is a bucket rather than a local path."""
    return url.startswith("s3://")


class StorageConfig(StrictModel):
    """The `storage` section of a spec. Credentials are never in it: boto3 finds them where it always does."""

    url: str = Field(
        default_factory=lambda: os.environ.get("HELIOSTAT_STORAGE") or DEFAULT_FOLDER, validate_default=True
    )
    """`s3://bucket/prefix` or a local path; HELIOSTAT_STORAGE where left out."""
    endpoint_url: str | None = None
    """Address of an S3-compatible server; AWS_ENDPOINT_URL_S3 where left out, and AWS where neither is."""

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        if is_s3(url):
            if not re.match(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/|$)", url):
                raise ValueError("a bucket is needed: s3://bucket/prefix, the bucket in a-z, 0-9, dots and dashes")
            return url.rstrip("/")
        if "://" in url or not url.strip():
            raise ValueError("s3://bucket/prefix or a local path is allowed")
        # Absolute, because a Ray worker has another working directory than the command that started it.
        return str(Path(url).expanduser().absolute())

    @field_validator("endpoint_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"https?://[^/\s]", url):
            raise ValueError("http://host:port or https://host is allowed")
        return url

"""A server that accepts connections and never answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that is silent for as long as the block takes."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:  # the system itself accepts
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def silent_mlflow(patch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an MLflow server that never answers; the environment names it, with a time limit of a second."""
    patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with silent_server() as url:
        patch.setenv("MLFLOW_TRACKING_URI", url)
        yield url

"""What a replica does as it starts, whatever its model."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest

from heliostat.serve.replica import loading
from heliostat.serve.replica.replica import Replica


def test_collections_during_requests_leave_out_what_was_there_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: Any) -> tuple[Any, Any]:
        return SimpleNamespace(close=lambda: None), None

    monkeypatch.setattr(loading, "start", start)
    replica = Replica({"name": "a", "url": "/nowhere", "digest": "0", "version": "1", "config": {"auth": "none"}})
    heap = [[] for _ in range(100_000)]  # type: ignore[var-annotated]
    try:
        asyncio.run(replica.__serve_build_asgi_app__())
        assert len(gc.get_objects()) < len(heap)
    finally:
        gc.unfreeze()

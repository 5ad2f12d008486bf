"""Fetches and verifies a base model and its adapters."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from heliostat.infra.registry.bundle import fetch_directory
from heliostat.infra.registry.fetching import BASE, fetch_parts
from heliostat.infra.registry.published import ADAPTER, WEIGHTS, PublishedModel, read_description
from heliostat.infra.scratch import scratch
from heliostat.serve.models.adapter_check import check_adapters, named
from heliostat.serve.models.adapter_settings import MATRICES, SETTINGS
from heliostat.serve.models.bundles import FetchedModel, locate

if TYPE_CHECKING:
    from heliostat.serve.args import AppArgs


@contextmanager
def fetched_together(args: AppArgs) -> Iterator[FetchedModel]:
    """The base model and all adapters, verified, in a temporary folder. Raises what `check_adapters` raises.

    If the served model is itself an adapter, it is not merged: it is served as an adapter under its own name.
    """
    check_adapters(args)
    endpoint_url = args.storage.endpoint_url
    with scratch("model") as temporary:
        own, folders = temporary / "own", {}
        adapter_descriptions: dict[str, PublishedModel] = {}
        description = fetch_parts(*locate(args.url, endpoint_url), own, args.digest, endpoint_url)
        if description.base:
            folders[args.name] = own / ADAPTER
            _copy_tokenizer(own / ADAPTER, own / BASE)
        for at, (name, one) in enumerate(args.adapters.items()):
            folder = temporary / f"adapter-{at}"
            with named(name):
                fetch_directory(*locate(one.url, endpoint_url), folder, digest=one.digest)
                folders[name], adapter_descriptions[name] = folder / ADAPTER, read_description(folder)
        yield FetchedModel(own / (BASE if description.base else WEIGHTS), description, folders, adapter_descriptions)


def _copy_tokenizer(adapter: Path, base: Path) -> None:
    """Copies the tokenizer: base models are stored without one, each adapter has it."""
    for file in adapter.iterdir():
        if file.name not in (SETTINGS, MATRICES):
            shutil.copy(file, base / file.name)

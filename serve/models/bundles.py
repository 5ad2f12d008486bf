"""Fetches and verifies published models for a replica."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from heliostat.infra.drift.reference import Reference, read_reference
from heliostat.infra.errors import IntegrityError, ModelError, NotFoundError
from heliostat.infra.registry import bundle
from heliostat.infra.registry.fetching import fetch_model
from heliostat.infra.registry.published import DESCRIPTION, WEIGHTS, PublishedModel, parse_description
from heliostat.infra.scratch import scratch
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.store import open_store

TASKS: dict[str, tuple[str | None, ...]] = {
    "text-classification": (None, "text"),
    "causal-lm": (None,),
    "tabular-classification": ("table",),
    "image-classification": ("image",),
    "image-generation": ("noise",),
}
"""Served tasks, each with the allowed kinds of input: None for a Hugging Face model."""


@dataclass(frozen=True)
class FetchedModel:
    """The verified files of a published model."""

    folder: Path
    """A Hugging Face model folder, or that of an exported program."""
    description: PublishedModel
    adapters: dict[str, Path] = field(default_factory=dict)
    """Folders of peft adapters by served name; may include the model's own name if it is an adapter."""
    adapter_descriptions: dict[str, PublishedModel] = field(default_factory=dict)
    """Descriptions of the adapters served with the model."""
    reference: Reference | None = None
    """What drift is measured against; None for a model that was published without."""


def locate(url: str, endpoint_url: str | None) -> tuple[Store, str]:
    """The store and the prefix of the bundle at `url`."""
    root, _, prefix = url.rstrip("/").rpartition("/")
    return open_store(root, endpoint_url), prefix


def check_manifest(url: str, digest: str, endpoint_url: str | None) -> bundle.Manifest:
    """The manifest at `url`; raises ModelError if there is no bundle, IntegrityError if its digest differs.

    Reads only the manifest, so that a command can refuse before it starts anything.
    """
    store, prefix = locate(url, endpoint_url)
    try:
        manifest = bundle.read_manifest(store, prefix)
    except NotFoundError as error:
        raise ModelError(f"{url}: no published model here ({error}); serve takes published models only") from None
    if manifest.digest != digest:
        raise IntegrityError(f"{url}: its manifest has SHA-256 {manifest.digest}, and {digest} is expected")
    return manifest


def describe(url: str, endpoint_url: str | None) -> PublishedModel:
    """The description of the bundle at `url`, not verified: for display only."""
    store, prefix = locate(url, endpoint_url)
    return parse_description(store.read_bytes(f"{prefix}/{DESCRIPTION}"), source=f"{url}/{DESCRIPTION}")


@contextmanager
def fetched(url: str, digest: str, endpoint_url: str | None) -> Iterator[FetchedModel]:
    """The bundle at `url`, verified, in a temporary folder.

    Raises ModelError if the bundle is missing, cannot be served or was not published, IntegrityError if a byte differs
    from what was published.
    """
    check_manifest(url, digest, endpoint_url)
    store, prefix = locate(url, endpoint_url)
    with scratch("model") as temporary:
        folder = temporary / "bundle"
        description = fetch_model(store, prefix, folder, digest, endpoint_url)
        check_task(description, url)
        yield FetchedModel(folder / WEIGHTS, description, reference=read_reference(folder))


def check_task(description: PublishedModel, url: str) -> None:
    """Raises ModelError if the model's task, or its kind of input, cannot be served."""
    if description.task not in TASKS:
        raise ModelError(f"{url}: task {description.task!r} cannot be served; {', '.join(TASKS)} can")
    kind = description.inputs.kind if description.inputs else None
    if kind not in TASKS[description.task]:
        raise ModelError(f"{url}: a model for {description.task} with the inputs {kind!r} cannot be served")

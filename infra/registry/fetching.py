"""Fetches published models from storage: verified, and with adapters merged into their base model.

A published adapter names the bundle of its base model, which several adapters share.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from heliostat.infra.registry import bundle
from heliostat.infra.registry.published import ADAPTER, WEIGHTS, PublishedModel, read_description
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.store import open_store

BASE = "base"
"""Folder next to the adapter that the base model is fetched into."""


def fetch_model(store: Store, prefix: str, folder: Path, digest: str, endpoint_url: str | None) -> PublishedModel:
    """Fetches the bundle under `prefix` into `folder`, so that its `model/` can be loaded; returns its description.

    Raises NotFoundError if the bundle or that of its base model does not exist, IntegrityError if a byte differs from
    what was published, and ModelError if the bundle is not a published model.
    """
    described = fetch_parts(store, prefix, folder, digest, endpoint_url)
    if described.base:
        merge(folder / BASE, folder / ADAPTER, folder / WEIGHTS)
        shutil.rmtree(folder / BASE)
    return described


def fetch_parts(store: Store, prefix: str, folder: Path, digest: str, endpoint_url: str | None) -> PublishedModel:
    """Like `fetch_model`, but without merging: an adapter stays in `adapter/`, with its base model in `base/`."""
    bundle.fetch_directory(store, prefix, folder, digest=digest)
    described = read_description(folder)
    if described.base:
        stored = open_store(described.base.url, endpoint_url)
        bundle.fetch_directory(stored, "", folder / BASE, digest=described.base.digest)
    return described


def merge(base: Path, adapter: Path, folder: Path) -> None:
    """Merges the adapter into the decoder in `base`, and saves model and tokenizer as a Hugging Face model folder."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(folder)  # type: ignore[operator]
    AutoTokenizer.from_pretrained(adapter).save_pretrained(folder)

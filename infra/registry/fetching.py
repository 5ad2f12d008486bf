"""A published model from storage as files that a process can load: verified, and whole where an adapter was published.

What is published as an adapter names the bundle of its base model, which all adapters beside it share.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from heliostat.infra.registry import bundle
from heliostat.infra.registry.published import ADAPTER, WEIGHTS, PublishedModel, read_description
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.store import open_store

BASE = "base"
"""The folder beside an adapter that holds its base model once both are fetched."""


def fetch_model(store: Store, prefix: str, folder: Path, digest: str, endpoint_url: str | None) -> PublishedModel:
    """Puts the bundle under `prefix` into `folder`, whose `model/` can be loaded then; returns its description.

    Raises NotFoundError where there is no bundle, that of its base model included, IntegrityError where a byte differs
    from what was published, and ModelError where it holds no published model.
    """
    described = fetch_parts(store, prefix, folder, digest, endpoint_url)
    if described.base:
        merge(folder / BASE, folder / ADAPTER, folder / WEIGHTS)
        shutil.rmtree(folder / BASE)
    return described


def fetch_parts(store: Store, prefix: str, folder: Path, digest: str, endpoint_url: str | None) -> PublishedModel:
    """As `fetch_model`, but an adapter stays in `adapter/`, beside its base model in `base/`."""
    bundle.fetch_directory(store, prefix, folder, digest=digest)
    described = read_description(folder)
    if described.base:
        stored = open_store(described.base.url, endpoint_url)
        bundle.fetch_directory(stored, "", folder / BASE, digest=described.base.digest)
    return described


def merge(base: Path, adapter: Path, folder: Path) -> None:
    """The decoder in `base` with the adapter merged in, and its tokenizer: a Hugging Face model folder."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(folder)  # type: ignore[operator]
    AutoTokenizer.from_pretrained(adapter).save_pretrained(folder)

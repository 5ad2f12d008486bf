"""A published model from storage as files that a process can load: verified, and whole where an adapter was published.

What is published as an adapter names the bundle of its base model, which all adapters beside it share.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from heliostat.infra import bundle
from heliostat.infra.published import ADAPTER, WEIGHTS, PublishedModel, read_description
from heliostat.infra.storage import Store, open_store


def fetch_model(store: Store, prefix: str, folder: Path, digest: str, endpoint_url: str | None) -> PublishedModel:
    """Puts the bundle under `prefix` into `folder`, whose `model/` can be loaded then; returns its description.

    Raises NotFoundError where there is no bundle, that of its base model included, IntegrityError where a byte differs
    from what was published, and ModelError where it holds no published model.
    """
    bundle.fetch_directory(store, prefix, folder, digest=digest)
    described = read_description(folder)
    if described.base:
        base = folder / "base"
        bundle.fetch_directory(open_store(described.base.url, endpoint_url), "", base, digest=described.base.digest)
        merge(base, folder / ADAPTER, folder / WEIGHTS)
        shutil.rmtree(base)
    return described


def merge(base: Path, adapter: Path, folder: Path) -> None:
    """The decoder in `base` with the adapter merged in, and its tokenizer: a Hugging Face model folder."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(folder)  # type: ignore[operator]
    AutoTokenizer.from_pretrained(adapter).save_pretrained(folder)

"""Tiny random adapters on a tiny base model, published as training does it."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from heliostat.infra.registry import bundle
from heliostat.infra.registry.published import ADAPTER, PublishedModel, write_description
from heliostat.infra.storage.store import open_store
from heliostat.train.publish_formats import AdapterOnly

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write_adapter(base: Path, folder: Path, seed: int, rank: int = 4, size: float = 0.1, **settings: Any) -> None:
    """An adapter, as peft stores it, that changes what the model in `base` says; with the tokenizer.

    `size` is the standard deviation of its second matrices.
    """
    torch.manual_seed(seed)
    values = {"r": rank, "lora_alpha": 16, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **settings}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**values))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=size)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def greedy(base: Path, adapter: Path | None, prompt: str, tokens: int, *, special: bool = True) -> str:
    """What `generate` says with peft's own adapter, or without one."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    model = PeftModel.from_pretrained(model, str(adapter)) if adapter else model
    words = AutoTokenizer.from_pretrained(base)
    ids = words(prompt, return_tensors="pt", add_special_tokens=special).input_ids
    with torch.inference_mode():
        out = model.eval().generate(input_ids=ids, max_new_tokens=tokens, do_sample=False)
    return str(words.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def publish_adapter(
    storage: Path, name: str, base: Path, seed: int, *, run: str = "r1", task: str = "causal-lm", **settings: Any
) -> tuple[str, str]:
    """Publishes an adapter of the model in `base`; returns the url of its bundle and its digest."""
    folder = storage.parent / f"{name}-{run}"
    write_adapter(base, folder / ADAPTER, seed, **settings)
    text = greedy(base, folder / ADAPTER, "the film", 12, special=False)
    description = PublishedModel(
        name=name, task=task, max_length=16, base_model="tiny", run_id=run, data_fingerprint="0", metrics={},
        heliostat_version="0", created=datetime.now(timezone.utc),
        base=AdapterOnly().store_base(open_store(str(storage)), base),
        probe={"input": {"prompt": "the film", "max_tokens": 12}, "output": {"text": text}},
    )  # fmt: skip
    write_description(folder, description)
    return publish_folder(storage, name, folder, run)


def publish_folder(storage: Path, name: str, folder: Path, run: str = "r1") -> tuple[str, str]:
    """Publishes a folder as it is."""
    prefix = f"models/{name}/{run}"
    manifest = bundle.publish_directory(open_store(str(storage)), prefix, folder)
    return f"{storage}/{prefix}", manifest.digest


def change_settings(folder: Path, **settings: Any) -> None:
    """Writes other values into the `adapter_config.json` in `folder`."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))

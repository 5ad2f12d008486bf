"""Which keys of the spec's `data` section apply to which task; a key without effect is rejected."""

from __future__ import annotations

from typing import Any

from heliostat.train.data.config import DataConfig, is_chat

TABLE, IMAGE, TEXT = "tabular-classification", "image-classification", "text-classification"
GENERATION, LANGUAGE = "image-generation", "causal-lm"
TASKS = {
    "columns.features": (TABLE,),
    "columns.categories": (TABLE,),
    "columns.image": (IMAGE, GENERATION),
    "columns.text": (TEXT, LANGUAGE),
    "columns.messages": (LANGUAGE,),
    "columns.tools": (LANGUAGE,),
    "columns.prompt": (LANGUAGE,),
    "images": (IMAGE, GENERATION),
    "augment": (IMAGE,),
    "label_names": (TABLE, IMAGE, TEXT, GENERATION),
    "max_length": (TEXT, LANGUAGE),
    "max_unknown": (TEXT, LANGUAGE),
    "overflow": (TEXT, LANGUAGE),
    "stride": (LANGUAGE,),
    "vocabulary": (TEXT, LANGUAGE),
}


def check_data(data: DataConfig, task: str, takes_chats: bool) -> None:
    """Raises ValueError for a key that differs from its default and does not apply to `task`.

    `takes_chats` says whether the model can learn from chats: a learned tokenizer has no chat template.
    """
    usual = DataConfig(source=data.source)
    for key, tasks in TASKS.items():
        if task not in tasks and _value(data, key) != _value(usual, key):
            raise ValueError(f"data.{key}: given, and task is {task}; it is for {' and '.join(tasks)}")
    if not takes_chats and (data.columns.messages or data.columns.prompt):
        raise ValueError("data.columns: a chat given; model.decoder learns from plain texts, data.columns.text")
    if (data.overflow == "split" or data.stride) and (task != LANGUAGE or is_chat(data.columns)):
        raise ValueError("data.overflow: split given; it is for causal-lm on plain texts, data.columns.text")
    if data.missing == "fill" and task != TABLE:
        raise ValueError(f"data.missing: fill given, and task is {task}; fail and drop are allowed")


def _value(data: DataConfig, key: str) -> Any:
    found: Any = data
    for part in key.split("."):
        found = getattr(found, part)
    return found

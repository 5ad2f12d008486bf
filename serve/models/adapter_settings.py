"""Parses peft's `adapter_config.json`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from heliostat.infra.errors import ModelError

SETTINGS, MATRICES = "adapter_config.json", "adapter_model.safetensors"
"""File names of a peft adapter."""
NOT_PLAIN = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern",
    "layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens", "arrow_config",
    "kasa_config", "velora_config", "monteclora_config",
)  # fmt: skip
"""Options of peft with which a layer is more than the product of two LoRA matrices."""

CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
"""Initializations of peft that also change the base model's weights, so that the published base would not fit."""


@dataclass(frozen=True)
class Settings:
    """Settings of an adapter that its matrices do not contain."""

    rank: int
    scale: float
    """Factor of the product of the two matrices."""


def parse_settings(data: bytes, source: str) -> Settings:
    """Parses an `adapter_config.json`; raises ModelError with `source` and the first unsupported key."""
    given: dict[str, Any] = json.loads(data)
    if given.get("peft_type") != "LORA":
        raise ModelError(f"{source}: peft_type {given.get('peft_type')!r}; LORA is served")
    wrong = [key for key in NOT_PLAIN if given.get(key)] + ["bias"] * (given.get("bias", "none") != "none")
    if str(given.get("init_lora_weights")).lower().startswith(CHANGES_BASE):
        wrong.append("init_lora_weights")
    if wrong:
        raise ModelError(f"{source}: {wrong[0]} {given[wrong[0]]!r}; adapters that are served by name are plain LoRA")
    rank = int(given["r"])
    return Settings(rank, given["lora_alpha"] / (math.sqrt(rank) if given.get("use_rslora") else rank))

"""Which adapters an endpoint has, and what peft's own file says of one."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from heliostat.infra.errors import ModelError

SETTINGS, MATRICES = "adapter_config.json", "adapter_model.safetensors"
"""What peft calls the files of an adapter."""
NOT_PLAIN = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern",
    "layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens", "arrow_config",
    "kasa_config", "velora_config", "monteclora_config",
)  # fmt: skip
"""Keys of peft that make another thing of LoRA than the product of two matrices for each layer."""

CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
"""How matrices may have begun of which a part is in the base model's weights, which are then no longer the base's."""


@dataclass(frozen=True)
class Settings:
    """What has to be known of an adapter besides its matrices."""

    rank: int
    scale: float
    """What the product of the two matrices is multiplied by."""


def parse_settings(data: bytes, source: str) -> Settings:
    """The settings in an `adapter_config.json`; ModelError names `source` and the first key that is not served."""
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

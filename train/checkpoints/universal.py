"""Converts checkpoints between shardings, with DeepSpeed's universal format.

DeepSpeed's shards fit only the world size and ZeRO stage that wrote them. In its universal format (Lian et al. 2024)
each parameter and its Adam moments are complete, in files of their own, and can be loaded with any sharding.
"""

from __future__ import annotations

import contextlib
import io
from argparse import Namespace
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

MODEL_FILES = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")
"""DeepSpeed's names of the file with the counters: below stage 3, and at stage 3."""


def convert(shards: Path, target: Path) -> None:
    """Converts the shards of all ranks in `shards` (stage 1, 2 or 3) to a universal checkpoint in `target`."""
    from deepspeed.checkpoint import ds_to_universal

    options = Namespace(
        input_folder=str(shards),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    target.mkdir(parents=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)
    _unite(target)


def _unite(folder: Path) -> None:
    """Makes a checkpoint from stage 3 loadable below stage 3, and the other way round."""
    import deepspeed

    below_3, at_3 = (folder / name for name in MODEL_FILES)
    file = folder / "zero" / "optimizer_state.pt"
    state = torch.load(file, weights_only=False)
    if at_3.exists():
        below_3.hardlink_to(at_3)
        step = state["optimizer_state_dict"]["state"][0]["step"]
        _as_below_3(folder / "zero", step)
    else:
        at_3.hardlink_to(below_3)
        step = torch.load(next((folder / "zero").rglob("step.pt")), weights_only=False)
    state.setdefault("ds_version", deepspeed.__version__)
    state["optimizer_state_dict"] = {"state": {0: {"step": step}}, "param_groups": state["param_groups"]}
    torch.save(state, file)


def _as_below_3(folder: Path, step: Any) -> None:
    """Wraps stage 3's bare tensors as the lower stages expect, and adds the step count to each parameter."""
    for parameter in (file.parent for file in folder.rglob("exp_avg.pt")):
        for file in parameter.glob("*.pt"):
            torch.save({"param": torch.load(file), "cat_dim": 0}, file)
        torch.save(step, parameter / "step.pt")


def load(engine: Any, folder: Path, tag: str, strict: bool) -> Any:
    """Loads the universal checkpoint `tag` in `folder` into the engine; returns what DeepSpeed's loader returns.

    With `strict`, it must hold the whole model.

    Works around two faults of DeepSpeed: it gives every parameter group the settings of the first (so biases get the
    weight decay of matrices), and at stage 3 all groups share one step count, which each group then increments.
    """
    settings = [{k: v for k, v in group.items() if k != "params"} for group in engine.optimizer.param_groups]
    before = engine._config.load_universal_checkpoint
    engine._config.load_universal_checkpoint = True
    try:
        return engine.load_checkpoint(str(folder), tag=tag, load_module_strict=strict)
    finally:
        engine._config.load_universal_checkpoint = before
        for group, own in zip(engine.optimizer.param_groups, settings, strict=True):
            group.update(own)
        for state in engine.optimizer.optimizer.state.values():
            state["step"] = deepcopy(state["step"])

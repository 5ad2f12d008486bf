"""Snapshots are what DeepSpeed would have written, and stay so."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from heliostat.train.checkpoints import snapshot


def engine_of(state: Any, path: Path) -> Any:
    writer = SimpleNamespace()
    return SimpleNamespace(checkpoint_engine=writer, save_checkpoint=lambda: writer.save(state_dict=state, path=path))


def written(state: Any, path: Path, between: Any = lambda: None) -> Any:
    engine = engine_of(state, path)
    with snapshot.taken(engine) as files:
        engine.save_checkpoint()
    between()
    snapshot.write(files)
    assert not files
    assert not vars(engine.checkpoint_engine)
    return torch.load(path, weights_only=False)


def test_what_changes_after_it_was_taken_is_not_in_it(tmp_path: Path) -> None:
    flat = torch.arange(4.0, requires_grad=True)
    groups = [{"lr": 1.0, "params": [0]}]
    state = {"module": OrderedDict(head=flat[1:3]), "groups": groups, "pair": (flat, None)}

    def train() -> None:
        flat.data += 1
        groups[0]["lr"] = 2.0

    found = written(state, tmp_path / "state.pt", train)
    assert isinstance(found["module"], OrderedDict)
    assert found["module"]["head"].tolist() == [1, 2]
    assert found["groups"] == [{"lr": 1.0, "params": [0]}]
    assert found["pair"][0].tolist() == [0, 1, 2, 3]
    assert not found["pair"][0].requires_grad


def test_a_view_takes_no_more_room_than_it_shows_and_tied_tensors_stay_one(tmp_path: Path) -> None:
    whole = torch.zeros(100_000)
    found = written({"view": whole[:10], "embedding": whole[10:20], "head": whole[10:20]}, tmp_path / "state.pt")
    assert found["embedding"].data_ptr() == found["head"].data_ptr()
    assert found["view"].data_ptr() != found["head"].data_ptr()
    assert (tmp_path / "state.pt").stat().st_size < 10_000

"""The parts of a packed row that workers share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heliostat.train.data.packing import IGNORED, pack
from heliostat.train.parallel.ulysses import part


def row() -> dict[str, torch.Tensor]:
    ids = [np.arange(1, 12), np.arange(20, 29)]
    return pack(ids, ids)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_the_parts_are_the_row_filled_up_with_what_nothing_sees(size: int) -> None:
    whole = row()
    parts = [part(whole, rank, size) for rank in range(size)]
    joined = {name: torch.cat([one[name] for one in parts], dim=1) for name in whole}
    tokens = whole["input_ids"].shape[1]
    assert joined["input_ids"].shape[1] == -(-tokens // size) * size
    assert {one["input_ids"].shape for one in parts} == {(1, joined["input_ids"].shape[1] // size)}
    for name, values in whole.items():
        assert torch.equal(joined[name][:, :tokens], values), name
    assert (joined["targets"][:, tokens:] == IGNORED).all()
    assert (joined["position_ids"].diff() != 0).all()
    starts = (joined["position_ids"][0] == 0).nonzero().flatten().tolist()
    assert starts == [0, 11]  # the filling begins no record
    assert joined["records"][0, -1] == 1

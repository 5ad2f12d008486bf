"""What `serve.precision` is on a device."""

from __future__ import annotations

import pytest
import torch

from heliostat.infra.config.strict import build
from heliostat.serve.compute import devices
from heliostat.serve.config import ServeConfig


@pytest.mark.parametrize(
    ("precision", "has_bf16", "dtype", "said"),
    [
        (None, True, torch.bfloat16, ""),
        (None, False, torch.float32, "this cpu does not compute bfloat16: serving in float32"),
        ("bf16", True, torch.bfloat16, ""),
        ("bf16", False, torch.bfloat16, "serve.precision: bf16 given, which this cpu emulates; auto or fp32 is faster"),
        ("fp32", True, torch.float32, ""),
    ],
)
def test_the_precision_is_what_the_device_computes_unless_the_spec_says_it(
    precision: str | None,
    has_bf16: bool,
    dtype: torch.dtype,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: has_bf16)
    config = build(ServeConfig, {"precision": precision} if precision else {})
    assert devices.dtype_of(config, torch.device("cpu")) == dtype
    assert said in capsys.readouterr().err

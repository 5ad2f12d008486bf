"""Which devices compute bfloat16."""

from __future__ import annotations

import pytest

from heliostat.infra.bf16 import cpu_unit, has_bf16


@pytest.mark.parametrize(
    ("capabilities", "unit"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "avx512_f": True}, "AMX"),
        ({"avx512_bf16": True, "amx_bf16": False}, "AVX-512 BF16"),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, "Arm BF16"),
        ({"architecture": "aarch64", "neon": True, "bf16": False}, None),
        ({"avx512_f": True, "avx512_bf16": False}, None),
        ({}, None),
    ],
)
def test_a_cpu_computes_bf16_if_it_has_instructions_for_it(
    capabilities: dict[str, object], unit: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cpu_unit(capabilities) == unit
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert has_bf16("cpu") == (unit is not None)


def test_a_gpu_that_emulates_bf16_does_not_compute_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not has_bf16("cuda")

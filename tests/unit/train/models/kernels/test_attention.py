"""Attention over packed rows against attention with a mask of tokens x tokens, and what it computes."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from heliostat.train.data.packing import MODEL_TYPES, Records, pack
from heliostat.train.engine import compile_layers
from heliostat.train.models.kernels import attention as kernel
from heliostat.train.models.kernels.cross_entropy import patch_loss_head
from heliostat.train.tasks.causal_lm import TASK

HEADS, KEY_HEADS, WIDTH = 4, 2, 8
LENGTHS = [7, 4, 1, 13]
WINDOW = 3


class Computed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts calls of each operation, and the bytes of all tensors that operations return."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls[func.overloadpacket.__name__] += 1
        self.bytes += sum(one.nbytes for one in tree_leaves(found) if isinstance(one, torch.Tensor))
        return found


def row(lengths: list[int]) -> dict[str, torch.Tensor]:
    drawn = np.random.default_rng(0)
    ids = [drawn.integers(0, 20, length) for length in lengths]
    return pack(ids, ids)


def config_of(model_type: str, window: int | None = None, layers: int = 2) -> Any:
    sliding = {"sliding_window": window, "use_sliding_window": window is not None, "max_window_layers": 1}
    return AutoConfig.for_model(
        model_type,
        vocab_size=20,
        hidden_size=HEADS * WIDTH,
        head_dim=WIDTH,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=64,
        initializer_range=0.3,
        **sliding,
    )


def models(config: Any, folder: Path) -> tuple[Any, Any]:
    """As a run loads it, and the same with transformers' mask of tokens x tokens; both in training."""
    torch.manual_seed(0)
    dense = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    dense.save_pretrained(folder)
    dense.config.use_cache = False
    patch_loss_head(dense)
    return TASK.load_model(folder, (), None).train(), dense.train()


def gradients(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.autograd.backward(TASK.loss(model, batch))
    return {name: one.grad.float() for name, one in model.named_parameters()}


def varlen_on_cpus(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    edges: torch.Tensor,
    key_edges: torch.Tensor,
    longest: int,
    longest_keys: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """What `varlen_attn` documents, in terms of a mask."""
    assert longest == longest_keys == int(edges.diff().max())
    assert torch.equal(edges, key_edges)
    assert (window_size[1], enable_gqa) == (0, True)
    places = torch.arange(len(query))
    record = torch.bucketize(places, edges, right=True)
    before = places[:, None] - places[None, :]
    seen = (record[:, None] == record[None, :]) & (before >= 0)
    if window_size[0] >= 0:
        seen &= before <= window_size[0]
    query, key, value = (one.transpose(0, 1)[None] for one in (query, key, value))
    found = scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale, enable_gqa=True)
    return found[0].transpose(0, 1)


@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("kernels", ["each record", "flash"])
@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("model_type", sorted(MODEL_TYPES))
def test_gradients_are_those_of_a_mask(
    model_type: str,
    window: int | None,
    kernels: str,
    is_checkpointed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, dense = models(config_of(model_type, window), tmp_path)
    if kernels == "flash":
        monkeypatch.setattr(kernel, "_has_kernel", lambda *_: True)
        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_on_cpus)
    if is_checkpointed:
        ours.gradient_checkpointing_enable({"use_reentrant": False})
    batch = row(LENGTHS)
    found, expected = gradients(ours, batch), gradients(dense, batch)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max())), name


def test_a_window_changes_what_is_learned(tmp_path: Path) -> None:
    """The test above compares windows only if they are shorter than records."""
    without, within = (models(config_of("mistral", window), tmp_path)[0] for window in (None, WINDOW))
    found, other = (gradients(model, row(LENGTHS)) for model in (without, within))
    assert not torch.allclose(found["lm_head.weight"], other["lm_head.weight"], rtol=0.1)


@pytest.mark.parametrize("window", [None, WINDOW])
def test_bfloat16_gradients_are_as_near_to_those_of_float32_as_with_a_mask(window: int | None, tmp_path: Path) -> None:
    ours, dense = models(config_of("mistral", window), tmp_path)
    half, batch = copy.deepcopy(dense).bfloat16(), row(LENGTHS)
    patch_loss_head(half)
    whole, rounded, found = (gradients(model, batch) for model in (dense, half, ours.bfloat16()))
    for name, gradient in whole.items():
        near, masked = (
            cosine_similarity(one[name].flatten(), gradient.flatten(), dim=0).item() for one in (found, rounded)
        )
        assert near > min(0.999, masked - 0.002), name


def computed(model: Any, records: int) -> int:
    batch = row([32] * records)
    with Computed() as counted:
        torch.autograd.backward(TASK.loss(model, batch))
    return counted.bytes


@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("window", [None, WINDOW])
def test_what_a_row_computes_grows_linearly_with_its_records(
    window: int | None, has_gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    ours, dense = models(config_of("mistral", window), tmp_path)
    sizes = [computed(ours, records) for records in (4, 8, 12, 16)]
    steps = np.diff(sizes)
    assert steps == pytest.approx(steps[0], rel=0.02)
    masked = np.diff([computed(dense, records) for records in (4, 8, 12, 16)])
    assert masked[-1] > 1.1 * masked[0], "a mask is seen by this count"


def flash(records: int, key_heads: int) -> None:
    """Forward and backward of the GPU's kernel by shapes, over a row with 256 tokens a record."""
    query, key, value = (
        torch.empty(1, heads, records * 256, 64, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for heads in (HEADS, key_heads, key_heads)
    )
    edges = torch.empty(records + 1, dtype=torch.int32, device="meta")
    found = kernel._flash(query, key, value, Records(edges, [256] * records), None, None)
    torch.autograd.backward(found, torch.empty_like(found))
    assert found.shape == (1, records * 256, HEADS, 64)
    assert all(one.grad is not None and one.grad.shape == one.shape for one in (query, key, value))


def test_the_kernel_of_gpus_computes_linearly_with_the_records() -> None:
    sizes, operations = [], []
    for records in (16, 32, 48):
        with Computed() as counted:
            flash(records, KEY_HEADS)
        with FlopCounterMode(display=False) as flops:
            flash(records, HEADS)  # PyTorch's formula knows no groups of heads
        sizes.append(counted.bytes)
        operations.append(flops.get_total_flops())
    assert np.diff(sizes, n=2) == 0
    assert operations == [operations[0], 2 * operations[0], 3 * operations[0]]
    assert operations[0] > 0


def test_a_row_is_looked_at_once_for_all_layers(tmp_path: Path) -> None:
    """Each look waits for the GPU."""
    found = []
    for layers in (1, 3):
        ours, _ = models(config_of("llama", layers=layers), tmp_path / str(layers))
        with Computed() as counted:
            torch.autograd.backward(TASK.loss(ours, row(LENGTHS)))
        found.append((counted.calls["nonzero"], counted.calls["_local_scalar_dense"]))
    assert found[0] == found[1]


def test_compiled_layers_are_not_compiled_again_for_other_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: plain(self, backend=counter, **options))
    torch._dynamo.reset()
    ours, dense = models(config_of("llama"), tmp_path)
    compile_layers(ours)
    rows = [row(lengths) for lengths in (LENGTHS, [32, 20, 12], [50, 14], [9] * 10, [64, 1, 31])]
    first = [gradients(ours, batch) for batch in rows[:2]]
    compiled = counter.frame_count
    for batch in rows[2:]:
        TASK.loss(ours, batch)
    assert counter.frame_count == compiled > 0
    torch._dynamo.reset()
    assert torch.allclose(first[0]["lm_head.weight"], gradients(dense, rows[0])["lm_head.weight"], atol=1e-4)


@pytest.mark.parametrize("window", [None, WINDOW])
def test_padded_and_unpadded_batches_are_scored_as_by_transformers(window: int | None, tmp_path: Path) -> None:
    ours, dense = models(config_of("mistral", window), tmp_path)
    ids = torch.randint(0, 20, (2, 9))
    padded = torch.ones_like(ids)
    padded[1, 6:] = 0
    for given in (None, torch.ones_like(ids), padded):
        found, expected = (model.eval()(input_ids=ids, attention_mask=given).logits for model in (ours, dense))
        wanted = torch.ones_like(ids).bool() if given is None else given.bool()
        assert torch.allclose(found[wanted], expected[wanted], atol=1e-4)


def test_tokens_after_cached_ones_see_them_all(tmp_path: Path) -> None:
    ours, _ = models(config_of("llama"), tmp_path)
    ids = torch.randint(0, 20, (1, 9))
    with torch.no_grad():
        whole = ours.eval()(input_ids=ids).logits
        first = ours(input_ids=ids[:, :5], use_cache=True)
        rest = ours(input_ids=ids[:, 5:], past_key_values=first.past_key_values).logits
    assert torch.allclose(rest, whole[:, 5:], atol=1e-4)


def test_what_is_kept_in_evaluation_trains(tmp_path: Path) -> None:
    kernel._made.cache_clear()
    ours, _ = models(config_of("mistral", WINDOW), tmp_path)
    batch = row(LENGTHS)
    with torch.inference_mode():
        TASK.outputs(ours, batch)
    assert all(gradient.isfinite().all() for gradient in gradients(ours, batch).values())

"""Rows with different adapters in one batch, against peft's own model and `generate`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from heliostat.infra.errors import ModelError
from heliostat.serve.compute.cpu import PackedLinear, pack
from heliostat.serve.config import ServeConfig
from heliostat.serve.engines import transformers
from heliostat.serve.engines.base import Sampling
from heliostat.serve.engines.lora import Adapters, LoraLayer, attach
from heliostat.serve.engines.transformers import TransformersEngine
from heliostat.serve.models.adapter_settings import MATRICES
from tests.tiny_adapters import change_settings, greedy, write_adapter
from tests.unit.serve.conftest import Recorded

pytestmark = pytest.mark.anyio
PROMPTS = ["the quick", "the lazy dog jumps over", "fox", "é 你好 the quick brown", "a" * 40, "over", "dog dog dog"]


@pytest.fixture(scope="module")
def base(llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "base"
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(base: Path) -> dict[str, Path]:
    """Two adapters of different ranks, scales and layers."""
    found = {name: base.parent / name for name in ("legal", "support")}
    write_adapter(base, found["legal"], seed=1)
    write_adapter(base, found["support"], seed=2, rank=6, use_rslora=True, target_modules=["q_proj", "v_proj"])
    return found


@pytest.fixture
def engine(
    base: Path, folders: dict[str, Path], config: ServeConfig, recorded: Recorded
) -> Iterator[TransformersEngine]:
    engine = transformers.load(base, config, recorded.metrics, folders)
    yield engine
    engine.close()


async def answer(engine: TransformersEngine, model: str, prompt: str, tokens: int, delay: float = 0) -> str:
    await asyncio.sleep(delay)
    ids = await engine.encode_prompt(prompt)
    return "".join([delta.text async for delta in engine.generate(ids, Sampling(tokens, temperature=0), model)])


async def test_each_row_answers_as_its_own_adapter_whatever_else_is_in_the_batch(
    engine: TransformersEngine, base: Path, folders: dict[str, Path], recorded: Recorded
) -> None:
    asked = [(model, prompt, 15 + 7 * at) for at, prompt in enumerate(PROMPTS) for model in ("tiny", *folders)]
    found = await asyncio.gather(*(answer(engine, *one, delay=at * 0.003) for at, one in enumerate(asked)))
    for (model, prompt, tokens), text in zip(asked, found, strict=True):
        assert text == greedy(base, folders.get(model), prompt, tokens), (model, prompt)
    assert max(recorded.of("heliostat_batch_size")) == 4
    texts = {model: text for (model, prompt, _), text in zip(asked, found, strict=True) if prompt == "the quick"}
    assert len(set(texts.values())) == 3, "an adapter changes nothing"


def test_rows_without_an_adapter_are_those_of_the_base_to_the_last_bit() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 6)
    pairs = [(torch.randn(8, 2), torch.randn(2, 6)), None, (torch.randn(8, 3), torch.randn(3, 6))]
    adapters = Adapters(["a", "b", "c"], torch.device("cpu"))
    both = LoraLayer(layer, pairs, adapters)
    x = torch.randn(5, 4, 8)
    with torch.inference_mode():
        alone = layer(x)
        adapters.choose([None] * 5)
        assert torch.equal(both(x), alone)
        adapters.choose([None, 2, 0, None, 1])
        found = both(x)
    assert torch.equal(found[[0, 3, 4]], alone[[0, 3, 4]])
    for row, pair in ((1, pairs[2]), (2, pairs[0])):
        assert pair
        torch.testing.assert_close(found[row], alone[row] + x[row] @ pair[0] @ pair[1])


def test_a_layer_in_which_rows_cannot_be_told_is_refused() -> None:
    adapters = Adapters(["a"], torch.device("cpu"))
    layer = LoraLayer(torch.nn.Linear(8, 6), [(torch.zeros(8, 2), torch.zeros(2, 6))], adapters)
    adapters.choose([0, None])
    with pytest.raises(ModelError, match=r"a layer of this model takes \[10, 8\], in which no row can be told"):
        layer(torch.zeros(10, 8))


def test_packed_layers_take_adapters_too(base: Path, folders: dict[str, Path]) -> None:
    model = pack(LlamaForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval())
    adapters = attach(model, folders)
    assert any(isinstance(one, PackedLinear) for one in model.modules())
    ids = torch.tensor([[5, 6, 7]] * 3)
    with torch.inference_mode():
        alone = model(ids).logits
        adapters.choose([None, adapters.index["legal"], None])
        mixed = model(ids).logits
    assert [torch.equal(alone[row], mixed[row]) for row in range(3)] == [True, False, True]


def test_without_adapters_the_model_stays_as_it_is(base: Path, config: ServeConfig, recorded: Recorded) -> None:
    engine = transformers.load(base, config, recorded.metrics)
    assert not any(isinstance(one, LoraLayer) for one in engine.scheduler.model.modules())
    engine.close()


def test_an_adapter_of_layers_that_the_model_does_not_have_is_refused(
    llama: LlamaForCausalLM, base: Path, tmp_path: Path
) -> None:
    write_adapter(base, tmp_path / "one", seed=3, target_modules=["q_proj"])
    matrices = load_file(tmp_path / "one" / MATRICES)
    for old, new, line in [
        ("q_proj", "query", "has no such layer"),
        ("lora_A", "lora_magnitude_vector", "only lora_A and lora_B of layers are served"),
    ]:
        changed = {name.replace(old, new): value for name, value in matrices.items()}
        save_file(changed, tmp_path / "one" / MATRICES)
        with pytest.raises(ModelError, match=line):
            attach(llama, {"one": tmp_path / "one"})


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"use_dora": True}, "use_dora True; adapters that are served by name are plain LoRA"),
        ({"bias": "all"}, "bias 'all'"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern {'q_proj': 2}"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'; LORA is served"),
    ],
)
def test_what_is_no_plain_lora_is_refused(
    llama: LlamaForCausalLM, base: Path, tmp_path: Path, settings: dict[str, object], line: str
) -> None:
    write_adapter(base, tmp_path / "one", seed=3, target_modules=["q_proj"])
    change_settings(tmp_path / "one", **settings)
    with pytest.raises(ModelError, match=line):
        attach(llama, {"one": tmp_path / "one"})

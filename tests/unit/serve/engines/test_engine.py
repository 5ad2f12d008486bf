"""The transformers engine against `generate` of transformers itself, on a tiny random model."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM, MistralConfig, PreTrainedTokenizerFast

from heliostat.infra.errors import ModelError
from heliostat.infra.tracing.span import inside
from heliostat.serve.config import ServeConfig
from heliostat.serve.engines.attention import register
from heliostat.serve.engines.base import Delta, Sampling, check_probe
from heliostat.serve.engines.scheduler import left_padded
from heliostat.serve.engines.transformers import TransformersEngine, context_of, sampling_of
from heliostat.serve.errors import RequestError
from tests.spans import Kept, id_of, parent_of
from tests.unit.serve.conftest import Recorded
from tests.waiting import until

pytestmark = pytest.mark.anyio
PROMPTS = ["the quick", "the lazy dog jumps over", "fox", "é 你好 the quick brown", "a" * 40, "over", "dog dog dog"]


@pytest.fixture
def engine(
    llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, config: ServeConfig, recorded: Recorded
) -> Iterator[TransformersEngine]:
    model = copy.deepcopy(llama)
    model.set_attn_implementation(register())
    engine = TransformersEngine(model, tokenizer, config, recorded.metrics)
    yield engine
    engine.close()
    with pytest.raises(RuntimeError, match="ended"):
        engine.check_health()


def reference(llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, tokens: int) -> str:
    ids = torch.tensor([tokenizer.encode(prompt)])
    with torch.inference_mode():
        out = llama.generate(ids, max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


async def answer(engine: TransformersEngine, prompt: str, sampling: Sampling, delay: float = 0) -> tuple[str, Any]:
    await asyncio.sleep(delay)
    ids = await engine.encode_prompt(prompt)
    deltas = [delta async for delta in engine.generate(ids, sampling)]
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    return "".join(delta.text for delta in deltas), deltas[-1]


@pytest.mark.parametrize(("dtype", "is_exact"), [(torch.float32, True), (torch.bfloat16, False)])
async def test_an_answer_is_exact_where_it_is_computed_in_float32(
    dtype: torch.dtype,
    is_exact: bool,
    llama: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    config: ServeConfig,
    recorded: Recorded,
) -> None:
    model = copy.deepcopy(llama).to(dtype)
    model.set_attn_implementation(register())
    engine = TransformersEngine(model, tokenizer, config, recorded.metrics)
    assert engine.is_exact == is_exact
    engine.close()


async def test_each_sequence_is_timed_by_phase_and_counted_while_it_is_there(
    engine: TransformersEngine, recorded: Recorded
) -> None:
    started = time.perf_counter()
    await asyncio.gather(*(answer(engine, prompt, Sampling(20, temperature=0)) for prompt in PROMPTS))
    longest = time.perf_counter() - started
    await idle(engine)
    name = "heliostat_request_phase_seconds"
    until(lambda: recorded.of("heliostat_sequences")[-2:] == [0, 0], "no sequence is there any more", seconds=5)
    phases = recorded.labels_of(name, "phase")
    assert [phases.count(phase) for phase in ("queue", "prefill", "decode")] == [len(PROMPTS)] * 3
    assert all(0 <= seconds <= longest for seconds in recorded.of(name))
    assert max(recorded.of("heliostat_sequences")) > 1
    assert 0 < max(recorded.of("heliostat_kv_cache_used_ratio")) <= 1


async def test_the_phases_of_a_sequence_are_parts_of_its_requests_span(engine: TransformersEngine) -> None:
    kept = Kept()
    with inside(kept.tracer.begin("POST", "server")):
        await answer(engine, PROMPTS[0], Sampling(5, temperature=0))
    await answer(engine, PROMPTS[1], Sampling(5, temperature=0))  # of no trace
    await idle(engine)
    engine.close()
    request = kept.one("POST")
    phases = [kept.one(name) for name in ("queue", "prefill", "decode")]
    assert {parent_of(phase) for phase in phases} == {id_of(request)}
    assert [phase.start_time for phase in phases] == sorted(phase.start_time or 0 for phase in phases)
    assert len(kept.all()) == 4


async def idle(engine: TransformersEngine) -> None:
    until = time.monotonic() + 5
    while engine.scheduler.running or engine.scheduler.waiting or engine.scheduler.cache.keys:
        assert time.monotonic() < until, "the engine does not come to rest"
        await asyncio.sleep(0.005)


async def test_greedy_answers_that_come_and_go_are_those_of_generate(
    engine: TransformersEngine, llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recorded: Recorded
) -> None:
    tokens = [15 + 7 * at for at in range(len(PROMPTS))]
    found = await asyncio.gather(
        *(
            answer(engine, prompt, Sampling(tokens[at], temperature=0), delay=at * 0.004)
            for at, prompt in enumerate(PROMPTS)
        )
    )
    for at, prompt in enumerate(PROMPTS):
        assert found[at][0] == reference(llama, tokenizer, prompt, tokens[at]), prompt
        assert found[at][1].completion_tokens <= tokens[at]
    assert max(recorded.of("heliostat_batch_size")) > 1
    await idle(engine)


async def test_an_answer_ends_at_its_limit_at_the_end_token_or_at_a_stop_string(
    engine: TransformersEngine, llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    text, last = await answer(engine, "the quick", Sampling(9, temperature=0))
    assert (last.finish_reason, last.completion_tokens) == ("length", 9)
    stop = text[3:5]
    cut, last = await answer(engine, "the quick", Sampling(9, temperature=0, stop=(stop,)))
    assert last.finish_reason == "stop"
    assert cut == text[: text.index(stop)]
    engine.scheduler.ends = frozenset([tokenizer.encode("the quick", add_special_tokens=False)[0], *range(2, 200)])
    _, last = await answer(engine, "the quick", Sampling(60, temperature=0))
    assert last.finish_reason == "stop"
    await idle(engine)


async def test_a_closed_answer_leaves_the_batch(engine: TransformersEngine) -> None:
    ids = await engine.encode_prompt("fox")
    stream = engine.generate(ids, Sampling(400, temperature=0))
    await anext(stream)
    other = asyncio.create_task(answer(engine, "dog", Sampling(60, temperature=0)))
    await stream.aclose()  # type: ignore[attr-defined]
    text, last = await other
    assert text
    assert last.completion_tokens <= 60
    await idle(engine)


async def test_more_requests_than_rows_are_all_answered(
    engine: TransformersEngine, llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recorded: Recorded
) -> None:
    expected = reference(llama, tokenizer, "over the", 20)
    found = await asyncio.gather(*(answer(engine, "over the", Sampling(20, temperature=0)) for _ in range(11)))
    assert {text for text, _ in found} == {expected}
    assert max(recorded.of("heliostat_batch_size")) == 4


class Allocated:
    """Watches the KV cache: positions allocated for each layer, at each pass."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.cache = engine.scheduler.cache
        self.forward = engine.scheduler.model.forward
        self.positions: list[int] = []
        engine.scheduler.model.forward = self  # type: ignore[method-assign]

    def __call__(self, **given: Any) -> Any:
        found = self.forward(**given)
        buffers = [*self.cache.keys, *self.cache.values]
        (shape,) = {buffer.shape for buffer in buffers}
        self.positions.append(shape[0] * shape[2])
        return found


async def test_memory_bounds_what_is_allocated_whatever_ran_before(
    engine: TransformersEngine, llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recorded: Recorded
) -> None:
    engine.scheduler.max_cached = 510
    allocated = Allocated(engine)
    sizes = [490, *[40] * 6, 300, 20, 20, 200, *[90] * 6, 490, 10]
    found = await asyncio.gather(*(answer(engine, "dog", Sampling(size, temperature=0)) for size in sizes))
    for size, (text, _) in zip(sizes, found, strict=True):
        assert text == reference(llama, tokenizer, "dog", size)
    assert max(allocated.positions) <= 510
    assert max(recorded.of("heliostat_batch_size")) > 1


async def test_memory_bounds_how_many_run_at_once(engine: TransformersEngine, recorded: Recorded) -> None:
    engine.scheduler.max_cached = 2 * 40
    allocated = Allocated(engine)
    ids = await engine.encode_prompt("dog")
    size = 40 - len(ids)
    await asyncio.gather(*(answer(engine, "dog", Sampling(size, temperature=0)) for _ in range(5)))
    assert max(recorded.of("heliostat_batch_size")) == 2
    assert max(allocated.positions) <= 2 * 40


async def test_memory_is_given_back_while_others_go_on(engine: TransformersEngine) -> None:
    allocated = Allocated(engine)
    ids = await engine.encode_prompt("dog")
    stays = engine.generate(ids, Sampling(100, temperature=0))
    await anext(stays)
    await asyncio.gather(*(answer(engine, "fox", Sampling(450 + at, temperature=0)) for at in range(3)))
    rest = [delta async for delta in stays]
    assert rest[-1].completion_tokens <= 100
    assert max(allocated.positions) >= 4 * 450
    assert allocated.positions[-1] == 128
    await idle(engine)


async def test_a_seed_repeats_an_answer(engine: TransformersEngine) -> None:
    warm = [Sampling(30, temperature=1.0, top_p=0.9, seed=seed) for seed in (1, 1, 2)]
    found = [(await answer(engine, "the quick", sampling))[0] for sampling in warm]
    assert found[0] == found[1]
    assert found[0] != found[2]


class Faulty:
    """A model's `forward` that raises for some passes."""

    def __init__(self, engine: TransformersEngine, fails: Callable[[torch.Tensor], bool]) -> None:
        self.sizes: list[tuple[int, ...]] = []
        self.fails = fails
        self.forward = engine.scheduler.model.forward
        engine.scheduler.model.forward = self  # type: ignore[method-assign]

    def __call__(self, **given: Any) -> Any:
        found = self.forward(**given)  # the cache is written before it fails
        self.sizes.append(tuple(given["input_ids"].shape))
        if self.fails(given["input_ids"]):
            raise MemoryError("no memory for this pass")
        return found


async def at_once(engine: TransformersEngine, prompts: Sequence[str]) -> list[str | BaseException]:
    """Greedy answers to all prompts, which the scheduler finds at once; the first of 20 tokens, the next of 21, …"""

    async def one(ids: Sequence[int], tokens: int) -> str:
        return "".join([delta.text async for delta in engine.generate(ids, Sampling(tokens, temperature=0))])

    ids = [await engine.encode_prompt(prompt) for prompt in prompts]
    with engine.scheduler._thread.lock:
        asked = [asyncio.ensure_future(one(prompt, 20 + at)) for at, prompt in enumerate(ids)]
        await asyncio.sleep(0)
        assert len(engine.scheduler.waiting) == len(prompts)
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_a_prompt_that_fails_fails_its_request_and_no_others(
    engine: TransformersEngine, llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompts = ["the quick", "b!d", "fox", "over the dog"]
    (poison,) = tokenizer.encode("!", add_special_tokens=False)
    faulty = Faulty(engine, lambda ids: bool((ids == poison).any()))
    found = await at_once(engine, prompts)
    assert isinstance(found[1], MemoryError)
    for at in (0, 2, 3):
        assert found[at] == reference(llama, tokenizer, prompts[at], 20 + at)
    assert [size[0] for size in faulty.sizes if size[1] > 1] == [4, 1, 1, 1, 1]
    engine.check_health()
    await idle(engine)


async def test_a_token_that_fails_fails_its_request_and_no_others(
    engine: TransformersEngine, llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompts = ["the quick", "the lazy dog jumps", "fox", "over the dog"]
    expected = [reference(llama, tokenizer, prompt, 20 + at) for at, prompt in enumerate(prompts)]
    tokens = [torch.tensor(tokenizer.encode(text)) for text in expected]
    mine = next(token for token in tokens[1][3:] if not any((token == other).any() for other in tokens[::2]))
    faulty = Faulty(engine, lambda ids: bool(ids.shape[1] == 1 and (ids == mine).any()))
    found = await at_once(engine, prompts)
    failed = [at for at, one in enumerate(found) if isinstance(one, MemoryError)]
    assert failed in ([1], [1, 3])
    for at in set(range(4)) - set(failed):
        assert found[at] == expected[at]
    assert (4, 1) in faulty.sizes
    await idle(engine)


async def test_a_batch_that_is_too_large_is_answered_row_by_row(
    engine: TransformersEngine, llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    faulty = Faulty(engine, lambda ids: len(ids) > 1)
    found = await at_once(engine, PROMPTS[:4])
    assert found == [reference(llama, tokenizer, prompt, 20 + at) for at, prompt in enumerate(PROMPTS[:4])]
    assert (4, 1) in faulty.sizes


async def test_a_request_that_cannot_be_sampled_fails_and_no_others(
    engine: TransformersEngine, llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    streams = [answer(engine, prompt, Sampling(30, temperature=0)) for prompt in PROMPTS[:3]]
    tried = [asyncio.ensure_future(stream) for stream in streams]
    ids = await engine.encode_prompt("dog")
    submitted = engine.scheduler.submit(ids, Sampling(30, temperature=1.0, seed=0))
    submitted.sampler.generator = object()  # type: ignore[assignment]
    while not isinstance(event := await submitted.events.get(), Exception):
        assert event[1] is None
    for prompt, (text, _) in zip(PROMPTS, await asyncio.gather(*tried), strict=False):
        assert text == reference(llama, tokenizer, prompt, 30)
    await idle(engine)


async def test_a_model_whose_every_pass_fails_is_unhealthy_and_one_that_refuses_a_request_is_not(
    engine: TransformersEngine,
) -> None:
    forward = engine.scheduler.model.forward
    Faulty(engine, lambda ids: ids.shape[1] > 1)
    assert [type(one) for one in await at_once(engine, PROMPTS[:2])] == [MemoryError, MemoryError]
    engine.check_health()
    engine.scheduler.model.forward = forward
    Faulty(engine, lambda ids: True)
    assert [type(one) for one in await at_once(engine, PROMPTS[:2])] == [MemoryError, MemoryError]
    await asyncio.to_thread(until, lambda: "every pass of the model fails" in health(engine), "broken", 60)
    engine.scheduler.model.forward = forward
    assert await answer(engine, "dog", Sampling(5, temperature=0))
    assert health(engine) == ""


async def test_a_model_whose_output_is_never_finite_is_unhealthy(engine: TransformersEngine) -> None:
    forward = engine.scheduler.model.forward

    def spoilt(**given: Any) -> Any:
        found = forward(**given)
        found.logits.fill_(float("nan"))
        return found

    engine.scheduler.model.forward = spoilt
    assert [type(one) for one in await at_once(engine, PROMPTS[:2])] == [ArithmeticError, ArithmeticError]
    await asyncio.to_thread(until, lambda: "every pass of the model fails" in health(engine), "broken", 60)


def health(engine: TransformersEngine) -> str:
    try:
        engine.check_health()
    except RuntimeError as error:
        return str(error)
    return ""


async def test_a_pass_that_is_stuck_is_unhealthy(engine: TransformersEngine) -> None:
    goes = threading.Event()
    engine.scheduler._thread.pass_seconds = 0.05
    Faulty(engine, lambda ids: not goes.wait(60))
    asked = asyncio.ensure_future(answer(engine, "dog", Sampling(3, temperature=0)))
    await asyncio.to_thread(until, lambda: "has not ended after 0.05 s" in health(engine), "stuck", 60)
    goes.set()
    await asked
    assert health(engine) == ""


async def test_a_conversation_goes_through_the_chat_template(
    engine: TransformersEngine, tokenizer: PreTrainedTokenizerFast
) -> None:
    messages = [{"role": "user", "content": "fox"}]
    with pytest.raises(RequestError, match="no chat template; use /v1/completions"):
        await engine.encode_chat(messages)
    engine.tokenizer = copy.deepcopy(tokenizer)
    engine.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    assert tokenizer.decode(await engine.encode_chat(messages)) == "user: fox\nassistant:"
    with pytest.raises(RequestError, match=r"messages: .*no system turn") as caught:
        await engine.encode_chat([{"role": "system", "content": "be kind"}])
    assert (caught.value.status, caught.value.param) == (422, "messages")


async def test_the_probe_must_be_answered_as_before(
    engine: TransformersEngine, llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    text = reference(llama, tokenizer, "the fox", 8)
    probe = {"input": {"prompt": "the fox", "max_tokens": 8}, "output": {"text": text}}
    await check_probe(engine, probe, "tiny", exact=True)
    other = {**probe, "output": {"text": text + "!"}}
    await check_probe(engine, other, "tiny", exact=False)
    with pytest.raises(ModelError, match="answers its probe with"):
        await check_probe(engine, other, "tiny", exact=True)


async def test_greedy_answers_have_the_penalty_that_the_model_asks_for(
    llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, config: ServeConfig, recorded: Recorded
) -> None:
    model = copy.deepcopy(llama)
    plain = reference(model, tokenizer, "the fox", 40)
    model.generation_config.repetition_penalty = 0.5  # repeats itself
    expected = reference(model, tokenizer, "the fox", 40)
    assert expected != plain
    model.set_attn_implementation(register())
    engine = TransformersEngine(model, tokenizer, config, recorded.metrics)
    probe = {"input": {"prompt": "the fox", "max_tokens": 40}, "output": {"text": expected}}
    try:
        await check_probe(engine, probe, "tiny", exact=True)
    finally:
        engine.close()


def test_what_the_generation_config_says_of_sampling_is_the_default(llama: LlamaForCausalLM) -> None:
    assert sampling_of(llama) == Sampling(1)
    model = copy.copy(llama)
    model.generation_config = GenerationConfig(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05)
    assert sampling_of(model) == Sampling(1, 0.7, 0.8, top_k=20, repetition_penalty=1.05)


async def test_silence_is_refused_where_the_trained_model_spoke(engine: TransformersEngine) -> None:
    engine.generate = silence  # type: ignore[method-assign]
    probe = {"input": {"prompt": "the fox", "max_tokens": 8}, "output": {"text": "jumps"}}
    with pytest.raises(ModelError, match="answers its probe with '', the trained one with 'jumps'"):
        await check_probe(engine, probe, "tiny", exact=False)
    await check_probe(engine, {**probe, "output": {"text": ""}}, "tiny", exact=False)


async def silence(prompt: Sequence[int], sampling: Sampling, model: str = "") -> AsyncIterator[Delta]:
    yield Delta("", 1, "stop")


def test_prompts_of_one_length_need_no_mask() -> None:
    ids, positions, seen = left_padded([[5, 6], [7, 8]])
    assert ids.tolist() == [[5, 6], [7, 8]]
    assert positions.tolist() == [[0, 1], [0, 1]]
    assert seen is None


def test_a_shorter_prompt_is_padded_on_the_left_and_sees_no_padding() -> None:
    ids, positions, seen = left_padded([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert positions.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert seen is not None
    assert seen[0, 0].tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert seen[1, 0].tolist() == [[True, False, False], [False, True, False], [False, False, True]]


def test_the_context_is_what_full_attention_gives_the_same_for() -> None:
    assert context_of(MistralConfig(max_position_embeddings=4096, sliding_window=1024)) == 1024
    assert context_of(MistralConfig(max_position_embeddings=4096, sliding_window=None)) == 4096
    hybrid = MistralConfig(sliding_window=None)
    hybrid.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ModelError, match="layer_types: linear_attention in this model"):
        context_of(hybrid)


async def test_log_probabilities_are_those_of_the_model_before_temperature(
    engine: TransformersEngine, llama: LlamaForCausalLM
) -> None:
    other = asyncio.ensure_future(answer(engine, "fox", Sampling(20, temperature=0)))  # which asks for none
    ids = await engine.encode_prompt("the quick")
    submitted = engine.scheduler.submit(ids, Sampling(12, temperature=1.7, seed=3, top_logprobs=3))
    events: list[Any] = []
    while not events or events[-1][1] is None:
        events.append(await submitted.events.get())
    await other
    tokens = [token for token, _, _ in events]
    with torch.inference_mode():
        logits = llama(torch.tensor([[*ids, *tokens]])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    values, likeliest = logits.topk(3)
    assert [score.logprob for *_, score in events] == pytest.approx(
        logits[range(len(tokens)), tokens].tolist(), abs=1e-4
    )
    assert [[token for token, _ in score.likeliest] for *_, score in events] == likeliest.tolist()
    told = torch.tensor([[value for _, value in score.likeliest] for *_, score in events])
    assert torch.allclose(told, values, atol=1e-4)


async def test_the_scores_of_an_answer_are_those_of_its_text(engine: TransformersEngine) -> None:
    ids = await engine.encode_prompt("the quick")
    deltas = [delta async for delta in engine.generate(ids, Sampling(12, temperature=0, top_logprobs=0))]
    told = [score for delta in deltas for score in delta.scores]
    assert len(told) == deltas[-1].completion_tokens - (deltas[-1].finish_reason == "stop")
    assert all(score.logprob <= 0 and score.likeliest == () for score in told)

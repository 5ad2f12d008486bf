"""Chats as tokens: what is learned of them, and what is refused by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from heliostat.infra.errors import DataError
from heliostat.train.data.config import SPLITS, Columns, DataConfig
from heliostat.train.data.packing import IGNORED
from heliostat.train.encoders.chats import ChatEncoder
from tests.unit.train.prepared import Result, failure, run

PLAIN = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} end {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
SPEAKS_CALLS = (
    "{% if tools %}{% for tool in tools %}{{ tool.name }} {% endfor %}{% endif %}"
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% for call in m.tool_calls or [] %}"
    "{{ call.function.name }} {{ call.function.arguments.item }} {% endfor %}end {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
COLUMNS = Columns(messages="messages")
WORDS = ["[UNK]", "<s>", "end", "user", "assistant", "tool", "stock", "kettle", "wrong", "right", "what", "again"]


def encoder(template: str = PLAIN) -> ChatEncoder:
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    words = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", bos_token="<s>", eos_token="end")
    words.chat_template = template
    return ChatEncoder(words, "digest")


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def written(folder: Path, chats: list[list[dict[str, Any]]], **more: Any) -> Path:
    """A file of these chats, each with another question before it."""
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": chat, **more}) + "\n" for chat in chats))
    return path


def learned(result: Result) -> set[str]:
    """The words of all records that the loss is taken on."""
    rows = [row for name in SPLITS for row in result.tables[name].to_pylist()]
    return {WORDS[label] for row in rows for label in row["labels"] if label != IGNORED}


def many_chats(*turns: dict[str, Any]) -> list[list[dict[str, Any]]]:
    return [[user(f"what {number}"), *turns] for number in range(60)]


@pytest.mark.parametrize("excluded", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"weight": 0, "train": False}])
def test_an_answer_with_weight_0_is_seen_and_not_learned(tmp_path: Path, excluded: dict[str, Any]) -> None:
    chats = many_chats(answer("wrong", **excluded), user("again"), answer("right", weight=1))
    result = run(tmp_path, written(tmp_path, chats), encoder(), columns=COLUMNS)
    assert learned(result) == {"right", "end"}
    assert all("wrong" in [WORDS[i] for i in row["input_ids"]] for row in result.tables["train"].to_pylist())


def test_weights_of_parquet_may_be_null(tmp_path: Path) -> None:
    chats = many_chats(answer("wrong", weight=0), user("again"), answer("right"))
    parquet.write_table(pa.Table.from_pylist([{"messages": chat} for chat in chats]), tmp_path / "a.parquet")
    assert learned(run(tmp_path, tmp_path / "a.parquet", encoder(), columns=COLUMNS)) == {"right", "end"}


def test_chats_that_differ_in_what_is_learned_are_no_duplicates(tmp_path: Path) -> None:
    chats = many_chats(answer("right"))
    chats += [[user("what 1"), answer("right", weight=0)], [user("what 2"), answer("right", weight=1)]]
    counts = run(tmp_path, written(tmp_path, chats), encoder(), columns=COLUMNS).counts
    assert (counts["duplicates"], counts["without_target"]) == (1, 1)


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": "stock", "arguments": arguments}}


def test_tool_calls_are_learned_where_the_template_has_them(tmp_path: Path) -> None:
    for arguments in ('{"item": "kettle"}', {"item": "kettle"}):
        result_turn = {"role": "tool", "tool_call_id": "1", "content": "7"}
        chats = many_chats(answer(None, tool_calls=[call(arguments)]), result_turn, answer("right"))
        result = run(tmp_path, written(tmp_path, chats), encoder(SPEAKS_CALLS), columns=COLUMNS)
        assert learned(result) == {"stock", "kettle", "right", "end"}


def test_tools_go_through_the_template(tmp_path: Path) -> None:
    tools, columns = [{"name": "kettle"}], Columns(messages="messages", tools="tools")
    for given in (tools, json.dumps(tools)):
        path = written(tmp_path, many_chats(answer("right")), tools=given)
        result = run(tmp_path, path, encoder(SPEAKS_CALLS), columns=columns)
        assert all(row["input_ids"][0] == WORDS.index("kettle") for row in result.tables["train"].to_pylist())
    left_out = "data.columns.tools: given, and the model's chat template leaves tools out; use one that has them"
    assert (
        failure(tmp_path / "b", fresh(path, tmp_path / "b"), encoder(), columns=columns) == f"FILE line 1: {left_out}"
    )


def fresh(path: Path, folder: Path) -> Path:
    folder.mkdir()
    return path.rename(folder / path.name)


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        (answer("x", tool_calls=[call("{}")]), "data.columns.messages: tool_calls given in turn 2, which the model's"),
        (answer("x", reasoning_content="hm"), "data.columns.messages: reasoning_content given in turn 2, which"),
        (answer("x", function_call={"name": "f"}), "data.columns.messages: function_call given in turn 2, which"),
        (answer("x", tool_calls=[call("{")]), "data.columns.messages: tool_calls: arguments '{' given; a JSON object"),
        (answer("x", tool_calls="f"), "data.columns.messages: tool_calls: str ('f') given; a list of calls"),
        (answer("x", weight=0.5), "data.columns.messages: weight: 0.5 given in a turn; 0 and 1 are allowed"),
        (
            answer("x", weight=1, train=False),
            "data.columns.messages: weight and train given in a turn, which contradict",
        ),
        ({**user("x"), "weight": 1}, "data.columns.messages: weight: 1 given in a turn of user; only answers are"),
        (answer(" "), "data.missing: fail given, and turn 2 of column 'messages' is an empty answer; drop is allowed"),
        (answer(None), "data.columns.messages: column 'messages' holds dict ({'role': 'assistant', 'content': None})"),
        ({"role": "gpt", "content": "x"}, "data.columns.messages: column 'messages' holds the role 'gpt'; system, "),
        ({"role": "Assistant", "content": "x"}, "data.columns.messages: column 'messages' holds the role 'Assistant'"),
        ({"role": "model", "content": "x"}, "data.columns.messages: column 'messages' holds the role 'model'; system"),
    ],
)
def test_a_turn_that_would_not_be_learned_as_it_stands_is_refused(
    tmp_path: Path, turn: dict[str, Any], problem: str
) -> None:
    path = written(tmp_path, [*many_chats(answer("right")), [user("what"), turn]])
    assert failure(tmp_path, path, encoder(), columns=COLUMNS).startswith(f"FILE line 61: {problem}")


def test_empty_answers_are_dropped_where_the_spec_says_so(tmp_path: Path) -> None:
    chats = [*many_chats(answer("right")), [user("what"), answer("")], [user("again"), answer("", weight=0)]]
    counts = run(tmp_path, written(tmp_path, chats), encoder(), columns=COLUMNS, missing="drop").counts
    assert (counts["empty"], counts["without_target"]) == (1, 1)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (NO_SYSTEM + PLAIN, "System role not supported"),
        ("{% for m in messages %}{{ m['content'] | nosuchfilter }}{% endfor %}", "No filter named 'nosuchfilter'."),
        ("{{ messages[0]['content'] + 1 }}", 'can only concatenate str (not "int") to str'),
    ],
)
def test_a_template_that_fails_names_file_and_line(tmp_path: Path, template: str, problem: str) -> None:
    path = written(tmp_path, [[{"role": "system", "content": "x"}, user("what"), answer("right")]])
    split = {"validation": 0, "test": 0}
    message = failure(tmp_path, path, encoder(template), columns=COLUMNS, split=split)
    assert message == f"FILE line 1: data.columns: the model's chat template fails: {problem}"


def test_plain_texts_begin_and_end_once() -> None:
    texts = ["<s> what", "what", "<s> what end", "what end"]
    made = encoder().encode({"text": texts}, DataConfig(source="x"))
    assert {tuple(WORDS[i] for i in ids) for ids in made["input_ids"]} == {("<s>", "what", "end")}


def test_tools_belong_to_messages() -> None:
    with pytest.raises(ValueError, match=r"data\.columns\.tools: given without messages"):
        Columns(tools="tools")


def test_an_encoder_without_a_template_says_so(tmp_path: Path) -> None:
    none = encoder()
    none.tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        none.encode({"messages": [[user("what"), answer("right")]]}, DataConfig(source="x", columns=COLUMNS))

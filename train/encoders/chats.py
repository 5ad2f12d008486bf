"""Encodes chats and plain texts with a base model's tokenizer, with the loss on the answers only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.infra.errors import DataError
from heliostat.train.data.config import Columns, DataConfig, is_chat
from heliostat.train.data.encoder import Encoder
from heliostat.train.data.packing import IGNORED
from heliostat.train.data.values import is_learned

UNSPOKEN = ("role", "content", "weight", "tool_call_id")
"""Keys of a turn that need not stand in its text: an id only says which call a result belongs to."""
Turns = list[dict[str, Any]]


@dataclass
class ChatEncoder(Encoder):
    """Encodes chats or plain texts as token ids, with labels on the answers only.

    It holds the tokenizer itself, with its chat template, so that workers do not need the model's folder.
    """

    tokenizer: Any
    digest: str
    unknown_id: int | None = None
    labelled: bool = False

    def columns(self, data: DataConfig) -> list[str]:
        """The columns that a record must have."""
        wanted = data.columns
        if wanted.messages:
            return [column for column in (wanted.messages, wanted.tools) if column]
        if wanted.prompt and wanted.answer:
            return [column for column in (wanted.prompt, wanted.context, wanted.answer) if column]
        return [wanted.text]

    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        """A text that identifies a record: all that the model could see of it, and which answers are learned."""
        if not is_chat(data.columns):
            text: str = record[data.columns.text]
            return text
        tools = tools_of(record, data.columns)
        lines = [_line(turn) for turn in messages(record, data.columns)]
        return "\n".join([*lines, *([_as_json(tools)] if tools else [])])

    def is_running_text(self, data: DataConfig) -> bool:
        """Whether records are plain texts."""
        return not is_chat(data.columns)

    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, list[Any]]:
        """`input_ids` and `labels` of each record, of equal length and not truncated."""
        count = len(next(iter(records.values())))
        rows = [{column: values[i] for column, values in records.items()} for i in range(count)]
        encoded = [self._chat(row, data.columns) if is_chat(data.columns) else self._plain(row, data) for row in rows]
        return {"input_ids": [ids for ids, _ in encoded], "labels": [labels for _, labels in encoded]}

    def fingerprint(self) -> str:
        """Changes if the same record would be tokenised differently."""
        return self.digest

    def _plain(self, row: Mapping[str, Any], data: DataConfig) -> tuple[list[int], list[int]]:
        """The text between one beginning and one end, where the tokenizer has them, whether or not the text does."""
        ids = self.tokenizer(row[data.columns.text])["input_ids"]
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if start is not None and ids[:2] == [start, start]:
            ids = ids[1:]
        if end is not None and ids[-1:] != [end]:
            ids = [*ids, end]
        return ids, list(ids)

    def _chat(self, row: Mapping[str, Any], columns: Columns) -> tuple[list[int], list[int]]:
        """Tokenises the same segments as generation: everything before an answer, the answer, and so on."""
        tokenizer, turns, tools = self.tokenizer, messages(row, columns), tools_of(row, columns)
        _require_spoken(tokenizer, turns, tools)
        ids: list[int] = []
        labels: list[int] = []
        seen = ""
        for index, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            before = render(tokenizer, turns[:index], tools, ask=True)
            after = render(tokenizer, turns[: index + 1], tools)
            if not (before.startswith(seen) and after.startswith(before)):
                raise DataError("data.columns: the chat template rewrites earlier turns; use records with one answer")
            asked = tokenizer(before[len(seen) :], add_special_tokens=False)["input_ids"]
            answer = tokenizer(after[len(before) :], add_special_tokens=False)["input_ids"]
            ids += asked + answer
            labels += [IGNORED] * len(asked) + (answer if is_learned(turn) else [IGNORED] * len(answer))
            seen = after
        return ids, labels


def messages(record: Mapping[str, Any], columns: Columns) -> Turns:
    """The record as a list of turns: `role`, `content` and what else the chat template is to write."""
    if columns.messages:
        return [dict(turn) for turn in record[columns.messages]]
    prompt, answer = str(record[columns.prompt or ""]), str(record[columns.answer or ""])
    context = record.get(columns.context) if columns.context else None
    asked = f"{prompt}\n\n{context}" if context else prompt
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def tools_of(record: Mapping[str, Any], columns: Columns) -> Turns | None:
    """The definitions of the tools that the chat may call."""
    return record.get(columns.tools) if columns.tools else None


def render(tokenizer: Any, turns: Turns, tools: Turns | None = None, ask: bool = False) -> str:
    """The turns in the model's chat template; with `ask`, up to the beginning of the answer.

    Raises DataError if there is no template, or if it refuses the turns.
    """
    if not tokenizer.chat_template:
        raise DataError("data.columns: the model has no chat template; use a chat model, or plain `text`")
    shown = [{key: value for key, value in turn.items() if key != "weight"} for turn in turns]
    try:
        text: str = tokenizer.apply_chat_template(shown, tools=tools, tokenize=False, add_generation_prompt=ask)
    except Exception as error:  # a template is a program that came with the model: it may fail in any way
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"data.columns: the model's chat template fails: {reason[0][:200]}") from error
    return text


def _require_spoken(tokenizer: Any, turns: Turns, tools: Turns | None) -> None:
    """Raises DataError for a key of a turn, or for tools, that the chat template leaves out of the text."""
    for number, turn in enumerate(turns):
        for key in sorted(turn.keys() - set(UNSPOKEN)):
            without = {name: value for name, value in turn.items() if name != key}
            if _says_the_same(tokenizer, (turns, tools), ([*turns[:number], without, *turns[number + 1 :]], tools)):
                left_out = f"{key} given in turn {number + 1}, which the model's chat template leaves out"
                raise DataError(
                    f"data.columns.messages: {left_out}; take it out, or use a model that has a place for it"
                )
    if tools and _says_the_same(tokenizer, (turns, tools), (turns, None)):
        raise DataError(
            "data.columns.tools: given, and the model's chat template leaves tools out; use one that has them"
        )


def _says_the_same(tokenizer: Any, chat: tuple[Turns, Turns | None], other: tuple[Turns, Turns | None]) -> bool:
    """Whether two chats have one text; not if the template refuses the `other`."""
    text = render(tokenizer, *chat)
    try:
        return text == render(tokenizer, *other)
    except DataError:
        return False


def _line(turn: Mapping[str, Any]) -> str:
    more = {key: value for key, value in turn.items() if key not in ("role", "content")}
    return f"{turn['role']}: {turn['content']}{_as_json(more) if more else ''}"


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)

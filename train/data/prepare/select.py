"""Selects records and assigns splits from hashes and labels only, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from heliostat.infra import log
from heliostat.infra.errors import DataError
from heliostat.train.data.config import SPLITS, DataConfig, Split
from heliostat.train.data.encoder import Encoder
from heliostat.train.data.formats.source import Source
from heliostat.train.data.prepare import scan
from heliostat.train.data.prepare.encode import VALUES, place, places

NO_CUTOFF = 2**64 - 1
SHOWN_LABELS = 20
SHOWN_BROKEN = 100
_log = log.get(__name__)


@dataclass(frozen=True)
class Plan:
    """Which records to encode, and counts of the others."""

    kept: np.ndarray
    """Keys (`encode.places`) of the kept records, ascending: int64 [records]."""
    cutoff: int
    """Highest order hash among them."""
    bounds: scan.Bounds
    """Hash bounds of the splits."""
    labels: tuple[str, ...]
    counts: dict[str, int]


def select(keys: pa.Table, source: Source, data: DataConfig, encoder: Encoder) -> Plan:
    """The plan for scanned records (the columns `scan.KEYS`, in any order).

    Raises DataError for the first record that could not be read, if no record is usable, or if the labels are not.
    """
    keys = keys.append_column("place", pa.array(places(keys))).sort_by("place")
    broken = keys.filter(pc.equal(keys["status"], scan.BROKEN))
    if broken.num_rows:
        raise DataError(_problem(broken, source))
    _tell(keys.filter(pc.is_valid(keys["problem"])), source)
    usable = keys.filter(pc.equal(keys["status"], scan.KEPT))
    counts = {
        "read": keys.num_rows,
        "filtered": _number(keys, scan.FILTERED),
        "empty": _number(keys, scan.EMPTY),
        "damaged": _number(keys, scan.DAMAGED),
    }
    _require_usable(usable.num_rows, counts, source, data)
    unique, repeated = _unique(usable) if encoder.unique else (usable, {"duplicates": 0, "conflicting": 0})
    kept, cutoff = _limited(unique, data.limit)
    counts |= {**repeated, "beyond_limit": unique.num_rows - kept.num_rows}
    if data.split.stratify and not encoder.labelled:
        raise DataError("data.split.stratify: true given, and the records have no classes; false is allowed")
    hashed, words = scan.hashes(kept["digest"])[0], kept["label"].to_numpy()
    bounds = scan.bounds_of(hashed, words, data.split)
    codes = scan.split_of(hashed, words, bounds)
    _require_splits(codes, data)
    labels = _labels(kept["label"], codes, data, encoder.fewest_classes) if encoder.labelled else ()
    _require_names(usable["label"], data)
    if uneven := _uneven(words, codes, data.split) if data.split.stratify else []:
        more = f" (and {len(uneven) - 1} more)" if len(uneven) > 1 else ""
        _log.warning("data.split.stratify: %s%s; equal records stay in one split", uneven[0], more)
    for problem in _absent(words, codes, labels, data):
        if data.split.stratify:
            raise DataError(f"data.split.stratify: {problem}, or leave the class out with data.where")
        _log.warning("%s, or set data.split.stratify; without it the metrics leave the class out", problem)
    return Plan(kept["place"].to_numpy(), cutoff, bounds, labels, counts)


def finish(table: pa.Table, plan: Plan, source: Source, data: DataConfig, encoder: Encoder) -> pa.Table:
    """The encoded records (`encode.ENCODED`) to write: only those in the plan, in order, checked.

    Adds to `plan.counts`. Raises DataError for the encoder's first error, for a record that is too long if
    `data.overflow` is `fail`, and if a split has no record with a target.
    """
    table = table.sort_by("place")
    broken = table.filter(pc.is_valid(table["problem"]))
    if broken.num_rows:
        raise DataError(f"{source.place(*place(broken['place'][0].as_py()))}: {broken['problem'][0].as_py()}")
    table = table.filter(pc.is_in(table["place"], value_set=pa.array(plan.kept)))
    long = table.filter(pc.greater(table["full_length"], data.max_length))
    if long.num_rows and data.overflow == "fail":
        where, tokens = source.place(*place(long["place"][0].as_py())), long["full_length"][0].as_py()
        raise DataError(
            f"data.max_length: {where} has {tokens} tokens, {data.max_length} are allowed; "
            f"raise it, or set data.overflow to {'split or ' if encoder.is_running_text(data) else ''}truncate"
        )
    learned = table.filter(pc.greater(table["targets"], 0))
    parts = np.unique(table["place"].to_numpy(), return_counts=True)[1]
    plan.counts.update(
        truncated=long.num_rows,
        in_several_parts=int((parts > 1).sum()),
        without_target=table.num_rows - learned.num_rows,
    )
    _require_splits(learned["split"].to_numpy(), data)
    empty = [name for name in ("label", *VALUES) if learned[name].null_count == learned.num_rows]
    _count_unknown(learned, plan, source, data)
    return learned.drop_columns(["place", "full_length", "problem", "unknown", *empty])


def _problem(broken: pa.Table, source: Source) -> str:
    """The first problem; if each record is a file, with the names of the others that cannot be used."""
    found: str = broken["problem"][0].as_py()
    if broken.num_rows == 1 or not source.is_file_each:
        return found
    names = [str(source.files[file]) for file in broken["file"].to_pylist()[1:]]
    more = ", ..." if len(names) > SHOWN_BROKEN else ""
    return f"{found}; nor can {len(names)} more be used: {', '.join(names[:SHOWN_BROKEN])}{more}"


def _tell(noted: pa.Table, source: Source) -> None:
    """Logs the notes on records, those of one kind together: how many there are, and where the first one is."""
    kinds = pc.replace_substring_regex(noted["problem"], r" \(.*\)$", "").to_pylist()
    for kind in dict.fromkeys(kinds):
        first = kinds.index(kind)
        more = f" (and {count - 1} more)" if (count := kinds.count(kind)) > 1 else ""
        where = source.place(noted["file"][first].as_py(), noted["number"][first].as_py())
        _log.warning("%s%s: %s", where, more, noted["problem"][first].as_py())


def _count_unknown(table: pa.Table, plan: Plan, source: Source, data: DataConfig) -> None:
    """Counts the tokens that stand for unknown text; raises DataError if their share is above `data.max_unknown`."""
    unknown, tokens = (int(pc.sum(table[name]).as_py() or 0) for name in ("unknown", "length"))
    plan.counts.update(unknown_tokens=unknown)
    if unknown > data.max_unknown * tokens:
        raise DataError(
            f"data.max_unknown: {data.max_unknown} given, and {unknown / tokens:.2f} of the tokens of "
            f"{source.files[0]} are unknown to the model's tokenizer; use a base model that knows this language, or "
            "model.lstm, which learns the words of your texts"
        )


def _number(keys: pa.Table, status: int) -> int:
    return int(pc.sum(pc.equal(keys["status"], status)).as_py() or 0)


def _require_usable(usable: int, counts: dict[str, int], source: Source, data: DataConfig) -> None:
    if usable:
        return
    read, filtered = counts["read"], counts["filtered"]
    if read and filtered == read:
        raise DataError(f"data.where: {data.where!r} keeps none of the {read} records of {source.files[0]}")
    damaged = f", {counts['damaged']} damaged" if counts["damaged"] else ""
    raise DataError(
        f"data.source: {source.files[0]} has no usable record ({read} read, {filtered} filtered out, "
        f"{counts['empty']} without text or label{damaged})"
    )


def _unique(usable: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """The first record of each text, and the counts of duplicates and of texts with several labels."""
    groups = usable.group_by("digest").aggregate([("place", "min"), ("label", "count_distinct")])
    unique = usable.filter(pc.is_in(usable["place"], value_set=groups["place_min"].combine_chunks()))
    conflicting = pc.sum(pc.greater(groups["label_count_distinct"], 1)).as_py()
    return unique, {"duplicates": usable.num_rows - unique.num_rows, "conflicting": int(conflicting)}


def _limited(unique: pa.Table, limit: int | None) -> tuple[pa.Table, int]:
    """The `limit` records with the lowest order hash: a random sample that is always the same."""
    if limit is None or limit >= unique.num_rows:
        return unique, NO_CUTOFF
    _, order = scan.hashes(unique["digest"])
    cutoff = np.partition(order, limit - 1)[limit - 1]
    return unique.filter(pa.array(order <= cutoff)), int(cutoff)


def _require_splits(codes: np.ndarray, data: DataConfig) -> None:
    shares = {"train": 1.0, **data.split.model_dump()}
    for code, name in enumerate(SPLITS):
        if shares[name] > 0 and not (codes == code).any():
            key, change = ("data.split", "lower it") if name == "train" else (f"data.split.{name}", "set it to 0")
            value = data.split.model_dump() if name == "train" else shares[name]
            raise DataError(
                f"{key}: {value} of {len(codes)} usable records leaves none for {name}; add some or {change}"
            )


def _absent(words: np.ndarray, codes: np.ndarray, labels: Sequence[str], data: DataConfig) -> Iterator[str]:
    """Yields a message for each class without records in a split."""
    for code, name in enumerate(SPLITS):
        present = set(words[codes == code].tolist())
        for label in labels if getattr(data.split, name, 1) > 0 else ():
            if label not in present:
                count = (words == label).sum()
                yield f"class {label!r} has {count} records and none in {name}; add some, raise data.split.{name}"


def _uneven(words: np.ndarray, codes: np.ndarray, split: Split) -> list[str]:
    """A message for each class and split that has not the share that `data.split.stratify` asks for."""
    classes, numbers = np.unique(words, return_inverse=True)
    counts = np.bincount(numbers * len(SPLITS) + codes, minlength=len(classes) * len(SPLITS)).reshape(-1, len(SPLITS))
    found = []
    for label, row in zip(classes.tolist(), counts.tolist(), strict=True):
        first, second = scan.ends_of(sum(row), split)
        for name, asked in (("test", first), ("validation", second - first)):
            count = row[SPLITS.index(name)]
            if count != asked:
                found.append(f"class {label!r} has {count} of its {sum(row)} records in {name}, {asked} are asked for")
    return found


def _require_names(column: pa.ChunkedArray, data: DataConfig) -> None:
    """Raises DataError for a key of data.label_names that is no label, unless data.where may have filtered it out."""
    if data.where or not data.label_names:
        return
    found = set(column.unique().to_pylist())
    for label, name in data.label_names.items():
        if name not in found:
            known = ", ".join(map(repr, sorted(found)[:SHOWN_LABELS]))
            raise DataError(f"data.label_names: {label!r} given, which no record has as its label; there are {known}")


def _labels(column: pa.ChunkedArray, codes: np.ndarray, data: DataConfig, fewest: int) -> tuple[str, ...]:
    """The classes of the training split; raises DataError for fewer than `fewest`, or if other splits have more."""
    training = codes == SPLITS.index("train")
    labels = tuple(sorted(column.filter(pa.array(training)).unique().to_pylist()))
    elsewhere = column.filter(pa.array(~training)).value_counts().to_pylist()
    unknown = sorted((count["values"], count["counts"]) for count in elsewhere if count["values"] not in labels)
    key = f"data.columns.label: column {data.columns.label!r}"
    if unknown:
        more = f" (and {len(unknown) - 1} more labels)" if len(unknown) > 1 else ""
        label, count = unknown[0]
        raise DataError(
            f"{key}: label {label!r} is on {count} validation or test records and on no training record{more}"
            "; filter it out with data.where, or add records"
        )
    if len(labels) < fewest:
        raise DataError(f"{key}: every training record has the label {labels[0]!r}; two classes or more are needed")
    return labels

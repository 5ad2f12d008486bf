"""Reading files of each format, and what is said of those that cannot be read."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any, get_args
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heliostat.infra.errors import DataError
from heliostat.train.data.config import DataConfig
from heliostat.train.data.formats.catalog import FORMATS
from heliostat.train.data.formats.source import Source, find_source, read

NEEDED = {"text": "data.columns.text", "label": "data.columns.label"}
SEPARATORS = "one\u2028two\x85three"


def rows(file: Path, format_: str, needed: dict[str, str] = NEEDED) -> list[tuple[int, dict[str, Any]]]:
    return list(read(file, format_, needed))


def failure(file: Path, format_: str, needed: dict[str, str] = NEEDED) -> str:
    with pytest.raises(DataError) as caught:
        rows(file, format_, needed)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(file), "FILE")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_csv_fields_may_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", '\ufefflabel,extra,text\n0,x,"a, ""b""\nc"\n\n01,y,d\r\n')
    assert rows(file, "csv") == [
        (2, {"text": 'a, "b"\nc', "label": "0"}),
        (5, {"text": "d", "label": "01"}),
    ]


def test_tsv_and_compressed_csv(tmp_path: Path) -> None:
    tabs = write(tmp_path, "a.tsv", "text\tlabel\na,b\t1\n")
    packed = write(tmp_path, "a.csv.gz", gzip.compress(b"text,label\na,1\n"))
    assert rows(tabs, "csv") == [(2, {"text": "a,b", "label": "1"})]
    assert rows(packed, "csv") == [(2, {"text": "a", "label": "1"})]


QUOTED = 'text\tlabel\n1" pipe\ta\n"open\tb\n"said"\tc\n'
BROKEN = 'text\tlabel\n"one\ntwo"\ta\n'


def test_quotes_in_tsv_are_characters_unless_the_spec_says_otherwise(tmp_path: Path) -> None:
    file = write(tmp_path, "a.tsv", QUOTED)
    assert [record["text"] for _, record in rows(file, "csv")] == ['1" pipe', '"open', '"said"']
    broken = write(tmp_path, "b.tsv", BROKEN)
    assert failure(broken, "csv") == (
        "FILE line 2: 1 fields; the header has 2; where quotes enclose fields, set data.quoting to csv"
    )
    assert list(read(broken, "csv", NEEDED, quoting="csv")) == [(2, {"text": "one\ntwo", "label": "a"})]
    commas = write(tmp_path, "a.csv", 'text,label\n"open,b\n')
    assert list(read(commas, "csv", NEEDED, quoting="none")) == [(2, {"text": '"open', "label": "b"})]


def test_quoting_is_for_csv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.quoting: none given, and the files are jsonl; it is for csv"):
        list(read(write(tmp_path, "a.jsonl", "{}\n"), "jsonl", NEEDED, quoting="none"))


def test_a_csv_field_may_be_long(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", f"text,label\n{'x' * 200_000},1\n")
    assert len(rows(file, "csv")[0][1]["text"]) == 200_000


def test_json_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": SEPARATORS, "label": 1}, ensure_ascii=False),
        "",
        '{"text": null, "more": {}}',
    ]
    file = write(tmp_path, "a.jsonl", "\r\n".join(lines))
    assert rows(file, "jsonl") == [
        (1, {"text": SEPARATORS, "label": 1}),
        (3, {"text": None, "label": None}),
    ]


def test_a_json_list_of_records(tmp_path: Path) -> None:
    file = write(tmp_path, "a.json", '[{"text": "a", "label": "x"},\n {"text": "b", "label": "y"}]')
    assert rows(file, "json") == [(1, {"text": "a", "label": "x"}), (2, {"text": "b", "label": "y"})]


def test_parquet_gives_the_columns_asked_for(tmp_path: Path) -> None:
    table = pa.table({"label": [1, None], "text": ["a", "b"], "other": [[1], [2]]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet", "parquet") == [
        (1, {"text": "a", "label": 1}),
        (2, {"text": "b", "label": None}),
    ]


def test_each_line_of_a_text_that_is_not_empty_is_a_record(tmp_path: Path) -> None:
    file = write(tmp_path, "a.txt", f"{SEPARATORS}\r\n\nlast")
    assert rows(file, "text", {"text": "data.columns.text"}) == [
        (1, {"text": SEPARATORS}),
        (3, {"text": "last"}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\na,0\nb\nc,1\n", "FILE line 3: 1 fields; the header has 2"),
        ("a.csv", 'text,label\n"a,0\n', "FILE line 2: not CSV: unexpected end of data"),
        (
            "a.csv",
            b"text,label\na,0\n\xff,1\n",
            "FILE line 3: not UTF-8 (byte 0xff at 1); save the file as UTF-8",
        ),
        ("a.csv", "body,label\na,0\n", "data.columns.text: column 'text' is not in FILE; it has body, label"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"text": }\n',
            "FILE line 2 character 10: not JSON: Expecting value",
        ),
        ("a.jsonl", '{"text": "a", "label": 1}\n[1]\n', "FILE line 2: holds list; a record {...} is needed"),
        ("a.jsonl", '{"text": "a"}\n', "data.columns.label: column 'label' is not in FILE; it has text"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}\n', "FILE line 2: 'text': given twice in one object"),
        ("a.json", '[{"text": "b", "text": "c"}]', "FILE: 'text': given twice in one object"),
        ("a.jsonl", "[" * 100_000, "FILE line 1: JSON nested too deeply"),
        ("a.json", '{"text": "a"}', "FILE: holds one dict; a JSON list of records {...} is needed"),
        ("a.json", '[{"text":\n oops}]', "FILE line 2 character 2: not JSON: Expecting value"),
        ("a.json", "[1]", "FILE record 1: holds int; a record {...} is needed"),
        ("a.txt", "a\n", "data.columns.label: column 'label' is not in FILE; it has text"),
    ],
)
def test_a_file_that_breaks_its_format_is_named_with_the_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    file = write(tmp_path, name, content)
    assert failure(file, find_source(file, "auto").format) == message


def test_what_is_no_parquet_and_what_is_not_there_are_said_in_one_line(tmp_path: Path) -> None:
    file = write(tmp_path, "a.parquet", b"PAR1 nonsense")
    assert failure(file, "parquet").startswith("FILE: not a readable Parquet file: ")
    assert failure(tmp_path / "gone.csv", "csv") == "FILE: cannot be read: No such file or directory"
    damaged = write(tmp_path, "a.csv.gz", gzip.compress(b"text,label\na,1\n" * 999)[:40])
    assert failure(damaged, "csv").startswith("FILE: cannot be read: ")


def test_a_column_that_is_there_twice_and_text_that_is_none(tmp_path: Path) -> None:
    twice = "FILE: column 'text' is there twice; names that differ are needed"
    assert failure(write(tmp_path, "a.csv", "text,text,label\n1,2,3\n"), "csv") == twice
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])]
    pq.write_table(pa.Table.from_arrays(columns, ["text", "text", "label"]), tmp_path / "a.parquet")
    assert failure(tmp_path / "a.parquet", "parquet") == twice
    offsets, content = np.array([0, 1, 2], dtype=np.int32).tobytes(), b"a\xff"
    broken = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(content)])
    pq.write_table(pa.table({"text": broken, "label": ["x", "y"]}), tmp_path / "b.parquet")
    assert failure(tmp_path / "b.parquet", "parquet") == "FILE: one of records 1 to 2 is not UTF-8"


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    write(tmp_path / "caf\udce9", "a.txt", "one\n")
    with pytest.raises(DataError, match=r"data.source: '.*caf.udce9/a.txt' is a name that is not UTF-8; rename it"):
        find_source(tmp_path, "auto")


def test_a_folder_gives_its_files_of_one_format_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.csv", "b/a.csv", ".hidden.json", "README.md"):
        write(tmp_path, name, "text\na\n")
    source = find_source(tmp_path, "auto")
    assert [file.relative_to(tmp_path).as_posix() for file in source.files] == ["b/a.csv", "z.csv"]
    assert source.format == "csv"
    assert source.place(1, 7) == f"{tmp_path / 'z.csv'} line 7"
    assert Source((tmp_path / "a.json",), "json").place(0, 7) == f"{tmp_path / 'a.json'} record 7"


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    for folder in ("data", "outside/more"):
        (tmp_path / folder).mkdir(parents=True)
    outside = write(tmp_path / "outside" / "more", "b.csv", "text\nb\n")
    write(tmp_path / "data", "a.csv", "text\na\n")
    (tmp_path / "data" / "files").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "c.csv").symlink_to(outside)
    files = find_source(tmp_path / "data", "auto").files
    assert [file.relative_to(tmp_path / "data").as_posix() for file in files] == ["a.csv", "c.csv", "files/more/b.csv"]


def test_a_link_that_leads_back_or_to_nothing_and_a_folder_that_is_closed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "parts").mkdir(parents=True)
    file = tmp_path / "data" / "lost.csv"
    write(tmp_path / "data" / "parts", "a.csv", "text\na\n")
    file.symlink_to("gone.csv")
    with pytest.raises(DataError, match=r"data.source: .*/lost.csv is a link to gone.csv, which is not there"):
        find_source(tmp_path / "data", "auto")
    file.unlink()
    (tmp_path / "data" / "parts" / "all").symlink_to(tmp_path / "data")
    with pytest.raises(DataError, match=r"data.source: .*/parts/all is a link to a folder that it lies in itself, "):
        find_source(tmp_path / "data", "auto")
    monkeypatch.setattr(os, "scandir", Mock(side_effect=PermissionError(13, "Permission denied", "data/parts")))
    with pytest.raises(DataError, match=r"^data/parts: cannot be read: Permission denied$"):
        find_source(tmp_path / "data", "auto")


def test_a_format_that_is_given_overrides_endings(tmp_path: Path) -> None:
    file = write(tmp_path, "play", "Enter Hamlet\n")
    other = write(tmp_path, "notes.json", "{}")
    assert find_source(file, "text") == Source((file,), "text")
    assert find_source(tmp_path, "json") == Source((other,), "json")
    assert find_source(tmp_path, "csv").files == (other, file)


def test_a_folder_that_says_too_little_or_too_much_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.source: .* no file whose ending tells its format; set data\.format"):
        find_source(tmp_path, "auto")
    with pytest.raises(DataError, match=r"data\.source: .* holds no files"):
        find_source(tmp_path, "csv")
    write(tmp_path, "a.csv", "")
    write(tmp_path, "a.json", "")
    with pytest.raises(DataError, match=r"files of several formats \(csv, json\)"):
        find_source(tmp_path, "auto")


def test_the_spec_takes_every_format_that_there_is() -> None:
    assert set(get_args(DataConfig.model_fields["format"].annotation)) == {"auto", *FORMATS}


def test_no_ending_tells_two_formats() -> None:
    endings = [ending for one in FORMATS.values() for ending in one.endings]
    assert len(endings) == len(set(endings))

"""Exported programs that run code: each is shown to do so with torch alone; none of it runs with Heliostat."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from heliostat.infra.errors import ModelError
from heliostat.infra.registry import programs
from tests.tiny_programs import TABLE, table_program

GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
INPUTS = "data/sample_inputs/model.pt"
Records = dict[str, bytes]
EXAMPLE = {"features": torch.zeros(2, TABLE.width)}


class Evil:
    """Makes the file `mark` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def code(mark: Path) -> str:
    """An expression that makes the file `mark`."""
    return f"__import__('pathlib').Path({str(mark)!r}).touch()"


def torch_pickle(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Evil(mark), buffer)
    return buffer.getvalue()


def edited(records: Records, name: str, change: Callable[[Any], None]) -> None:
    """Changes one JSON record."""
    value = json.loads(records[name])
    change(value)
    records[name] = json.dumps(value).encode()


def pickled_inputs(records: Records, mark: Path) -> None:
    records[INPUTS] = torch_pickle(mark)


def pickled_weight(records: Records, mark: Path) -> None:
    edited(records, WEIGHTS, lambda found: found["config"]["linear.weight"].update(use_pickle=True))
    records["data/weights/weight_0"] = torch_pickle(mark)


def pickled_weights_of_an_older_format(records: Records, mark: Path) -> None:
    records["data/weights/model.pt"] = torch_pickle(mark)


def _constant(records: Records, name: str) -> None:
    payload = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
    edited(records, CONSTANTS, lambda found: found["config"].update(x=payload))


def pickled_constant(records: Records, mark: Path) -> None:
    _constant(records, "tensor_0")
    records["data/constants/tensor_0"] = torch_pickle(mark)


def pickled_object(records: Records, mark: Path) -> None:
    _constant(records, "opaque_obj_0")
    records["data/constants/opaque_obj_0"] = pickle.dumps(Evil(mark))


def second_program(records: Records, mark: Path) -> None:
    for name in (GRAPH, WEIGHTS, CONSTANTS, INPUTS):
        records[name.replace("model.", "more.").replace("model_", "more_")] = records[name]
    records[INPUTS.replace("model", "more")] = torch_pickle(mark)


def an_expression(records: Records, mark: Path) -> None:
    """A size, which is evaluated."""

    def change(found: dict[str, Any]) -> None:
        size = found["graph_module"]["graph"]["tensor_values"]["linear"]["sizes"][0]
        size["as_expr"]["expr_str"] = f"[{size['as_expr']['expr_str']}, {code(mark)}][0]"

    edited(records, GRAPH, change)


def source_code(records: Records, mark: Path) -> None:
    """A name of an input, which becomes part of generated source."""
    name = f"features=({code(mark)})"
    records[GRAPH] = records[GRAPH].replace(b'"name": "features"', b'"name": ' + json.dumps(name).encode())
    edited(records, GRAPH, lambda found: _rename(found["graph_module"]["graph"]["tensor_values"], "features", name))


def a_file(records: Records, mark: Path) -> None:
    """An operator of ATen that writes a file."""

    def change(found: dict[str, Any]) -> None:
        values = {"filename": {"as_string": str(mark)}, "shared": {"as_bool": True}, "size": {"as_int": 4}}
        inputs = [{"name": name, "arg": value, "kind": 1} for name, value in values.items()]
        graph = found["graph_module"]["graph"]
        graph["tensor_values"]["more"] = graph["tensor_values"]["p_linear_bias"]
        node = {"target": "torch.ops.aten.from_file.default", "inputs": inputs, "metadata": {}}
        graph["nodes"].append(node | {"outputs": [{"as_tensor": {"name": "more"}}]})

    edited(records, GRAPH, change)


def _rename(values: dict[str, Any], old: str, new: str) -> None:
    values[new] = values.pop(old)


ATTACKS = [
    pickled_inputs,
    pickled_weight,
    pickled_weights_of_an_older_format,
    pickled_constant,
    pickled_object,
    second_program,
    an_expression,
    source_code,
    a_file,
]


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """A harmless program, as training publishes it, entry by entry."""
    table_program(tmp_path)
    archive = PT2ArchiveReader(str(tmp_path / programs.FILE))
    return {name: archive.read_bytes(name) for name in archive.get_file_names() if not name.startswith(".data/")}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch logs the errors of the crafted archives."""
    monkeypatch.setattr(torch.export.log, "disabled", True)


def written(records: Records, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    with PT2ArchiveWriter(str(folder / programs.FILE)) as archive:
        for name, data in records.items():
            if name != "byteorder":  # the writer adds it
                archive.write_bytes(name, data)
    return folder


def run_with_torch(folder: Path) -> None:
    """Loads and calls the program as torch does, until the first error."""
    with contextlib.suppress(Exception):  # what matters is what has run until then
        torch.export.load(folder / programs.FILE).module()(**EXAMPLE)


def test_a_harmless_archive_that_was_written_again_is_loaded(records: Records, tmp_path: Path) -> None:
    program = programs.load(written(records, tmp_path / "again"))
    assert torch.equal(program(**EXAMPLE), programs.load(tmp_path)(**EXAMPLE))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_program_that_runs_code_is_refused_before_any_has_run(
    attack: Callable[[Records, Path], None], records: Records, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    attack(records, mark)
    folder = written(records, tmp_path / "crafted")
    run_with_torch(folder)
    assert mark.exists()  # the attack is a real one
    mark.unlink()
    with pytest.raises(ModelError, match=r"^[^\n]*program.pt2: refused, since it could run code: holds [^\n]*$"):
        programs.load(folder)
    assert not mark.exists()


def test_the_pickled_format_of_torch_2_7_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with zipfile.ZipFile(tmp_path / programs.FILE, "w") as archive:
        archive.writestr("version", ".".join(map(str, torch._export.serde.schema.SCHEMA_VERSION)))
        archive.writestr("serialized_exported_program.json", "{}")
        for name in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{name}.pt", torch_pickle(mark))
    with pytest.raises(ModelError, match=r"program.pt2: cannot be loaded"):
        programs.load(tmp_path)
    assert not mark.exists()


def test_guards_in_an_archive_are_never_run(records: Records, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    edited(records, GRAPH, lambda found: found.update(guards_code=[code(mark)]))
    program = programs.load(written(records, tmp_path / "crafted"))
    program(**EXAMPLE)
    assert not mark.exists()


@pytest.mark.parametrize("target", ["torch.os.system", "_operator.call", "math.os", "torch.ops.aten.__class__.default"])
def test_calls_of_other_things_than_operators_are_refused(target: str, records: Records, tmp_path: Path) -> None:
    """torch refuses these itself, but only after it has generated source with the graph's names."""

    def change(found: dict[str, Any]) -> None:
        arguments = [{"name": "", "arg": {"as_string": "true"}, "kind": 1}]
        node = {"target": target, "inputs": arguments, "outputs": [{"as_none": True}], "metadata": {}}
        found["graph_module"]["graph"]["nodes"].append(node)

    edited(records, GRAPH, change)
    with pytest.raises(ModelError, match=rf"holds Node.target '{target}'"):
        programs.load(written(records, tmp_path / "crafted"))


@pytest.mark.parametrize(
    "structure",
    [
        {"type": "builtins.dict", "context": '["features, more=print()"]', "children_spec": []},
        {"type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "antigravity:x"}]', "children_spec": []},
        {"type": "collections.defaultdict", "context": "null", "children_spec": []},
    ],
)
def test_inputs_of_other_structures_are_refused(structure: Any, records: Records, tmp_path: Path) -> None:
    """Keys become part of generated source; enumerations and default values are imported by name."""

    def change(found: dict[str, Any]) -> None:
        found["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps([1, structure])

    edited(records, GRAPH, change)
    with pytest.raises(ModelError, match=r"holds ModuleCallSignature.in_spec"):
        programs.load(written(records, tmp_path / "crafted"))


def test_a_compiled_library_in_an_archive_is_refused(records: Records, tmp_path: Path) -> None:
    records["data/aotinductor/model/model.so"] = b"\x7fELF"
    with pytest.raises(ModelError, match=r"holds the entry 'data/aotinductor/model/model.so'"):
        programs.load(written(records, tmp_path / "crafted"))


def test_two_entries_of_one_name_are_refused(records: Records, tmp_path: Path) -> None:
    """What is checked and what is loaded could be different ones."""
    folder = written(records, tmp_path / "crafted")
    with zipfile.ZipFile(folder / programs.FILE, "a") as archive:
        name = next(one for one in archive.namelist() if one.endswith(INPUTS))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, torch_pickle(tmp_path / "mark"))
    with pytest.raises(ModelError, match=r"refused, since it could run code: holds the entry"):
        programs.load(folder)


@pytest.mark.parametrize(
    "size",
    ["exec(chr(49))", "Symbol.func", "Symbol('s0')(1)", "[Integer(1)][0]", "Integer(1) if 1 else 2", "lambda: 1"],
)
def test_expressions_of_other_things_than_sizes_are_refused(size: str, records: Records, tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        found["graph_module"]["graph"]["tensor_values"]["linear"]["sizes"][0]["as_expr"]["expr_str"] = size

    edited(records, GRAPH, change)
    with pytest.raises(ModelError, match=r"holds SymExpr.expr_str"):
        programs.load(written(records, tmp_path / "crafted"))

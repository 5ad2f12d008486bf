"""Refuses exported programs that could run code when they are loaded or called.

`torch.export.load` unpickles whatever in an archive says that it is pickled, loads compiled libraries, evaluates the
expressions of sizes as Python, imports types by name, and generates source code with the names in the graph; the graph
itself may write files (`aten::from_file`). So an archive is read here first, as data, and only what is known to be
harmless passes: weights as plain bytes, a graph of ATen operators, and names that are names.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import _SYM_OPS, _bytes_to_dataclass
from torch._export.serde.union import _Union
from torch.export.pt2_archive import PT2ArchiveReader

from heliostat.infra.errors import ModelError

_GRAPH = "models/model.json"
_INPUTS = "data/sample_inputs/model.pt"
_PAYLOADS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_RECORDS = re.compile(
    r"archive_(format|version)|byteorder|\.data/(version|serialization_id)|models/model\.json"
    r"|data/weights/(model_weights_config\.json|weight_\d+)|data/constants/(model_constants_config\.json|tensor_\d+)"
    r"|data/sample_inputs/model\.pt"
)
"""The entries of an exported program, as Heliostat writes one; all but the example inputs are plain data."""
_TENSOR = re.compile(r"(weight|tensor)_\d+")
_NAME = re.compile(r"[\w.]*", re.ASCII)
_PATH = re.compile(r"[\w.@]*", re.ASCII)
_QUOTABLE = re.compile(r"[^'\"\\\n]*")
_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)", re.ASCII)
_SIZES = frozenset({"Symbol", "Integer", "Add", "Mul", "Max", "Min", "FloorDiv", "Mod", "PythonMod", "ModularIndexing"})
"""The functions in an expression of sizes; all are pure, and their results are about as large as their arguments."""
_ARITHMETIC = frozenset(f"{one.__module__}.{one.__name__}" for one in _SYM_OPS)
"""Operators on sizes, as `torch.export` names them."""
_KEYS = re.compile(r'null|\[("\w+"(, )?)*\]', re.ASCII)
_CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict")


def check(file: Path) -> None:
    """Raises ModelError if the archive `file` holds anything that could run code.

    Other exceptions are raised, of any kind, if it cannot be read.
    """
    archive = PT2ArchiveReader(str(file))
    _check_records(file, archive)
    for config in _PAYLOADS:
        _check_payload(file, _bytes_to_dataclass(schema.PayloadConfig, archive.read_bytes(config)))
    program = _bytes_to_dataclass(schema.ExportedProgram, archive.read_bytes(_GRAPH))
    for field, text in _strings(program):
        if not _RULES.get(field, _is_name)(text):
            raise _refused(file, f"{field} {text[:80]!r}")


def _check_records(file: Path, archive: PT2ArchiveReader) -> None:
    names = archive.get_file_names()
    for name in names:
        if not _RECORDS.fullmatch(name) or names.count(name) > 1:
            raise _refused(file, f"the entry {name[:80]!r}")
    if archive.read_bytes(_INPUTS):
        raise _refused(file, "example inputs, which are pickled")


def _check_payload(file: Path, config: schema.PayloadConfig) -> None:
    for name, payload in config.config.items():
        if payload.use_pickle is not False or not _TENSOR.fullmatch(payload.path_name):
            raise _refused(file, f"the pickled tensor {name[:80]!r}")
        if not _is_name(name):
            raise _refused(file, f"the tensor {name[:80]!r}")


def _refused(file: Path, found: str) -> ModelError:
    return ModelError(
        f"{file}: refused, since it could run code: holds {found}; a program as training publishes is needed"
    )


def _strings(part: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """All texts of a serialised program, the keys of its mappings too, each with its class and field."""
    if isinstance(part, str):
        yield field, part
    elif isinstance(part, _Union):
        yield from _strings(part.value, f"{type(part).__name__}.{part.type}")
    elif dataclasses.is_dataclass(part):
        for one in dataclasses.fields(part):
            yield from _strings(getattr(part, one.name), f"{type(part).__name__}.{one.name}")
    elif isinstance(part, dict):
        for key, value in part.items():
            yield field, key
            yield from _strings(value, field)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _strings(value, field)


def _is_name(text: str) -> bool:
    """Whether a text can stand in generated source: a name, or names with dots between them."""
    return bool(_NAME.fullmatch(text))


def _is_operator(text: str) -> bool:
    """Whether it computes on tensors or sizes and does nothing else; two operators of ATen read and write files."""
    if text in _ARITHMETIC:
        return True
    named = _ATEN.fullmatch(text)
    operator = getattr(getattr(torch.ops.aten, named[1], None), named[2], None) if named else None
    if not isinstance(operator, torch._ops.OpOverload):
        return False
    return all(argument.name != "filename" for argument in operator._schema.arguments)


def _is_size(text: str) -> bool:
    """Whether it is an expression of sizes as `sympy.srepr` writes one, such as Mul(Integer(5), Symbol('s0'))."""
    return all(_is_part_of_size(node) for node in ast.walk(ast.parse(text, mode="eval")))


def _is_part_of_size(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _SIZES
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int) or (isinstance(node.value, str) and _is_name(node.value))
    return isinstance(node, (ast.Expression, ast.keyword, ast.UnaryOp, ast.USub, ast.Load))


def _is_structure(text: str) -> bool:
    """Whether it says how inputs or outputs are nested in tuples, lists and mappings whose keys are names."""
    _, found = json.loads(text)
    return _is_container(found)


def _is_container(found: dict[str, Any]) -> bool:
    kind, keys = found["type"], found["context"]
    if kind is None:
        return keys is None and not found["children_spec"]
    return kind in _CONTAINERS and bool(_KEYS.fullmatch(keys)) and all(map(_is_container, found["children_spec"]))


def _is_unused(_text: str) -> bool:
    """Notes for people, and guards, which `Program` does not generate."""
    return True


_RULES: dict[str, Callable[[str], bool]] = {
    "Node.target": _is_operator,
    "Argument.as_operator": _is_operator,
    "SymExpr.expr_str": _is_size,
    "ModuleCallSignature.in_spec": _is_structure,
    "ModuleCallSignature.out_spec": _is_structure,
    "ModuleCallEntry.fqn": lambda text: bool(_PATH.fullmatch(text)),
    "Argument.as_string": lambda text: bool(_QUOTABLE.fullmatch(text)),
    "Node.metadata": _is_unused,
    "GraphModule.metadata": _is_unused,
    "ExportedProgram.torch_version": _is_unused,
    "ExportedProgram.guards_code": _is_unused,
}
"""What a text must be, by its class and field in torch's schema; a name where nothing else is said."""

"""The row filter `data.where`: a small expression language, parsed with Python's `ast` and never executed.

Allowed: column names (`column('odd name')` if a name is not an identifier), text, numbers, true and false, None,
lists, comparisons, `in`, `and`, `or`, `not`, `len(...)` and a few string methods. A comparison with a missing value is
false, except that `!=` is true. CSV holds only text, so text that is compared with a number is converted to one, and
`1.0` equals `1`, and `True` equals `true`.
"""

from __future__ import annotations

import ast
import operator
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from heliostat.infra.errors import DataError
from heliostat.infra.registry.inputs import one_spelling

METHODS = ("lower", "upper", "strip", "startswith", "endswith")
ALLOWED = (
    "allowed are column names, text, numbers, lists, comparisons, in, and, or, not, len() and the methods "
    + ", ".join(METHODS)
)
MAX_CHARACTERS = 2000

Value = Callable[[Mapping[str, Any]], Any]
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """A parsed expression: call it with a record to find out whether to keep the record."""

    expression: str
    columns: tuple[str, ...]
    """Columns that the expression reads."""
    value: Value

    def __call__(self, record: Mapping[str, Any]) -> bool:
        """Whether the expression is true for `record`; raises DataError if its values cannot be compared."""
        return _truth(self.value(record))


@lru_cache(maxsize=16)
def parse(expression: str) -> Condition:
    """Parses `expression`; raises ValueError that names what is not allowed in it, and what is."""
    if len(expression) > MAX_CHARACTERS:
        raise ValueError(f"an expression of {len(expression)} characters; {MAX_CHARACTERS} are allowed")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        columns: dict[str, None] = {}
        value = _compiled(tree.body, columns)
    except SyntaxError as error:
        raise ValueError(f"not an expression ({error.msg} at character {error.offset}); {ALLOWED}") from None
    except (RecursionError, MemoryError):
        raise ValueError(f"an expression nested too deeply; {ALLOWED}") from None
    return Condition(expression, tuple(columns), value)


def _compiled(node: ast.expr, columns: dict[str, None]) -> Value:
    """A function from a record to the value of `node`; adds the columns that it reads to `columns`."""
    match node:
        case ast.BoolOp(op=op, values=values):
            parts = [_compiled(value, columns) for value in values]
            judge = all if isinstance(op, ast.And) else any
            return lambda record: judge(_truth(part(record)) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            part = _compiled(operand, columns)
            return lambda record: not _truth(part(record))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return _constant(-number)
        case ast.Compare():
            return _comparison(node, columns)
        case ast.Call():
            return _call(node, columns)
        case ast.Name(id=name):
            return _column(name, columns)
        case ast.Constant(value=str() | int() | float() | None as constant):
            return _constant(_composed(constant))
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            parts = [_compiled(item, columns) for item in items]
            return lambda record: [part(record) for part in parts]
    raise ValueError(f"{ast.unparse(node)!r} is not allowed; {ALLOWED}")


def _constant(value: Any) -> Value:
    def constant(_record: Mapping[str, Any]) -> Any:
        return value

    return constant


def _column(name: str, columns: dict[str, None]) -> Value:
    if name in ("true", "false"):
        return _constant(name == "true")
    columns[name] = None
    return lambda record: _composed(record.get(name))


def _composed(value: Any) -> Any:
    """Text in Unicode's NFC, so that one word compares as equal however its accents are composed."""
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def _call(node: ast.Call, columns: dict[str, None]) -> Value:
    match node:
        case ast.Call(func=ast.Name(id="column"), args=[ast.Constant(value=str() as name)], keywords=[]):
            columns[name] = None
            return lambda record: _composed(record.get(name))
        case ast.Call(func=ast.Name(id="len"), args=[inner], keywords=[]):
            value = _compiled(inner, columns)
            return lambda record: len(value(record) or "")
        case ast.Call(func=ast.Attribute(value=inner, attr=method), args=arguments, keywords=[]) if (
            method in METHODS and len(arguments) == (1 if method.endswith("with") else 0)
        ):
            value, parts = _compiled(inner, columns), [_compiled(argument, columns) for argument in arguments]
            return lambda record: getattr(_text(value(record)), method)(*(_text(part(record)) for part in parts))
    raise ValueError(f"{ast.unparse(node)!r} is not allowed; {ALLOWED}")


def _comparison(node: ast.Compare, columns: dict[str, None]) -> Value:
    values = [_compiled(value, columns) for value in [node.left, *node.comparators]]
    judges = [_judge(op) for op in node.ops]

    def compare(record: Mapping[str, Any]) -> bool:
        found = [value(record) for value in values]
        return all(judge(*pair) for judge, *pair in zip(judges, found[:-1], found[1:], strict=True))

    return compare


def _judge(op: ast.cmpop) -> Callable[[Any, Any], bool]:
    match op:
        case ast.Eq() | ast.Is():
            return _equal
        case ast.NotEq() | ast.IsNot():
            return lambda left, right: not _equal(left, right)
        case ast.In():
            return _among
        case ast.NotIn():
            return lambda left, right: not _among(left, right)
    return lambda left, right: _ordered(_COMPARE[type(op)], left, right)


def _equal(left: Any, right: Any) -> bool:
    left, right = _alike(left, right)
    if isinstance(left, str) and isinstance(right, str):
        return one_spelling(left) == one_spelling(right)
    return bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    left, right = _alike(left, right)
    if left is None or right is None:
        return False
    try:
        return compare(left, right)
    except TypeError:
        kinds = f"{type(left).__name__} and {type(right).__name__}"
        raise DataError(f"data.where: {left!r} cannot be compared with {right!r} ({kinds})") from None


def _among(item: Any, group: Any) -> bool:
    if isinstance(group, str):
        return isinstance(item, str) and item in group
    return any(_equal(item, member) for member in group or ())


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Both values; text is converted to the type of the other value (number or boolean)."""
    if isinstance(left, str) and isinstance(right, (int, float)):
        return _read(left, right), right
    if isinstance(right, str) and isinstance(left, (int, float)):
        return left, _read(right, left)
    return left, right


def _read(text: str, like: float | bool) -> float | bool | None:
    if not text.strip():
        return None
    if isinstance(like, bool):
        return _truth(text)
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise DataError(f"data.where: {text[:40]!r} cannot be compared with {like!r}; a number is needed") from None


def _truth(value: Any) -> bool:
    if not isinstance(value, str):
        return bool(value)
    word = value.strip().lower()
    if word not in ("", "true", "false"):
        raise DataError(f"data.where: {value[:40]!r} is neither true nor false; compare it with something")
    return word == "true"


def _text(value: Any) -> str:
    return "" if value is None else str(value)

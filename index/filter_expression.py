"""``where``: which items a request may get, as a tree of comparisons over catalog fields.

Two forms say the same. An expression string, for Python and the command line::

    year >= 1990 and "Comedy" in genres and not kind == "album"

and a structured form, for the API::

    {"all": [{"field": "year", "op": ">=", "value": 1990},
             {"field": "genres", "op": "contains", "value": "Comedy"},
             {"not": {"field": "kind", "op": "==", "value": "album"}}]}

with ``{"category": ["Books", "Music"]}`` as the short form of membership. Strings are parsed by Python's own
parser into a syntax tree, of which only comparisons, names and literals are accepted; nothing is evaluated as
code. A missing value satisfies no comparison (so ``not`` of a comparison with it holds). This module knows
what may be compared with what; :mod:`index.filter_columns` compares.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import polars as pl
from polars.datatypes import DataType, DataTypeClass

from index.catalog import Catalog
from index.errors import FilterError

Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">=", "in", "contains"]
Scalar: TypeAlias = str | int | float | bool
PolarsDataType: TypeAlias = DataType | DataTypeClass
MAX_NODES = 1000  # a filter comes from outside: bound its size
MAX_DEPTH = 32

_COMPARE: dict[type[ast.cmpop], Operator] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
}
_MIRRORED: dict[Operator, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


@dataclass(frozen=True, slots=True)
class Comparison:
    """``field op value``; ``in`` takes several values, ``contains`` asks a list field for one."""

    field: str
    op: Operator
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; of no parts, true."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Any_:
    """At least one part holds; of no parts, false."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter: TypeAlias = Comparison | All | Any_ | Not
Where: TypeAlias = str | Mapping[str, Any]
"""What a caller writes: an expression string, or the structured form."""


def parse_filter(where: Where) -> Filter:
    """Read either form.

    Raises:
        FilterError: not a filter; says where and what was expected.
    """
    parsed = _from_string(where) if isinstance(where, str) else _from_mapping(where, 0)
    if _size(parsed) > MAX_NODES:
        raise FilterError(f"expected a filter of at most {MAX_NODES} parts, got {_size(parsed)}")
    return parsed


def both(one: Where | None, other: Where | None) -> Where | None:
    """A filter that holds where both do; a missing one asks for nothing.

    Raises:
        FilterError: one of two is no filter.
    """
    if one is None or other is None:
        return other if one is None else one
    return {"all": [structured(parse_filter(part)) for part in (one, other)]}


def structured(parsed: Filter) -> dict[str, Any]:
    """A filter in its structured form: the inverse of :func:`parse_filter`."""
    match parsed:
        case Comparison(field, op, value):
            return {"field": field, "op": op, "value": list(value) if isinstance(value, tuple) else value}
        case Not(part):
            return {"not": structured(part)}
        case All(parts) | Any_(parts):
            return {"all" if isinstance(parsed, All) else "any": [structured(part) for part in parts]}


def canonical(parsed: Filter) -> str:
    """One spelling per meaning as far as order goes: the key under which a filter's bitmap is kept."""
    return json.dumps(_plain(parsed), sort_keys=True, ensure_ascii=False)


def check_comparison(one: Comparison, catalog: Catalog) -> None:
    """Whether a catalog's field can be compared so.

    Raises:
        FilterError: an unknown field, or a comparison the field's type does not have.
    """
    schema = catalog.frame.schema
    if one.field not in schema:
        raise FilterError(f"expected a field of the catalog ({', '.join(schema)}), got {one.field!r}")
    dtype = schema[one.field]
    is_list = isinstance(dtype, pl.List)
    kind = dtype.inner if isinstance(dtype, pl.List) else dtype
    for value in one.value if isinstance(one.value, tuple) else (one.value,):
        if not _comparable(value, kind):
            raise FilterError(
                f"expected a value of type {_type_name(kind)} for field {one.field!r}, got {value!r}"
            )
    if one.op == "contains" and not is_list:
        raise FilterError(f"expected a list field before 'contains', got {one.field!r} ({_type_name(dtype)})")
    if is_list and one.op not in ("contains", "==", "in"):
        raise FilterError(f"expected 'contains' or 'in' for the list field {one.field!r}, got {one.op!r}")
    if kind == pl.Boolean and one.op in ("<", "<=", ">", ">="):
        raise FilterError(f"expected == or != for the boolean field {one.field!r}, got {one.op!r}")


def _comparable(value: Scalar, dtype: PolarsDataType) -> bool:
    if isinstance(value, bool):
        return dtype == pl.Boolean
    if isinstance(value, (int, float)):
        return dtype in (pl.Int64, pl.Float64)
    return dtype == pl.String


def _type_name(dtype: PolarsDataType) -> str:
    names = {pl.Int64: "number", pl.Float64: "number", pl.String: "string", pl.Boolean: "true or false"}
    return next((name for known, name in names.items() if dtype == known), str(dtype))


def _from_string(text: str) -> Filter:
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise FilterError(
            f'expected a filter such as year >= 1990 and "Comedy" in genres, got {text[:200]!r}: {reason}'
        ) from error
    return _from_syntax(tree.body, 0)


def _from_syntax(node: ast.expr, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise FilterError(f"expected a filter nested at most {MAX_DEPTH} deep, got a deeper one")
    match node:
        case ast.BoolOp(op, values):
            parts = tuple(_from_syntax(value, depth + 1) for value in values)
            return All(parts) if isinstance(op, ast.And) else Any_(parts)
        case ast.UnaryOp(ast.Not(), operand):
            return Not(_from_syntax(operand, depth + 1))
        case ast.Compare(left, operators, comparators):
            operands = [left, *comparators]
            parts = tuple(
                _one_comparison(a, op, b)
                for a, op, b in zip(operands[:-1], operators, operands[1:], strict=True)
            )
            return parts[0] if len(parts) == 1 else All(parts)
    raise FilterError(f"expected a comparison such as year >= 1990, got {ast.unparse(node)[:100]!r}")


def _one_comparison(left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Filter:
    """``field op value``, ``value op field``, ``field in (values)`` or ``value in field``."""
    if isinstance(operator, ast.NotIn):
        return Not(_one_comparison(left, ast.In(), right))
    op = _COMPARE.get(type(operator))
    if op is None:
        raise FilterError(
            f"expected one of {', '.join(_COMPARE.values())}, not in; got {type(operator).__name__}"
        )
    if isinstance(left, ast.Name):
        value = _literal(right)
        if (op == "in") != isinstance(value, tuple):
            raise FilterError(f"expected a list of values after 'in' and one value otherwise, got {value!r}")
        return Comparison(left.id, op, value)
    if isinstance(right, ast.Name):
        value = _literal(left)
        if op == "in":
            return Comparison(right.id, "contains", _scalar(value))
        return Comparison(right.id, _MIRRORED[op], _scalar(value))
    raise FilterError(
        f"expected a field on one side of {op}, got {ast.unparse(left)!r} and {ast.unparse(right)!r}"
    )


def _literal(node: ast.expr) -> Scalar | tuple[Scalar, ...]:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise FilterError(
            f"expected a string, a number or a list of them, got {ast.unparse(node)!r}"
        ) from error
    if isinstance(value, (list, tuple, set)):
        return tuple(_scalar(one) for one in value)
    return _scalar(value)


def _from_mapping(value: object, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise FilterError(f"expected a filter nested at most {MAX_DEPTH} deep, got a deeper one")
    if not isinstance(value, Mapping) or not value:
        raise FilterError(f"expected an object with 'field', 'all', 'any' or 'not', got {_shown(value)}")
    keys = set(value)
    if keys == {"not"}:
        return Not(_from_mapping(value["not"], depth + 1))
    if keys in ({"all"}, {"any"}):
        (name,) = keys
        parts = value[name]
        if not isinstance(parts, Sequence) or isinstance(parts, str):
            raise FilterError(f"expected a list under {name!r}, got {_shown(parts)}")
        inner = tuple(_from_mapping(part, depth + 1) for part in parts)
        return All(inner) if name == "all" else Any_(inner)
    if keys == {"field", "op", "value"}:
        return _structured_comparison(value)
    if keys & {"not", "all", "any", "op"}:
        raise FilterError(
            f"expected either one of 'not', 'all', 'any', or 'field', 'op', 'value', got {sorted(keys)}"
        )
    return All(tuple(_short_form(str(field), wanted) for field, wanted in value.items()))


def _structured_comparison(value: Mapping[str, Any]) -> Comparison:
    field, op, wanted = value["field"], value["op"], value["value"]
    if not isinstance(field, str) or op not in get_args(Operator):
        raise FilterError(
            f"expected a field name and one of {', '.join(get_args(Operator))}, got {_shown(field)}, {_shown(op)}"
        )
    if op != "in":
        return Comparison(field, op, _scalar(wanted))
    if not isinstance(wanted, Sequence) or isinstance(wanted, str):
        raise FilterError(f"expected a list of values for 'in' on {field!r}, got {_shown(wanted)}")
    return Comparison(field, op, tuple(_scalar(one) for one in wanted))


def _short_form(field: str, wanted: object) -> Comparison:
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return Comparison(field, "in", tuple(_scalar(one) for one in wanted))
    return Comparison(field, "==", _scalar(wanted))


def _scalar(value: object) -> Scalar:
    if isinstance(value, (str, bool, int, float)) and value == value:  # NaN compares with nothing
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
            raise FilterError(f"expected a number within 64 bits, got {_shown(value)}")
        return value
    raise FilterError(f"expected a string, a number, true or false, got {_shown(value)}")


def _plain(parsed: Filter) -> Any:
    match parsed:
        case Comparison(field, op, value):
            return [field, op, sorted(set(value), key=repr) if isinstance(value, tuple) else value]
        case Not(part):
            return {"not": _plain(part)}
        case All(parts) | Any_(parts):
            spelled = sorted({json.dumps(_plain(part), sort_keys=True, ensure_ascii=False) for part in parts})
            return {"all" if isinstance(parsed, All) else "any": [json.loads(one) for one in spelled]}


def _size(parsed: Filter) -> int:
    match parsed:
        case Comparison(_, _, value):
            return len(value) if isinstance(value, tuple) else 1
        case Not(part):
            return 1 + _size(part)
        case All(parts) | Any_(parts):
            return 1 + sum(map(_size, parts))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"

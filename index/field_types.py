"""From the values a file holds to the few types a catalog has. It knows values, not files or rows' fate.

A type is either declared (by the caller, or by a RecBole header) and then a value that does not fit is a
fault, or it is the narrowest that fits every value of the column, so nothing can fail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import polars as pl

from index.counted import counted

FieldType: TypeAlias = Literal["text", "int", "float", "bool", "list"]
FIELD_TYPE_NAMES: tuple[FieldType, ...] = ("text", "int", "float", "bool", "list")

_POLARS: dict[FieldType, pl.DataType] = {
    "text": pl.String(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "list": pl.List(pl.String()),
}


def field_type_of(dtype: pl.DataType) -> FieldType:
    """The name of a catalog field's type."""
    return next(name for name, own in _POLARS.items() if own == dtype)


# A leading zero is a code, not a number: "0114709" is an IMDb id.
_INT = r"^-?(?:0|[1-9]\d{0,17})$"
_FLOAT = r"^[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$"
_BOOL = r"^(?i:true|false)$"
_PRICE_NOISE = r"[$€£,\s]"  # "$1,299.00" in Amazon metadata
_LIST_SEPARATOR = "|"  # MovieLens genres; a list declared for a CSV column is written the same way
_LIST_NAMES = frozenset(("genres",))


@dataclass(frozen=True)
class TypedColumn:
    """A column in its final type."""

    values: pl.Series  # [R]
    failed: pl.Series  # Boolean[R]: a value was there and did not fit the declared type
    expected: str  # what a failed value should have been
    warning: str | None = None


def type_strings(values: pl.Series, declared: FieldType | None, separator: str | None = None) -> TypedColumn:
    """Give a String column (null where there is no value) its type.

    Args:
        values: String[R].
        declared: the type it must have, or None to find out.
        separator: between the values of a list.
    """
    name = values.name.lower()
    values = blank_to_null(values)
    if declared is None and name in _LIST_NAMES:
        declared = "list"
    if declared is None and name == "price":
        return _price(values)
    kind = declared or _narrowest(values)
    if kind == "list":
        pieces = values.str.split(separator or _LIST_SEPARATOR)
        series = pieces.list.eval(pl.element().str.strip_chars()).list.eval(
            pl.element().filter(pl.element() != "")
        )
    elif kind == "bool":
        lowered = values.str.to_lowercase()
        known = lowered.is_in(["true", "false", "1", "0"])
        series = lowered.is_in(["true", "1"]).set(~known.fill_null(False), None)
    else:
        series = values.cast(_POLARS[kind], strict=False)
        if kind == "float":
            series = series.set(~series.is_finite().fill_null(True), None)
    failed = (values.is_not_null() & series.is_null()).rename("failed")
    return TypedColumn(series, failed, _EXPECTED[kind])


def type_objects(values: Sequence[object], name: str, declared: FieldType | None) -> TypedColumn | None:
    """Give decoded JSON values their type, or None if they are objects, which a catalog field cannot hold."""
    kinds = {type(value) for value in values} - {type(None)}
    if dict in kinds:
        return None
    if kinds & {list, tuple}:
        return _type_lists(values, name, declared)
    if declared is None and name.lower() not in ("price", "year", *_LIST_NAMES):
        if kinds == {bool}:
            return _fits(pl.Series(name, values, dtype=pl.Boolean))
        if kinds == {int} and all(v is None or -(2**63) <= v < 2**63 for v in values):  # type: ignore[operator]
            return _fits(pl.Series(name, values, dtype=pl.Int64))
        if kinds <= {int, float} and float in kinds:
            numbers = pl.Series(name, [None if v is None else float(v) for v in values], dtype=pl.Float64)  # type: ignore[arg-type]
            return _fits(numbers.set(~numbers.is_finite().fill_null(True), None))
        declared = "text"  # strings stay strings, even if all look like numbers; a mixture is text
    return type_strings(pl.Series(name, [plain_text(value) for value in values], dtype=pl.String), declared)


def type_series(values: pl.Series, declared: FieldType | None) -> TypedColumn | None:
    """Give a Parquet column its type, or None if it holds what a catalog field cannot (objects, vectors)."""
    dtype = values.dtype
    while isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.List):
        values = values.list.eval(pl.element().explode())
        dtype = values.dtype
    if isinstance(dtype, pl.List):
        if not isinstance(dtype.inner, pl.String | pl.Categorical | pl.Enum | pl.Null):
            return None
        words = values.cast(pl.List(pl.String)).list.drop_nulls()
        if declared in (None, "list"):
            return _fits(words)
        return type_strings(words.list.join(", "), declared)
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        return None
    if declared is None and dtype.is_integer():
        return _fits(values.cast(pl.Int64, strict=False))
    if declared is None and (dtype.is_float() or dtype.is_decimal()) and values.name.lower() != "year":
        numbers = values.cast(pl.Float64)
        return _fits(numbers.set(~numbers.is_finite().fill_null(True), None))
    if declared is None and dtype == pl.Boolean:
        return _fits(values)
    special = values.name.lower() in ("price", "year", *_LIST_NAMES)
    return type_strings(text_series(values), declared if declared or special else "text")


def plain_text(value: object) -> str | None:
    """One decoded JSON value as text: 12.0 is "12", as other files write the same id."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else str(value)
    return None if value is None else str(value)


def text_series(values: pl.Series) -> pl.Series:
    """A Parquet column as text; whole floats lose their ".0", as pandas gives ids beside a missing value."""
    if values.dtype.is_float():
        finite = values.set(~values.is_finite().fill_null(True), None)
        whole = finite.cast(pl.Int64, strict=False)
        if (whole.cast(values.dtype) == finite).all():
            return whole.cast(pl.String)
        return finite.cast(pl.String)
    return values.cast(pl.String, strict=False)


def blank_to_null(values: pl.Series) -> pl.Series:
    """Outer white space off; nothing left is no value."""
    stripped = values.str.strip_chars()
    return stripped.set((stripped == "").fill_null(False), None)


_EXPECTED: dict[FieldType, str] = {
    "text": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
}


def _fits(values: pl.Series) -> TypedColumn:
    return TypedColumn(values, pl.repeat(False, len(values), dtype=pl.Boolean, eager=True), "")


def _narrowest(values: pl.Series) -> FieldType:
    if values.null_count() == len(values):
        return "text"
    if values.str.contains(_INT).all():
        return "int"
    if values.str.contains(_FLOAT).all():
        return "float"
    if values.str.contains(_BOOL).all():
        return "bool"
    return "text"


def _price(values: pl.Series) -> TypedColumn:
    """Numbers, some with a currency sign; ranges and remarks become missing values unless they prevail."""
    numbers = values.str.replace_all(_PRICE_NOISE, "").cast(pl.Float64, strict=False)
    numbers = numbers.set(~numbers.is_finite().fill_null(True), None)
    lost = int((values.is_not_null() & numbers.is_null()).sum())
    given = len(values) - values.null_count()
    if lost * 2 > given:
        return _fits(values)
    typed = _fits(numbers)
    if not lost:
        return typed
    example = values.filter(values.is_not_null() & numbers.is_null())[0]
    found = counted(lost, "value")
    warning = f"{found} of '{values.name}' left empty: not a price, such as {example!r}"
    return TypedColumn(typed.values, typed.failed, "", warning)


def _type_lists(values: Sequence[object], name: str, declared: FieldType | None) -> TypedColumn | None:
    flat: list[list[str] | None] = []
    for value in values:
        words = None if value is None else _flatten(value)
        if value is not None and words is None:
            return None  # a list of objects, such as Amazon's images
        flat.append(words)
    if declared in (None, "list"):
        return _fits(pl.Series(name, flat, dtype=pl.List(pl.String)))
    joined = [None if words is None else ", ".join(words) for words in flat]
    return type_strings(pl.Series(name, joined, dtype=pl.String), declared)


def _flatten(value: object) -> list[str] | None:
    """The leaves of nested lists in order, each once; None if one of them is an object."""
    leaves: dict[str, None] = {}
    waiting: list[object] = [value]
    while waiting:
        piece = waiting.pop()
        if isinstance(piece, dict):
            return None
        if isinstance(piece, list | tuple):
            waiting.extend(reversed(piece))
            continue
        text = (plain_text(piece) or "").strip()
        if text:
            leaves[text] = None
    return list(leaves)

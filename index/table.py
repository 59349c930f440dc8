"""A table read from a file: the columns a caller asked for, and which rows did not make it.

It knows columns, lines and faults. It knows no file format and not what a column means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import polars as pl

from index.field_types import FieldType, TypedColumn, blank_to_null
from index.read_report import BadRow
from index.types import BoolArray, Int64Array

_SHOWN_CHARS = 60  # of a faulty value


@dataclass(frozen=True)
class Selection:
    """Which columns a caller wants."""

    keys: tuple[str, ...]  # ids, titles, times: delivered as String, one plain value per row
    fields: tuple[
        str, ...
    ] = ()  # anything else: delivered in a catalog field type, or left out with a warning
    types: Mapping[str, FieldType] = field(default_factory=dict)  # fields that must have a type


Choose: TypeAlias = Callable[[list[str]], Selection]


@dataclass(frozen=True)
class Table:
    """The wanted columns of the rows that could be read."""

    format: str
    frame: pl.DataFrame  # R rows; keys as String (null where missing), then fields
    lines: Int64Array  # [R] 1-based line where each row starts; the row number for Parquet
    rows_read: int  # R + len(bad_rows)
    bad_rows: tuple[BadRow, ...]
    warnings: tuple[str, ...]


def shown(value: object) -> str:
    """A faulty value for a message: quoted and not too long."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def assemble(
    kind: str,
    columns: Sequence[TypedColumn],
    raw: Callable[[str, int], object],
    lines: Int64Array,
    bad_rows: Sequence[BadRow],
    warnings: Sequence[str],
) -> Table:
    """A table of the rows in which every value has its type; the others become bad rows.

    Args:
        kind: the format's name.
        columns: each with R values.
        raw: column name and row number → the value in the file, for messages.
        lines: int64[R].
        bad_rows: rows that never got as far as columns.
        warnings: said so far.
    """
    faulty: dict[int, BadRow] = {}
    for column in columns:
        name = column.values.name
        for row in column.failed.arg_true().to_list():
            got = shown(raw(name, row))
            faulty.setdefault(row, BadRow(int(lines[row]), name, column.expected, got))
    good: BoolArray = np.ones(len(lines), dtype=np.bool_)
    good[list(faulty)] = False
    frame = pl.DataFrame([column.values for column in columns])
    return Table(
        format=kind,
        frame=frame.filter(pl.Series(good)) if faulty else frame,
        lines=lines[good],
        rows_read=len(lines) + len(bad_rows),
        bad_rows=tuple(sorted([*bad_rows, *faulty.values()], key=lambda row: row.line)),
        warnings=(*warnings, *(column.warning for column in columns if column.warning)),
    )


def text_column(values: pl.Series) -> TypedColumn:
    """A key column: text, with nothing that can fail."""
    values = blank_to_null(values)
    return TypedColumn(values, pl.repeat(False, len(values), dtype=pl.Boolean, eager=True), "text")

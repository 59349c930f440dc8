"""JSON lines, and the Python literals of the 2014 Amazon dump, as a table.

It knows lines and values of mixed types. It does not know which columns mean what: the caller chooses.
"""

from __future__ import annotations

import ast
import json
import warnings as python_warnings
from collections.abc import Callable

import numpy as np
import polars as pl

from index.field_types import TypedColumn, plain_text, type_objects
from index.read_report import BadRow, ReadError
from index.table import Choose, Table, assemble, shown, text_column
from index.table_source import Source

_NESTED = (dict, list, tuple, bool)


def read_json_lines(source: Source, choose: Choose, error: ReadError) -> Table:
    """One object per line. A line that is none is a bad row, as is a key that is a list, object or boolean.

    Raises:
        CatalogError or HistoryError, as asked for: the file is one JSON array, or no line is an object.
    """
    assert source.text is not None
    lines = source.text.split("\n")
    numbers = [number for number, line in enumerate(lines, 1) if line and not line.isspace()]
    first = lines[numbers[0] - 1].strip()
    if first.startswith("["):
        raise error(
            f"expected one JSON object per line in {source.path}, got a JSON array; "
            "rewrite it with: jq -c '.[]' IN > OUT"
        )
    parse, kind = _parser_for(first)
    records: list[dict[str, object]] = []
    kept: list[int] = []
    bad_rows: list[BadRow] = []
    for number in numbers:
        record = parse(lines[number - 1])
        if isinstance(record, _Broken):
            bad_rows.append(BadRow(number, "row", f"one {kind} object", record.fault))
        else:
            records.append(record)
            kept.append(number)
    if not records:
        raise error(
            f"expected one JSON object per line in {source.path}, got {shown(first)} in line {numbers[0]}"
        )

    names = list(dict.fromkeys(name for record in records for name in record))
    wanted = choose(names)
    warnings = list(source.warnings)
    columns: list[TypedColumn] = []
    for name in wanted.keys:
        columns.append(_key(name, [record.get(name) for record in records]))
    for name in wanted.fields:
        column = type_objects([record.get(name) for record in records], name, wanted.types.get(name))
        if column is None:
            warnings.append(f"field '{name}' holds objects, which no catalog field can, and was left out")
        else:
            columns.append(column)
    at = np.array(kept, dtype=np.int64)
    format_name = "jsonl" if kind == "JSON" else "python-literals"
    return assemble(format_name, columns, lambda name, row: records[row].get(name), at, bad_rows, warnings)


class _Broken:
    """What a parser returns for a line it cannot read."""

    def __init__(self, fault: str) -> None:
        self.fault = fault


_Parse = Callable[[str], "dict[str, object] | _Broken"]


def _parser_for(first: str) -> tuple[_Parse, str]:
    """JSON, unless the first line is a Python literal and no JSON."""
    if isinstance(_parse_json(first), _Broken) and isinstance(_parse_literal(first), dict):
        return _parse_literal, "Python"
    return _parse_json, "JSON"


def _parse_json(line: str) -> dict[str, object] | _Broken:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return _Broken(shown(line))
    return _checked(value, line)


def _parse_literal(line: str) -> dict[str, object] | _Broken:
    try:
        with python_warnings.catch_warnings():
            # "\d" in a description is the file's affair: a DeprecationWarning up to 3.11, a SyntaxWarning since.
            python_warnings.simplefilter("ignore")
            value = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return _Broken(shown(line))
    if isinstance(value, dict) and not all(isinstance(name, str) for name in value):
        return _Broken("an object with names that are no strings")
    return _checked(value, line)


def _checked(value: object, line: str) -> dict[str, object] | _Broken:
    if not isinstance(value, dict):
        return _Broken(shown(line))
    if "\\u" in line:
        # Half of a surrogate pair is legal in JSON and in Python, and no character.
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            return _Broken("half a surrogate pair in a string")
    return value


def _key(name: str, values: list[object]) -> TypedColumn:
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {str}:
        return text_column(pl.Series(name, values, dtype=pl.String))
    failed = pl.Series("failed", [isinstance(value, _NESTED) for value in values], dtype=pl.Boolean)
    texts = [None if isinstance(value, _NESTED) else plain_text(value) for value in values]
    column = text_column(pl.Series(name, texts, dtype=pl.String))
    return TypedColumn(column.values, failed, "text or a whole number")

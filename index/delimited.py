"""Delimited text as a table: CSV, TSV, MovieLens ``.dat`` and RecBole atomic files.

It knows separators, quoting, headers and lines. It does not know which columns mean what: the caller chooses.
Polars and pyarrow both refuse a separator of two characters and cannot say which line is ragged, so lines are
split here, all at once; only files with quotation marks go through the csv module.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from index.field_types import FieldType, type_strings
from index.read_report import BadRow, ReadError
from index.table import Choose, Table, assemble, shown, text_column
from index.table_source import Source
from index.types import Int64Array

MOVIELENS_SEPARATOR = "::"
_DELIMITERS = (",", "\t", ";", "|")
_RECBOLE_COLUMN = re.compile(r"^(?P<name>.+):(?P<type>token|token_seq|float|float_seq)$")
_RECBOLE_TYPES: dict[str, FieldType | None] = {
    "token": "text",
    "token_seq": "list",
    "float": "float",
    "float_seq": None,  # vectors: no catalog field
}


@dataclass(frozen=True)
class _Rows:
    """Delimited rows that have as many parts as there are columns."""

    columns: Callable[[int], pl.Series]  # column number → String[R]
    lines: Int64Array  # [R]
    bad_rows: list[BadRow]


def read_delimited(source: Source, choose: Choose, dat_columns: Sequence[str], error: ReadError) -> Table:
    """Read the columns that ``choose`` picks from the header; see ``tables.read_table``."""
    assert source.text is not None
    first = source.text.lstrip("\n ").partition("\n")[0]
    movielens = MOVIELENS_SEPARATOR in first and _RECBOLE_COLUMN.match(first) is None
    separator = MOVIELENS_SEPARATOR if movielens else _delimiter(source.suffix, first)
    if movielens:
        header, names = [], list(dat_columns)
        if first.count(MOVIELENS_SEPARATOR) + 1 != len(names):
            raise error(
                f"expected {MOVIELENS_SEPARATOR.join(names)} in {source.path}, got {shown(first)}; "
                "is this the other MovieLens file?"
            )
    else:
        header = next(csv.reader([first], delimiter=separator))
        names = [name.strip() for name in header]
    matches = [_RECBOLE_COLUMN.match(name) for name in names]
    recbole = bool(names) and all(matches)
    declared: dict[str, FieldType | None] = {}
    if recbole:
        declared = {m["name"]: _RECBOLE_TYPES[m["type"]] for m in matches if m is not None}
        names = list(declared)
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice or len(names) < len(header):
        raise error(f"expected column names in {source.path} that differ, got {shown(header)}; rename one")
    wanted = choose([name for name in names if name])
    # Tabs are an unquoted format (IANA text/tab-separated-values, and RecBole writes titles with bare
    # quotation marks), so only the others go through the quoting rules.
    quoted = '"' in source.text and separator not in ("\t", MOVIELENS_SEPARATOR)
    rows = (_quoted if quoted else _plain)(source, separator, len(names), bool(header), error)
    warnings = list(source.warnings)
    if "" in names:
        warnings.append("a column without a name was left out")

    raw = {name: rows.columns(names.index(name)) for name in (*wanted.keys, *wanted.fields)}
    columns = [text_column(raw[name].rename(name)) for name in wanted.keys]
    for name in wanted.fields:
        kind = wanted.types.get(name, declared.get(name))
        if kind is None and name in declared:
            warnings.append(f"field '{name}' holds vectors (float_seq) and was left out")
            continue
        columns.append(type_strings(raw[name].rename(name), kind, " " if recbole else None))
    kind_name = (
        "recbole" if recbole else "movielens-dat" if movielens else "tsv" if separator == "\t" else "csv"
    )
    return assemble(kind_name, columns, lambda name, row: raw[name][row], rows.lines, rows.bad_rows, warnings)


def _delimiter(suffix: str, header: str) -> str:
    """The separator that the header uses most; the file's name decides when it uses none."""
    if suffix in (".tsv", ".inter", ".item"):
        return "\t"
    return max(_DELIMITERS, key=header.count)  # the comma wins ties, and a header of one column


def _plain(source: Source, separator: str, width: int, has_header: bool, error: ReadError) -> _Rows:
    """Rows without quoting, one per line: split all at once."""
    assert source.text is not None
    text = pl.Series("line", source.text.split("\n"))
    present = (text.str.strip_chars() != "").to_numpy()
    lines = np.flatnonzero(present) + 1
    parts = text.filter(present).str.split(separator)
    if has_header:
        lines, parts = lines[1:], parts.slice(1)
    widths = parts.list.len().to_numpy()
    bad_rows = [
        _ragged(int(lines[row]), width, int(widths[row]), "") for row in np.flatnonzero(widths != width)
    ]
    if bad_rows:
        parts = parts.filter(widths == width)
    return _Rows(lambda column: parts.list.get(column), lines[widths == width], bad_rows)


def _quoted(source: Source, separator: str, width: int, has_header: bool, error: ReadError) -> _Rows:
    """Rows by the quoting rules of CSV, which may run over several lines."""
    assert source.text is not None
    reader = csv.reader(io.StringIO(source.text, newline=""), delimiter=separator, strict=True)
    kept: list[list[str]] = []
    lines: list[int] = []
    bad_rows: list[BadRow] = []
    total_lines = source.text.count("\n") + (not source.text.endswith("\n"))
    skip_header = has_header
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as problem:
            if "end of data" in str(problem):
                # Everything after the open quote would be lost: that is half a file, not one bad row.
                raise error(
                    f"expected every quoted value in {source.path} to end, got one that opens in line {line} "
                    f"and runs to the end of the file (line {total_lines}); close or double the quotation mark"
                ) from problem
            bad_rows.append(BadRow(line, "row", "values quoted as CSV does", str(problem)))
            continue
        if not row or (len(row) == 1 and not row[0].strip()):
            continue
        if skip_header:
            skip_header = False
            continue
        if len(row) != width:
            span = f" over lines {line}–{reader.line_num}" if reader.line_num > line else ""
            bad_rows.append(_ragged(line, width, len(row), span))
            continue
        kept.append(row)
        lines.append(line)
    return _Rows(
        lambda column: pl.Series("part", [row[column] for row in kept], dtype=pl.String),
        np.array(lines, dtype=np.int64),
        bad_rows,
    )


def _ragged(line: int, width: int, got: int, span: str) -> BadRow:
    return BadRow(line, "row", f"{width} values", f"{got}{span}")

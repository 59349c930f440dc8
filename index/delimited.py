"""Delimited text as a table: CSV, TSV, MovieLens ``.dat`` and RecBole atomic files.

It knows separators, quoting, headers and lines. It does not know which columns mean what: the caller chooses.
Polars and pyarrow both refuse a separator of two characters and cannot say which line is ragged, so lines are
split here, all at once; only files with quotation marks go through the csv module.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
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
class _Header:
    """What the first line says of the file."""

    format: str
    separator: str
    names: list[str]  # of the columns; empty where a column has none
    types: Mapping[str, FieldType | None]  # as RecBole declares them; None for vectors
    in_file: bool  # whether the first line is the header, or already a row


@dataclass(frozen=True)
class _Rows:
    """Delimited rows that have as many parts as there are columns."""

    column: Callable[[int], pl.Series]  # column number → String[R]
    lines: Int64Array  # [R]
    bad_rows: list[BadRow]


def read_delimited(source: Source, choose: Choose, dat_columns: Sequence[str], error: ReadError) -> Table:
    """Read the columns that ``choose`` picks from the header; see ``tables.read_table``."""
    assert source.text is not None
    header = _header(source, dat_columns, error)
    wanted = choose([name for name in header.names if name])
    # Tabs are an unquoted format (IANA text/tab-separated-values, and RecBole writes titles with bare
    # quotation marks), so only the others go through the quoting rules.
    if '"' in source.text and header.separator not in ("\t", MOVIELENS_SEPARATOR):
        rows = _quoted(source, header, error)
    else:
        rows = _plain(source.text, header)
    warnings = list(source.warnings)
    if "" in header.names:
        warnings.append("a column without a name was left out")

    picked = (*wanted.keys, *wanted.fields)
    raw = {name: rows.column(header.names.index(name)).rename(name) for name in picked}
    columns = [text_column(raw[name]) for name in wanted.keys]
    for name in wanted.fields:
        kind = wanted.types.get(name, header.types.get(name))
        if kind is None and name in header.types:
            warnings.append(f"field '{name}' holds vectors (float_seq) and was left out")
            continue
        columns.append(type_strings(raw[name], kind, " " if header.format == "recbole" else None))
    return assemble(
        header.format, columns, lambda name, row: raw[name][row], rows.lines, rows.bad_rows, warnings
    )


def _header(source: Source, dat_columns: Sequence[str], error: ReadError) -> _Header:
    assert source.text is not None
    first = source.text.lstrip("\n ").partition("\n")[0]
    if MOVIELENS_SEPARATOR in first:
        if first.count(MOVIELENS_SEPARATOR) + 1 != len(dat_columns):
            raise error(
                f"expected {MOVIELENS_SEPARATOR.join(dat_columns)} in {source.path}, got {shown(first)}; "
                "is this the other MovieLens file?"
            )
        return _Header("movielens-dat", MOVIELENS_SEPARATOR, list(dat_columns), {}, in_file=False)
    separator = _delimiter(source.suffix, first)
    parts = first.split("\t") if separator == "\t" else next(csv.reader([first], delimiter=separator))
    names = [name.strip() for name in parts]
    typed = [match for match in map(_RECBOLE_COLUMN.match, names) if match]
    recbole = len(typed) == len(names)
    types = {match["name"]: _RECBOLE_TYPES[match["type"]] for match in typed} if recbole else {}
    if recbole:
        names = [match["name"] for match in typed]
    if len(set(filter(None, names))) < len(list(filter(None, names))):
        raise error(f"expected column names in {source.path} that differ, got {shown(names)}; rename one")
    kind = "recbole" if recbole else "tsv" if separator == "\t" else "csv"
    return _Header(kind, separator, names, types, in_file=True)


def _delimiter(suffix: str, header: str) -> str:
    """The separator that the header uses most; the file's name decides when it uses none."""
    if suffix in (".tsv", ".inter", ".item"):
        return "\t"
    return max(_DELIMITERS, key=header.count)  # the comma wins ties, and a header of one column


def _plain(text: str, header: _Header) -> _Rows:
    """Rows without quoting, one per line: split all at once."""
    width = len(header.names)
    whole = pl.Series("line", text.split("\n"))
    present = (whole.str.strip_chars() != "").to_numpy()
    lines = np.flatnonzero(present) + 1
    parts = whole.filter(present).str.split(header.separator)
    if header.in_file:
        lines, parts = lines[1:], parts.slice(1)
    widths = parts.list.len().to_numpy()
    bad_rows = [
        _ragged(int(lines[row]), width, int(widths[row]), "") for row in np.flatnonzero(widths != width)
    ]
    if bad_rows:
        parts = parts.filter(widths == width)
    return _Rows(lambda column: parts.list.get(column), lines[widths == width], bad_rows)


def _quoted(source: Source, header: _Header, error: ReadError) -> _Rows:
    """Rows by the quoting rules of CSV, which may run over several lines."""
    assert source.text is not None
    width = len(header.names)
    reader = csv.reader(io.StringIO(source.text, newline=""), delimiter=header.separator, strict=True)
    kept: list[list[str]] = []
    lines: list[int] = []
    bad_rows: list[BadRow] = []
    total_lines = source.text.count("\n") + (not source.text.endswith("\n"))
    skip_header = header.in_file
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
            got = f"{problem}{_span(line, reader.line_num)}"
            bad_rows.append(BadRow(line, "row", "values quoted as CSV does", got))
            continue
        if not row or (len(row) == 1 and not row[0].strip()):
            continue
        if skip_header:
            skip_header = False
            continue
        if len(row) != width:
            bad_rows.append(_ragged(line, width, len(row), _span(line, reader.line_num)))
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


def _span(first: int, last: int) -> str:
    return f" over lines {first}–{last}" if last > first else ""

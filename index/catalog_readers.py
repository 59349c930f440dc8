"""A catalog from a file: which column is the id and which the title, and which rows make an item.

It knows what an item needs. It knows no file format (``tables`` does) and nothing of what comes after.
Supported: CSV, TSV, JSON lines, Parquet, RecBole ``.item``, MovieLens ``movies.csv`` and ``movies.dat``,
Amazon metadata (2014 as Python literals, 2018, 2023), each also gzipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from index.catalog import Catalog
from index.column_names import ITEM_ID_NAMES, TITLE_NAMES, find_column
from index.counted import counted
from index.errors import CatalogError
from index.field_types import FIELD_TYPE_NAMES, FieldType
from index.read_report import BadRow, OnError, ReadReport, refuse_bad_rows
from index.table import Selection, Table, shown
from index.table_source import read_source
from index.tables import read_table
from index.types import BoolArray

MOVIES_DAT = ("movieId", "title", "genres")  # movies.dat has no header; README.txt of MovieLens 1M
_MOVIELENS_YEAR = r"\((\d{4})(?:[-–]\d{0,4})?\)\s*$"  # "Toy Story (1995)", "Doctor Who (2005–)"
_NO_GENRES = "(no genres listed)"


@dataclass(frozen=True)
class CatalogColumns:
    """Which columns of a file make a catalog. What is left out is found by its usual name."""

    item_id: str | None = None
    title: str | None = None
    fields: tuple[str, ...] | None = None  # None: all others
    types: Mapping[str, FieldType] = field(default_factory=dict)  # a value that does not fit is a bad row


@dataclass(frozen=True)
class CatalogReading:
    """A catalog, and how reading it went."""

    catalog: Catalog
    report: ReadReport


def read_catalog(
    path: Path | str, columns: CatalogColumns | None = None, on_error: OnError = "fail"
) -> CatalogReading:
    """Read a catalog file.

    An item needs an id of its own. It may lack a title: it is kept with an empty one and counted in the
    report's warnings, because real catalogs have a few. Ids are text, whatever the file says: 12 and "12" are
    one id.

    Args:
        path: the file.
        columns: which columns to use, where their names are not the usual ones.
        on_error: ``fail`` refuses a file with any bad row, ``skip`` leaves bad rows out and reports them. Of
            two rows with one id the later is bad.

    Raises:
        CatalogError: nothing readable there, no such column, bad rows under ``fail``, no item left, or more
            than half of the titles empty (then another column is the title).
    """
    path = Path(path)
    columns = columns or CatalogColumns()
    if on_error not in ("fail", "skip"):
        raise CatalogError(f"expected on_error 'fail' or 'skip', got {on_error!r}")
    roles: dict[str, str] = {}

    def choose(names: list[str]) -> Selection:
        roles["item_id"] = find_column(names, ITEM_ID_NAMES, columns.item_id, "item id", path, CatalogError)
        roles["title"] = find_column(names, TITLE_NAMES, columns.title, "title", path, CatalogError)
        return _selection(names, roles, columns, path)

    source = read_source(path, CatalogError)
    table = read_table(source, choose, MOVIES_DAT, CatalogError)
    kept, id_faults = _usable(table, roles["item_id"])
    bad_rows = tuple(sorted((*table.bad_rows, *id_faults), key=lambda row: row.line))
    if on_error == "fail":
        mapping = ", ".join(f"{role}='{name}'" for role, name in roles.items())
        refuse_bad_rows(path, table.rows_read, bad_rows, mapping, CatalogError)
    if not kept.any():
        found = "none" if not bad_rows else f"{counted(len(bad_rows), 'bad row')}, the first: {bad_rows[0]}"
        raise CatalogError(f"expected at least one item in {path}, got {found}")

    frame = _items(table.frame.filter(pl.Series(kept)), roles)
    warnings = [*table.warnings, *_title_warnings(frame, path, roles["title"])]
    catalog = Catalog(frame)
    return CatalogReading(
        catalog, ReadReport(path, table.format, table.rows_read, len(catalog), bad_rows, tuple(warnings))
    )


def _selection(names: list[str], roles: Mapping[str, str], columns: CatalogColumns, path: Path) -> Selection:
    keys = tuple(dict.fromkeys(roles.values()))
    fields = columns.fields if columns.fields is not None else tuple(n for n in names if n not in keys)
    for name in (*fields, *columns.types):
        if name not in names:
            raise CatalogError(f"expected a column '{name}' in {path}, got columns {', '.join(names)}")
    for name, kind in columns.types.items():
        if kind not in FIELD_TYPE_NAMES:
            raise CatalogError(f"expected a type of {FIELD_TYPE_NAMES} for field '{name}', got {kind!r}")
    return Selection(keys, tuple(name for name in dict.fromkeys(fields) if name not in keys), columns.types)


def _usable(table: Table, id_column: str) -> tuple[BoolArray, list[BadRow]]:
    """bool[R]: rows with an id that no earlier row has, and what is wrong with the others."""
    ids = table.frame[id_column]
    missing = ids.is_null()
    again = ~ids.is_first_distinct() & ~missing
    faults = [
        BadRow(int(table.lines[row]), id_column, "an id", "nothing") for row in missing.arg_true().to_list()
    ]
    if again.any():
        first_line = dict(zip(ids.to_list()[::-1], table.lines.tolist()[::-1], strict=True))
        faults += [
            BadRow(
                int(table.lines[row]),
                id_column,
                "an id of its own",
                f"{shown(ids[row])}, already in line {first_line[ids[row]]}",
            )
            for row in again.arg_true().to_list()
        ]
    return (~(missing | again)).to_numpy(), faults


def _items(frame: pl.DataFrame, roles: Mapping[str, str]) -> pl.DataFrame:
    """The table as a catalog frame: the two named columns first, MovieLens genres and years told apart."""
    id_column, title_column = roles["item_id"], roles["title"]
    title = pl.col(title_column).fill_null("").str.replace_all(r"\s*[\r\n\t]\s*", " ")
    # A field may bear a name that is taken: "item_id", where "asin" was chosen to be the id.
    taken = {"item_id", "title"}
    fields: dict[str, str] = {}
    for name in frame.columns:
        if name in (id_column, title_column):
            continue
        new = name
        while new in taken:
            new = f"source_{new}"
        taken.add(new)
        fields[name] = new
    items = frame.select(
        pl.col(id_column).alias("item_id"),
        title.alias("title"),
        *(pl.col(name).alias(new) for name, new in fields.items()),
    )
    genres = items.schema.get("genres")
    if genres == pl.List(pl.String):
        items = items.with_columns(
            pl.col("genres").list.eval(pl.element().filter(pl.element() != _NO_GENRES))
        )
    if id_column in ("movieId", "movie_id") and genres is not None and "year" not in items.columns:
        year = pl.col("title").str.extract(_MOVIELENS_YEAR).cast(pl.Int64)
        items = items.with_columns(year.alias("year"))
    return items


def _title_warnings(items: pl.DataFrame, path: Path, title_column: str) -> list[str]:
    empty = items.filter(pl.col("title") == "")["item_id"]
    if len(empty) * 2 > items.height:
        raise CatalogError(
            f"expected titles in column '{title_column}' of {path}, got {len(empty):,} empty ones of "
            f"{items.height:,}; map another column: title=COLUMN"
        )
    if not len(empty):
        return []
    examples = ", ".join(empty.head(3).to_list())
    return [f"{counted(len(empty), 'item')} without a title, kept with an empty one, such as {examples}"]

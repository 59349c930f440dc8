"""Histories from a file of interactions: who met which catalog item, in which order.

It knows users, items and times. It knows no table format (``tables`` does), no split and no model.
Supported: tables of one event per row (CSV, TSV, JSON lines, Parquet, RecBole ``.inter``, MovieLens
``ratings.csv`` and ``ratings.dat``), and sequence files of one user per line: ``user item item …``; each also
gzipped. Every row is an event, whatever its rating.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from index.catalog import Catalog
from index.column_names import (
    ITEM_ID_NAMES,
    TIME_NAMES,
    USER_NAMES,
    find_column,
    find_optional_column,
    same_name,
)
from index.counted import counted
from index.errors import HistoryError
from index.histories import Histories
from index.read_report import BadRow, OnError, ReadReport, refuse_bad_rows
from index.table import Selection, shown
from index.table_source import Source, read_source
from index.tables import read_table
from index.timestamps import parse_times
from index.types import Int64Array

RATINGS_DAT = ("userId", "movieId", "rating", "timestamp")  # no header; README.txt of MovieLens 1M
_INTERACTION_ITEM_NAMES = ITEM_ID_NAMES[:-1]  # a bare "id" beside a user is the event's own
_TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".inter")
_TABLE_MARKS = (",", ";", "|", "::", '"', "{")
_EXAMPLES = 5


@dataclass(frozen=True)
class InteractionColumns:
    """Which columns of a table make an event. What is left out is found by its usual name."""

    user: str | None = None
    item: str | None = None
    timestamp: str | None = None  # without any such column, file order is time order


@dataclass(frozen=True)
class UnknownItems:
    """Events whose item the catalog does not have."""

    events: int
    ids: int  # distinct ones
    examples: tuple[str, ...]  # the first few ids


@dataclass(frozen=True)
class InteractionsReport(ReadReport):
    """How reading one file of interactions went. Rows are lines of the file: of a sequence file, users."""

    events: int  # in the histories
    users: int  # in the histories
    unknown_items: UnknownItems
    users_without_events: tuple[str, ...]  # left out: none of their items is in the catalog
    time: str  # what orders the events: a unit, with the reason it was chosen, or the file

    def summary(self) -> str:
        """A few lines for a person."""
        found = f"{counted(self.users, 'user')}, {counted(self.events, 'event')}"
        lines = [super().summary(), f"  {found}, ordered by {self.time}"]
        unknown = self.unknown_items
        if unknown.events:
            lines.append(
                f"  left out: {counted(unknown.events, 'event')} with {counted(unknown.ids, 'item')} the "
                f"catalog does not have, such as {', '.join(unknown.examples)}"
            )
        if self.users_without_events:
            lines.append(
                f"  left out: {counted(len(self.users_without_events), 'user')} without any event, "
                f"such as {', '.join(self.users_without_events[:_EXAMPLES])}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class InteractionsReading:
    """Histories, and how reading them went."""

    histories: Histories
    report: InteractionsReport


def read_interactions(
    path: Path | str, catalog: Catalog, columns: InteractionColumns | None = None, on_error: OnError = "fail"
) -> InteractionsReading:
    """Read a file of interactions against a catalog.

    Users come in the order of their first event in the file. Their events are in time order; equal times, and
    all events of a file without times, keep the order of the file. A user on several lines of a sequence file
    has them joined.

    Args:
        path: the file.
        catalog: the items; an event with another item is left out and counted.
        columns: which columns to use, where their names are not the usual ones.
        on_error: ``fail`` refuses a file with any bad row (no user, no item, no time where others have one),
            ``skip`` leaves bad rows out and reports them. An unknown item does not make a row bad.

    Raises:
        HistoryError: nothing readable there, no such column, bad rows under ``fail``, no event left, or more
            than half of the events with unknown items (then it is another file or another id column).
    """
    path = Path(path)
    if on_error not in ("fail", "skip"):
        raise HistoryError(f"expected on_error 'fail' or 'skip', got {on_error!r}")
    source = read_source(path, HistoryError)
    if columns in (None, InteractionColumns()) and _is_sequences(source):
        found = _sequences(source)
    else:
        found = _events(source, columns or InteractionColumns())
    if on_error == "fail":
        refuse_bad_rows(path, found.rows_read, found.bad_rows, found.mapping, HistoryError)
    if not found.frame.height:
        raise HistoryError(f"expected at least one event in {path}, got none in {found.rows_read} rows")

    rows = pl.DataFrame({"item": catalog.frame["item_id"]}).with_row_index("row")
    events = found.frame.join(rows, on="item", how="left", maintain_order="left")
    known = events.filter(pl.col("row").is_not_null())
    unknown = _unknown(events, catalog, path, found.mapping)
    histories = _histories(known)
    users_without = found.users.filter(~found.users.is_in(known["user"].unique().implode()))
    report = InteractionsReport(
        path=path,
        format=found.format,
        rows_read=found.rows_read,
        rows_kept=found.rows_read - len(found.bad_rows),
        bad_rows=tuple(found.bad_rows),
        warnings=tuple(found.warnings),
        events=histories.num_events,
        users=len(histories),
        unknown_items=unknown,
        users_without_events=tuple(users_without.to_list()),
        time=found.time,
    )
    return InteractionsReading(histories, report)


@dataclass(frozen=True)
class _Found:
    """The events of a file in file order, before anything is known of the catalog."""

    format: str
    frame: pl.DataFrame  # user String, item String, and time Float64 where there are times; no nulls
    users: pl.Series  # String, distinct, in file order; also those without events
    rows_read: int
    bad_rows: Sequence[BadRow]
    warnings: Sequence[str]
    time: str
    mapping: str


def _is_sequences(source: Source) -> bool:
    """A text file that is no table by its name, by its first line's separators, or by a header."""
    if source.text is None or source.suffix in _TABLE_SUFFIXES:
        return False
    first = source.text.lstrip().partition("\n")[0]
    if any(mark in first for mark in _TABLE_MARKS):
        return False
    if any(same_name(word, name) for word in first.split() for name in (*USER_NAMES, *ITEM_ID_NAMES)):
        return False
    if "\t" not in first:
        return True
    # Tabs may stand between the items of a sequence, too; a table has the same number in every line. Two
    # columns are pairs "user item", which read the same either way.
    tabs = {line.count("\t") for line in source.text.split("\n") if line.strip()}
    return len(tabs) > 1 or tabs == {1}


def _sequences(source: Source) -> _Found:
    assert source.text is not None
    words = pl.Series("words", source.text.split("\n")).str.extract_all(r"\S+")
    lines = words.filter(words.list.len() > 0).to_frame()
    split = lines.select(
        pl.col("words").list.get(0).alias("user"), pl.col("words").list.slice(1).alias("item")
    )
    return _Found(
        format="sequences",
        frame=split.filter(pl.col("item").list.len() > 0).explode("item"),
        users=split["user"].unique(maintain_order=True),
        rows_read=split.height,
        bad_rows=(),
        warnings=source.warnings,
        time="position in the line",
        mapping="one user per line, then the items",
    )


def _events(source: Source, columns: InteractionColumns) -> _Found:
    roles: dict[str, str] = {}

    def choose(names: list[str]) -> Selection:
        roles["user"] = find_column(names, USER_NAMES, columns.user, "user", source.path, HistoryError)
        roles["item"] = find_column(
            names, _INTERACTION_ITEM_NAMES, columns.item, "item", source.path, HistoryError
        )
        time = find_optional_column(
            names, TIME_NAMES, columns.timestamp, "timestamp", source.path, HistoryError
        )
        if time is not None:
            roles["timestamp"] = time
        return Selection(keys=tuple(dict.fromkeys(roles.values())))

    table = read_table(source, choose, RATINGS_DAT, HistoryError)
    events = {"user": table.frame[roles["user"]], "item": table.frame[roles["item"]]}
    time = "the file, which has no times"
    if "timestamp" in roles:
        times = parse_times(table.frame[roles["timestamp"]])
        events["time"], time = times.seconds, times.unit
    frame = pl.DataFrame(events)
    faults: dict[int, BadRow] = {}
    expected = {"user": "a user id", "item": "an item id", "time": "unix time or an ISO 8601 date"}
    for name, values in events.items():
        column = roles["timestamp" if name == "time" else name]
        for row in values.is_null().arg_true().to_list():
            got = shown(table.frame[column][row])
            faults.setdefault(row, BadRow(int(table.lines[row]), column, expected[name], got))
    bad_rows = sorted([*table.bad_rows, *faults.values()], key=lambda row: row.line)
    frame = frame.drop_nulls()
    return _Found(
        format=table.format,
        frame=frame,
        users=frame["user"].unique(maintain_order=True),
        rows_read=table.rows_read,
        bad_rows=bad_rows,
        warnings=table.warnings,
        time=time,
        mapping=", ".join(f"{role}='{name}'" for role, name in roles.items()),
    )


def _unknown(events: pl.DataFrame, catalog: Catalog, path: Path, mapping: str) -> UnknownItems:
    missing = events.filter(pl.col("row").is_null())["item"]
    ids = missing.unique(maintain_order=True)
    examples = tuple(ids.head(_EXAMPLES).to_list())
    if len(missing) * 2 > events.height:
        raise HistoryError(
            f"expected item ids of the catalog (such as {', '.join(catalog.item_ids[:3])}) in {path}, got "
            f"{len(missing):,} of {counted(events.height, 'event')} with others (such as "
            f"{', '.join(examples[:3])}); this is the file of another catalog, "
            f"or another column holds the ids (read: {mapping})"
        )
    return UnknownItems(len(missing), len(ids), examples)


def _histories(events: pl.DataFrame) -> Histories:
    """Group the events (user, row, perhaps time; in file order) by user and sort each group by time."""
    users = events["user"].unique(maintain_order=True)
    numbers = users.to_frame().with_row_index("number")
    number = events.join(numbers, on="user", how="left", maintain_order="left")["number"].to_numpy()
    times = events["time"].to_numpy() if "time" in events.columns else None
    # Stable, so that the order of the file breaks ties.
    order = np.argsort(number, kind="stable") if times is None else np.lexsort((times, number))
    counts: Int64Array = np.bincount(number, minlength=len(users))
    return Histories(
        user_ids=users.to_list(),
        offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        items=events["row"].to_numpy().astype(np.int32)[order],
        timestamps=None if times is None else times[order],
    )

"""The data sets of the quality benchmark: where their files lie, how they are split, what was published on them.

Nothing here is downloaded or kept: ``--data`` names a directory with one folder a set. Three shapes of files occur:
items with sequences, MovieLens tables with times, and rows of (history, next item) that come split already. The last
become events with the number of their part as time; that a temporal split finds the published parts again is checked.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from genrec.evaluation.protocol import Split
from index.build import Holdout
from index.catalog import Catalog
from index.catalog_readers import read_catalog
from index.errors import HistoryError
from index.histories import Cases, Histories, temporal_split
from index.history_readers import read_interactions

PUBLISHED = tomllib.loads((Path(__file__).parent / "quality_published.toml").read_text("utf-8"))
ROWS = ("train_recovered.jsonl", "valid.jsonl", "test.jsonl")
"""Parts of a set that comes split, in time order."""


@dataclass(frozen=True)
class DataSet:
    """Where a data set lies and how it is asked."""

    name: str
    title: str
    folder: str
    items: str = "items.jsonl"
    interactions: str | None = "sequences.txt"  # None: rows that come split (:data:`ROWS`)
    kept: str | None = None  # a field that says which items belong to the published set
    note: str = ""

    @property
    def split(self) -> Split:
        return "leave-one-out" if self.interactions else "temporal"

    @property
    def holdout(self) -> Holdout:
        return "last-two" if self.interactions else "temporal"

    @property
    def published(self) -> list[dict[str, Any]]:
        """Figures of others under this protocol, each with its source."""
        found: list[dict[str, Any]] = PUBLISHED.get(self.name, {}).get("rows", [])
        return found


DATA_SETS = {
    one.name: one
    for one in (
        DataSet(
            "beauty",
            "Amazon Beauty 2014",
            "amazon_beauty_2014",
            note="Events of one day stand in id order in this file, which flatters whatever uses order.",
        ),
        DataSet(
            "games",
            "Amazon Games 2018",
            "amazon_games_2018",
            note="Histories are cut at 50 events (2.8 % of all are missing); test and validation inputs are whole.",
        ),
        DataSet(
            "ml1m",
            "MovieLens-1M",
            "movielens_1m",
            kept="in_sequences",
            note="501 of 6,040 users lack their true validation event (another one of theirs stands in for it).",
        ),
        DataSet(
            "movielens-small",
            "MovieLens latest-small",
            "movielens_latest_small",
            items="movies.csv",
            interactions="ratings.csv",
            note="Development data: its licence asks not to use it for shared research results.",
        ),
        DataSet(
            "industrial",
            "Amazon Industrial, MiniOneRec's split",
            "minionerec_industrial",
            interactions=None,
            note="10,393 of 36,259 training rows are here: published figures are no yardstick. Histories are chained "
            "to their full length; targets that stand in their own history cannot be hit by anybody.",
        ),
    )
}


@dataclass(frozen=True, eq=False)
class Opened:
    """A data set in memory."""

    about: DataSet
    catalog: Catalog
    histories: Histories
    fingerprint: str  # sha256 over its files


def open_data_set(about: DataSet, data: Path) -> Opened:
    """Read a data set.

    Raises:
        HistoryError: its folder or a file is not there, or rows that come split do not chain to histories.
    """
    folder = data / about.folder
    names = [about.items, *([about.interactions] if about.interactions else ROWS)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise HistoryError(
            f"expected {', '.join(missing)} in {folder}, found none; name the directory with --data"
        )
    catalog = read_catalog(folder / about.items).catalog
    if about.kept is not None:
        catalog = Catalog(catalog.frame.filter(pl.col(about.kept)))
    if about.interactions:
        histories = read_interactions(folder / about.interactions, catalog).histories
    else:
        histories = chained([folder / name for name in ROWS], catalog)
    return Opened(about, catalog, histories, _fingerprint([folder / name for name in names]))


def chained(parts: Sequence[Path], catalog: Catalog) -> Histories:
    """Histories of rows ``{user_id, history, item_id}`` that come split: training, validation, test.

    A user's rows stand in time order; each history ends with what the rows before it had (the last few, where it is
    cut). Every event gets the number of its part as its time.

    Raises:
        HistoryError: a history that does not go on from the rows before it, or parts that a temporal split by tenths
            would not find again.
    """
    events: dict[str, tuple[list[str], list[float]]] = {}
    expected: list[list[tuple[str, str]]] = []
    for number, part in enumerate(parts):
        expected.append([])
        for line, text in enumerate(part.read_text("utf-8").splitlines(), 1):
            row = json.loads(text)
            user, target = str(row["user_id"]), str(row["item_id"])
            history = [str(item) for item in row["history"]]
            # What a first row brings along was met before all parts that are held out.
            items, times = events.setdefault(user, (list(history), [0.0] * len(history)))
            if items[len(items) - len(history) :] != history:
                raise HistoryError(
                    f"expected the history of '{user}' in line {line} of {part} to end what its earlier rows say "
                    f"(…{items[-3:]}), got …{history[-3:]}; put the rows in time order"
                )
            items.append(target)
            times.append(float(number))
            expected[number].append((user, target))
    users = list(events)
    rows = catalog.rows_of([item for user in users for item in events[user][0]])
    if (rows < 0).any():
        raise HistoryError(
            f"expected items of the catalog in {parts[0].parent}, got {int((rows < 0).sum())} others"
        )
    offsets = np.cumsum([0, *(len(events[user][0]) for user in users)]).astype(np.int64)
    times = np.array([time for user in users for time in events[user][1]])
    histories = Histories(users, offsets, rows.astype(np.int32), times)
    try:
        split = temporal_split(histories)
        is_found = all(
            _questions(found, histories, catalog) == sorted(wanted)
            for found, wanted in ((split.validation, expected[1]), (split.test, expected[2]))
        )
    except HistoryError:  # nothing would be left to train on
        is_found = False
    if not is_found:
        raise HistoryError(
            f"expected parts that a temporal split by tenths finds again, got {len(expected[1]):,} and "
            f"{len(expected[2]):,} rows held out of {len(rows):,} events; this data set needs a split of its own"
        )
    return histories


def _questions(cases: Cases, histories: Histories, catalog: Catalog) -> list[tuple[str, str]]:
    return sorted(
        (histories.user_ids[user], catalog.item_ids[target])
        for user, target in zip(cases.user.tolist(), cases.target.tolist(), strict=True)
    )


def _fingerprint(files: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()

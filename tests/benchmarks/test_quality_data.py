"""Data sets of every shape, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.quality_data import DATA_SETS, chained, open_data_set
from index.errors import HistoryError
from index.histories import temporal_split
from tests.benchmarks.quality_files import write_movielens, write_rows, write_sequences
from tests.toy import ITEMS, toy_catalog, toy_histories


def test_items_with_sequences(tmp_path: Path) -> None:
    write_sequences(tmp_path / "amazon_beauty_2014")
    opened = open_data_set(DATA_SETS["beauty"], tmp_path)
    assert len(opened.catalog) == ITEMS
    assert opened.histories.items.tolist() == toy_histories(60).items.tolist()
    assert (opened.about.split, opened.about.holdout) == ("leave-one-out", "last-two")
    same = open_data_set(DATA_SETS["beauty"], tmp_path).fingerprint
    assert same == opened.fingerprint
    lines = (tmp_path / "amazon_beauty_2014" / "sequences.txt").read_text().splitlines()
    (tmp_path / "amazon_beauty_2014" / "sequences.txt").write_text("\n".join(lines[:-1]))
    assert open_data_set(DATA_SETS["beauty"], tmp_path).fingerprint != same


def test_only_items_of_the_published_set_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "movielens_1m"
    write_sequences(folder)
    used = np.arange(ITEMS) < 30
    toy_catalog().frame.with_columns(in_sequences=pl.Series(used)).write_ndjson(folder / "items.jsonl")
    opened = open_data_set(DATA_SETS["ml1m"], tmp_path)
    assert len(opened.catalog) == 30
    assert opened.histories.num_events == int((toy_histories(60).items < 30).sum())


def test_tables_with_times(tmp_path: Path) -> None:
    write_movielens(tmp_path / "movielens_latest_small")
    opened = open_data_set(DATA_SETS["movielens-small"], tmp_path)
    by_user = {name: opened.histories.events(user) for user, name in enumerate(opened.histories.user_ids)}
    expected = toy_histories(60)
    assert all(by_user[str(user)].tolist() == expected.events(user).tolist() for user in range(60))


def test_rows_that_come_split(tmp_path: Path) -> None:
    folder = tmp_path / "minionerec_industrial"
    write_rows(folder)
    opened = open_data_set(DATA_SETS["industrial"], tmp_path)
    assert opened.about.split == "temporal"
    expected = toy_histories(60)
    for user, name in enumerate(
        opened.histories.user_ids
    ):  # whole again, though every row has three items at most
        assert opened.histories.events(user).tolist() == expected.events(int(name[1:])).tolist()
    split = temporal_split(opened.histories)
    for part, cases in (("valid", split.validation), ("test", split.test)):
        assert len(cases) == len((folder / f"{part}.jsonl").read_text().splitlines())


def test_rows_that_do_not_go_on_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows")
    parts = [tmp_path / "rows" / f"{name}.jsonl" for name in ("train_recovered", "valid", "test")]
    lines = parts[2].read_text().splitlines()
    row = json.loads(lines[1])
    lines[1] = json.dumps({**row, "history": ["i0", "i0"]})
    parts[2].write_text("\n".join(lines))
    with pytest.raises(HistoryError, match=f"history of '{row['user_id']}' in line 2 of .*time order"):
        chained(parts, toy_catalog())


def test_parts_of_other_sizes_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows")
    parts = [tmp_path / "rows" / f"{name}.jsonl" for name in ("train_recovered", "valid", "test")]
    parts[2].write_text("\n".join(parts[2].read_text().splitlines()[:5]))
    with pytest.raises(HistoryError, match="a split of its own"):
        chained(parts, toy_catalog())


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"items.jsonl, sequences.txt in .*games.*--data"):
        open_data_set(DATA_SETS["games"], tmp_path)


def test_published_figures_are_shares_with_a_source() -> None:
    for one in DATA_SETS.values():
        for row in one.published:
            assert row["source"]
            assert {"recall@10", "ndcg@10"} <= row.keys()
            assert all(0 < row[name] < 0.5 for name in row if "@" in name)
            assert row["ndcg@10"] < row["recall@10"]

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.catalog import Catalog
from index.errors import HistoryError
from index.history_readers import InteractionColumns, InteractionsReading, UnknownItems, read_interactions

Write = Callable[[str, str | bytes], Path]

CATALOG = Catalog(pl.DataFrame({"item_id": ["a", "b", "c", "7"], "title": ["A", "B", "C", "Seven"]}))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def met(reading: InteractionsReading) -> dict[str, str]:
    """user id → the ids of the items met, in order, as one word."""
    histories = reading.histories
    return {
        user_id: "".join(CATALOG.item_ids[row] for row in histories.events(user).tolist())
        for user, user_id in enumerate(histories.user_ids)
    }


# Formats


def test_csv_in_time_order_with_ties_as_in_the_file(write: Write) -> None:
    path = write("log.csv", "user,item,time\nu,c,5\nv,a,1\nu,b,3\nu,a,3\nv,b,0\n")
    reading = read_interactions(path, CATALOG)
    assert met(reading) == {"u": "bac", "v": "ba"}
    assert list(reading.histories.user_ids) == ["u", "v"]
    assert reading.histories.timestamps is not None
    assert reading.histories.timestamps.tolist() == [3, 3, 5, 0, 1]
    report = reading.report
    assert (report.rows_read, report.rows_kept, report.events, report.users) == (5, 5, 5, 2)
    assert report.unknown_items == UnknownItems(0, 0, ())
    assert report.time == "seconds"
    assert report.format == "csv"


def test_without_times_the_file_is_the_order(write: Write) -> None:
    reading = read_interactions(write("log.tsv", "user_id\titem_id\nv\tb\nu\tc\nv\ta\n"), CATALOG)
    assert met(reading) == {"v": "ba", "u": "c"}
    assert reading.histories.timestamps is None
    assert reading.report.time == "the file, which has no times"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,b,3.5,20\n1,a,4,10\n2,7,1,5\n"),
        ("ratings.dat", "1::b::5::20\n1::a::4::10\n2::7::1::5\n"),
        ("ml.inter", "user_id:token\titem_id:token\ttimestamp:float\n1\tb\t20\n1\ta\t10\n2\t7\t5\n"),
        (
            "reviews.jsonl",
            '{"reviewerID": 1, "asin": "b", "unixReviewTime": 20}\n'
            '{"reviewerID": 1, "asin": "a", "unixReviewTime": 10}\n'
            '{"reviewerID": 2, "asin": 7, "unixReviewTime": 5}\n',
        ),
        ("sequences.txt", "1 a b\n2 7\n"),
        ("pairs.txt", "1 a\n2 7\n1 b\n"),
        ("sequences", "  1   a  b \n\n2 7"),
        ("sequences.txt", "1\ta\tb\n2\t7\n"),
        ("pairs.dat", "1\ta\n2\t7\n1\tb\n"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_says_the_same(write: Write, name: str, content: str, packed: bool) -> None:
    path = write(name + ".gz", gzip.compress(content.encode())) if packed else write(name, content)
    assert met(read_interactions(path, CATALOG)) == {"1": "ab", "2": "7"}


def test_parquet_with_numbers_and_dates(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [1, 1, 2], "item_id": ["b", "a", "7"], "timestamp": [20, 10, 5]})
    stamps = [
        frame,
        frame.with_columns(pl.from_epoch("timestamp")),
        frame.with_columns(pl.col("timestamp") / 1),
    ]
    for stamped in stamps:
        stamped.write_parquet(tmp_path / "log.parquet")
        reading = read_interactions(tmp_path / "log.parquet", CATALOG)
        assert met(reading) == {"1": "ab", "2": "7"}
        assert reading.histories.timestamps is not None
        assert reading.histories.timestamps.tolist() == [10, 20, 5]


def test_whole_floats_are_ids(tmp_path: Path) -> None:
    # pandas makes floats of whole ids as soon as one is missing; "7.0" would be unknown to the catalog.
    pl.DataFrame({"user_id": [1.0, 1.0, None], "item_id": [7.0, None, 7.0]}).write_parquet(
        tmp_path / "log.parquet"
    )
    reading = read_interactions(tmp_path / "log.parquet", CATALOG, on_error="skip")
    assert met(reading) == {"1": "7"}
    assert [str(row) for row in reading.report.bad_rows] == [
        "line 2, item_id: expected an item id, got nothing",
        "line 3, user_id: expected a user id, got nothing",
    ]


def test_a_text_file_with_a_header_is_a_table(write: Write) -> None:
    reading = read_interactions(write("log.txt", "user_id\titem_id\tts\nu\tb\t2\nu\ta\t1\n"), CATALOG)
    assert met(reading) == {"u": "ab"}


def test_a_table_without_a_header_is_refused(write: Write) -> None:
    with pytest.raises(
        HistoryError, match=r"expected a column for the user .*got columns 196, a, 3, 881250949"
    ):
        read_interactions(write("u.data", "196\ta\t3\t881250949\n196\tb\t3\t881250950\n"), CATALOG)


# Times


@pytest.mark.parametrize(
    ("first", "second", "unit"),
    [
        ("0", "1.5", "seconds"),
        ("978300760", "978300761.25", "seconds"),
        ("1600000000000", "1600000000500", "milliseconds (the median is 1.6e+12, at least 1e+11)"),
        ("1600000000000000", "1600000000000500", "microseconds (the median is 1.6e+15, at least 1e+14)"),
        ("1600000000000000000", "1600000001000000000", "nanoseconds (the median is 1.6e+18, at least 1e+17)"),
        ("2020-01-02", "2020-01-02T00:00:01.5", "ISO 8601, UTC where no offset is given"),
    ],
)
def test_the_unit_of_times_is_found_and_said(write: Write, first: str, second: str, unit: str) -> None:
    # Later first in the file, so that the order shows the times were read.
    reading = read_interactions(write("log.csv", f"user,item,ts\nu,b,{second}\nu,a,{first}\n"), CATALOG)
    assert met(reading) == {"u": "ab"}
    assert reading.report.time == unit
    assert unit in reading.report.summary()
    assert reading.histories.timestamps is not None
    if unit != "seconds" and "ISO" not in unit:
        assert reading.histories.timestamps[0] == pytest.approx(1.6e9, abs=1e-6)


def test_iso_times_with_and_without_an_offset_are_one_moment(write: Write) -> None:
    stamps = [
        "2020-01-02T10:00:00Z",
        "2020-01-02 10:00:00",
        "2020-01-02T10:00",
        "2020-01-02T12:00:00+02:00",
        "2020-01-02 04:30:00.000-0530",
    ]
    lines = "".join(f"u,a,{stamp}\n" for stamp in stamps)
    reading = read_interactions(write("log.csv", f"user,item,date\n{lines}"), CATALOG)
    assert reading.histories.timestamps is not None
    assert reading.histories.timestamps.tolist() == [1577959200.0] * 5


def test_a_time_that_is_none_is_a_bad_row(write: Write) -> None:
    path = write("log.csv", "user,item,ts\nu,a,5\nu,b,soon\nu,c,\nu,c,4\nu,c,inf\n")
    with pytest.raises(HistoryError, match=r"line 3, ts: expected unix time or an ISO 8601 date, got 'soon'"):
        read_interactions(path, CATALOG)
    reading = read_interactions(path, CATALOG, on_error="skip")
    assert met(reading) == {"u": "ca"}
    assert [row.line for row in reading.report.bad_rows] == [3, 4, 6]
    assert (reading.report.rows_read, reading.report.rows_kept) == (5, 2)


# Columns


def test_mapped_columns(write: Write) -> None:
    path = write("log.csv", "who,user_id,item_id,what,date,when\nu,9,7,b,x,2\nu,9,7,a,x,1\n")
    columns = InteractionColumns(user="who", item="what", timestamp="when")
    assert met(read_interactions(path, CATALOG, columns)) == {"u": "ab"}
    for unknown in (
        InteractionColumns(user="x"),
        InteractionColumns(item="x"),
        InteractionColumns(timestamp="x"),
    ):
        with pytest.raises(
            HistoryError, match=r"expected a column 'x' .*got columns who, user_id, item_id, what"
        ):
            read_interactions(path, CATALOG, unknown)


def test_the_events_own_id_is_not_an_item(write: Write) -> None:
    with pytest.raises(HistoryError, match=r"expected a column for the item .*got columns id, user_id, ts"):
        read_interactions(write("log.csv", "id,user_id,ts\n1,u,2\n"), CATALOG)


# Unknown items


def test_unknown_items_are_left_out_counted_and_named(write: Write) -> None:
    reading = read_interactions(write("log.txt", "u a x b x y\nv z\nw\nv2 c a b\n"), CATALOG)
    assert met(reading) == {"u": "ab", "v2": "cab"}
    assert reading.report.unknown_items == UnknownItems(events=4, ids=3, examples=("x", "y", "z"))
    assert reading.report.users_without_events == ("v", "w")
    assert reading.report.bad_rows == ()
    summary = reading.report.summary()
    assert "4 events with 3 items the catalog does not have, such as x, y, z" in summary
    assert "2 users without any event, such as v, w" in summary


def test_half_unknown_is_reported_and_more_is_another_file(write: Write) -> None:
    assert met(read_interactions(write("log.txt", "u a x\n"), CATALOG)) == {"u": "a"}
    with pytest.raises(
        HistoryError, match=r"ids of the catalog \(such as a, b, c\) .*2 of 3 events .*such as x, y"
    ):
        read_interactions(write("log.txt", "u a x y\n"), CATALOG)
    with pytest.raises(HistoryError, match=r"\(read: user='user', item='item'\)"):
        read_interactions(write("log.csv", "user,item\nu,x\n"), CATALOG)


# Files that are none


def test_files_without_events(write: Write, tmp_path: Path) -> None:
    cases: list[tuple[Path, str]] = [
        (tmp_path / "missing.csv", "expected a file, got nothing at"),
        (tmp_path, "expected a file, got the directory"),
        (write("empty.txt", ""), "got an empty file"),
        (write("header.csv", "user,item\n"), "expected at least one event in .*, got none in 0 rows"),
        (write("users.txt", "u\nv\n"), "expected at least one event in .*, got none in 2 rows"),
        (write("no.parquet", "user,item\nu,a\n"), "expected Parquet in"),
        (write("users.dat", "1::F::1::10::48067\n"), "expected userId::movieId::rating::timestamp"),
    ]
    for path, message in cases:
        with pytest.raises(HistoryError, match=message):
            read_interactions(path, CATALOG)
    with pytest.raises(HistoryError, match="expected on_error 'fail' or 'skip', got 'warn'"):
        read_interactions(write("log.txt", "u a\n"), CATALOG, on_error="warn")  # type: ignore[arg-type]


def test_bad_rows_fail_by_default(write: Write) -> None:
    path = write("log.csv", "user,item\nu,a\n,b\nu\nu,\n")
    with pytest.raises(HistoryError) as caught:
        read_interactions(path, CATALOG)
    assert str(caught.value) == (
        f"expected every row of {path} to be usable, got 3 bad of 4:\n"
        "  line 3, user: expected a user id, got nothing\n"
        "  line 4, row: expected 2 values, got 1\n"
        "  line 5, item: expected an item id, got nothing\n"
        "Leave them out with --on-error skip, or map other columns (read: user='user', item='item')."
    )


# Properties

events = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcx"), st.integers(0, 3)), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(events, st.sampled_from(["csv", "jsonl", "parquet", "dat"]))
def test_reading_is_what_a_loop_over_the_rows_does(
    tmp_path_factory: pytest.TempPathFactory, log: list[tuple[str, str, int]], kind: str
) -> None:
    path = tmp_path_factory.mktemp("log") / f"log.{kind}"
    records = [{"user_id": u, "item_id": i, "timestamp": t} for u, i, t in log]
    if kind == "csv":
        path.write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in log))
    elif kind == "dat":
        path.write_text("".join(f"{u}::{i}::1::{t}\n" for u, i, t in log))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        pl.DataFrame(records).write_parquet(path)

    expected: dict[str, list[tuple[int, str]]] = {}
    unknown = 0
    for user, item, time in log:
        if CATALOG.row_of(item) is None:
            unknown += 1
        else:
            expected.setdefault(user, []).append((time, item))
    if 2 * unknown > len(log):
        with pytest.raises(HistoryError, match="expected item ids of the catalog"):
            read_interactions(path, CATALOG)
        return
    reading = read_interactions(path, CATALOG)
    # sorted() is stable, like the reader: events of one moment keep the order of the file.
    in_order = {
        user: "".join(item for _, item in sorted(met_, key=lambda e: e[0])) for user, met_ in expected.items()
    }
    assert met(reading) == in_order
    assert list(reading.histories.user_ids) == list(in_order)
    assert reading.report.unknown_items.events == unknown
    assert reading.report.events + unknown == len(log) == reading.report.rows_kept
    left_out = list(dict.fromkeys(user for user, _, _ in log if user not in expected))
    assert list(reading.report.users_without_events) == left_out

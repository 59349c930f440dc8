"""Files of users: any shard size gives the same users, and a row that is none is named."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.batch.users_file import Users, UsersFile, open_users
from index.errors import HistoryError

USERS = {"anna": ["i1", "i2"], "ben": [], "chloé": ["i3"], "d": ["i9", "i9", "i1"], "e": ["i4"]}


def as_parquet(path: Path, users: dict[str, list[str]]) -> Path:
    columns = {"user_id": list(users), "history": list(users.values())}
    schema = {"user_id": pl.String, "history": pl.List(pl.String)}
    pl.DataFrame(columns, schema=schema).write_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def as_json_lines(path: Path, users: dict[str, list[str]]) -> Path:
    lines = [json.dumps({"user": user, "items": items}, ensure_ascii=False) for user, items in users.items()]
    path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return path.with_suffix(".jsonl")


def as_sequences(path: Path, users: dict[str, list[str]]) -> Path:
    lines = [" ".join([user, *items]) for user, items in users.items()]
    path.with_suffix(".txt").write_text("\n\n".join(lines), "utf-8")  # blank lines count for nothing
    return path.with_suffix(".txt")


FORMS = {"parquet": as_parquet, "json lines": as_json_lines, "sequences": as_sequences}


def all_users(file: UsersFile) -> list[tuple[str, list[str]]]:
    shards: list[Users] = [file.read(shard) for shard in range(file.shards)]
    return [
        (user, list(history)) for one in shards for user, history in zip(one.ids, one.histories, strict=True)
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("size", "shards"), [(1, 5), (2, 3), (5, 1), (100, 1)])
def test_shards_are_the_file(tmp_path, form, size, shards):
    file = open_users(FORMS[form](tmp_path / "users", USERS), size)
    assert (file.users, file.shards) == (5, shards)
    assert all_users(file) == list(USERS.items())
    assert file.read(file.shards - 1) == file.read(file.shards - 1)


@settings(max_examples=20, deadline=None)
@given(
    users=st.dictionaries(
        st.text("ab é1", min_size=1).map(lambda text: text.replace(" ", "_")),
        st.lists(st.text("xyz", min_size=1), max_size=3),
        min_size=1,
    ),
    size=st.integers(1, 7),
)
def test_any_users_in_any_form_are_read_alike(tmp_path_factory, users, size):
    directory = tmp_path_factory.mktemp("any")
    for write in FORMS.values():
        assert all_users(open_users(write(directory / "users", users), size)) == list(users.items())


def test_a_directory_of_parts_is_one_file_in_the_order_of_names(tmp_path):
    names = list(USERS)
    for part, chosen in (("part-1", names[2:]), ("part-0", names[:2])):
        as_parquet(tmp_path / part, {name: USERS[name] for name in chosen})
    assert all_users(open_users(tmp_path, 2)) == list(USERS.items())


def test_whole_numbers_are_ids(tmp_path):
    pl.DataFrame({"uid": [7], "sequence": [[1, 2]]}).write_parquet(tmp_path / "n.parquet")
    (tmp_path / "n.jsonl").write_text('{"uid": 7, "sequence": [1, 2]}')
    for name in ("n.parquet", "n.jsonl"):
        assert all_users(open_users(tmp_path / name, 1)) == [("7", ["1", "2"])]


def test_another_byte_is_another_input(tmp_path):
    first = open_users(as_sequences(tmp_path / "a", USERS), 2).sha256
    assert open_users(as_sequences(tmp_path / "b", {**USERS, "f": []}), 2).sha256 != first
    assert open_users(as_sequences(tmp_path / "c", USERS), 3).sha256 == first


@pytest.mark.parametrize("form", FORMS)
def test_a_user_who_comes_twice_is_refused_with_both_rows(tmp_path, form):
    twice = FORMS[form](tmp_path / "users", {"anna": ["i1"], "ben": ["i1"], "bob": ["i2"]})
    if twice.suffix == ".parquet":
        pl.read_parquet(twice).with_columns(user_id=pl.Series(["anna", "ben", "anna"])).write_parquet(twice)
    else:
        twice.write_text(twice.read_text().replace("bob", "anna"))
    with pytest.raises(HistoryError, match=r"every user once .* 'anna' in rows 1 and [35]"):
        open_users(twice, 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("u.jsonl", '{"user": "a", "history": "i1"}', "list of ids in 'history' in line 1"),
        ("u.jsonl", '{"user": "a", "history": [1.5]}', "list of ids"),
        ("u.jsonl", '{"user": true, "history": []}', "an id in 'user'"),
        ("u.jsonl", '{"user": "a", "history": []}\n{"user": "b"', "one JSON object per line .* in line 2"),
        ("u.jsonl", "[1]", "one JSON object per line .* got list"),
        ("u.jsonl", '{"name": "a", "history": []}', "name it with --user-column"),
        ("u.jsonl", "", "at least one user"),
        ("u.txt", b"a i1\nb \xff", "UTF-8 in line 2"),
        ("u.parquet", b"no parquet", "expected Parquet"),
    ],
)  # fmt: skip
def test_what_is_no_user_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(HistoryError, match=message):
        open_users(path, 2)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": ["a", None], "history": [["i"], ["i"]]}, "a user in row 2"),
        ({"user": ["a"], "history": ["i1 i2"]}, "a list of item ids in column 'history' .* got String"),
        ({"user": ["a"], "history": [[1.5]]}, "a list of item ids"),
        ({"user": ["a"]}, "expected a history column .* got the columns"),
    ],
)
def test_a_table_without_users_and_lists_is_refused(tmp_path, columns, message):
    pl.DataFrame(columns).write_parquet(tmp_path / "u.parquet")
    with pytest.raises(HistoryError, match=message):
        open_users(tmp_path / "u.parquet", 2)


def test_a_null_among_item_ids_names_its_row(tmp_path):
    pl.DataFrame({"user": ["a", "b"], "history": [["i"], ["i", None]]}).write_parquet(tmp_path / "u.parquet")
    file = open_users(tmp_path / "u.parquet", 1)
    with pytest.raises(HistoryError, match="item ids in row 2"):
        file.read(1)


def test_a_missing_file_and_column_are_said(tmp_path):
    with pytest.raises(HistoryError, match="found nothing at"):
        open_users(tmp_path / "none.parquet", 1)
    with pytest.raises(HistoryError, match=r"expected \.parquet files in"):
        open_users(tmp_path, 1)
    path = as_parquet(tmp_path / "u", USERS)
    with pytest.raises(HistoryError, match="user column 'who'"):
        open_users(path, 1, user="who")


def test_what_else_decides_the_shards_is_known(tmp_path):
    """Answers of one column must not be joined with those of another by a job that is resumed."""
    frame = pl.DataFrame({"user": ["a", "b"], "seen": [["i1"], ["i2"]], "bought": [["i3"], ["i4"]]})
    frame.write_parquet(tmp_path / "users.parquet")
    frame.write_ndjson(tmp_path / "users.jsonl")
    for name in ("users.parquet", "users.jsonl"):
        ways = [("seen", 1), ("bought", 1), ("seen", 2)]
        files = [open_users(tmp_path / name, size, history=column) for column, size in ways]
        assert len({one.sha256 for one in files}) == 1
        assert len({json.dumps(one.reading) for one in files}) == len(ways)

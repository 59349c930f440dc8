"""Files of users and their histories, read one shard at a time.

A shard is a fixed run of users, so whoever reads it, and how often, gets the same ones. Parquet (a file, or a
directory of parts) is read by row ranges; JSON lines and sequence files (``user item item …``) by byte ranges that
one first pass finds. Only that pass looks at the whole file: it counts, hashes and refuses a user who comes twice.
Nothing here knows a catalog or a model.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import polars as pl

from index.errors import HistoryError
from index.types import Int64Array, UInt64Array

USER_NAMES = ("user_id", "user", "userId", "uid")
HISTORY_NAMES = ("history", "items", "item_ids", "sequence")
_BLOCK = 1 << 20
_SCAN_ROWS = 1 << 20  # users looked at together while a Parquet file is checked

Progress: TypeAlias = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Users:
    """One shard: B users in file order."""

    ids: tuple[str, ...]
    histories: tuple[tuple[str, ...], ...]  # item ids, oldest first

    def __len__(self) -> int:
        return len(self.ids)


class UsersFile(Protocol):
    """Users in shards."""

    @property
    def users(self) -> int:
        """All users of the file."""

    @property
    def shards(self) -> int:
        """Shards they make."""

    @property
    def sha256(self) -> str:
        """Of the bytes read."""

    @property
    def reading(self) -> dict[str, Any]:
        """What else decides the shards, as JSON values: users of each, and the columns that were read."""

    def read(self, shard: int) -> Users:
        """One shard.

        Raises:
            HistoryError: a row of it is no user with a history; names the row.
        """


def open_users(
    path: Path,
    shard_users: int,
    *,
    user: str | None = None,
    history: str | None = None,
    progress: Progress | None = None,
) -> UsersFile:
    """Open a file of users.

    Args:
        path: Parquet (``.parquet``, or a directory of such files) or JSON lines (``.jsonl``, ``.ndjson``) with a
            user column and a list column of item ids; any other name is a sequence file, ``user item item …``,
            one user a line.
        shard_users: users per shard.
        user: name of the user column; one of :data:`USER_NAMES` where not given.
        history: name of the history column; one of :data:`HISTORY_NAMES` where not given.
        progress: told how many users have been looked at.

    Raises:
        HistoryError: there is no such file, a column is missing or of another type, there is no user, or one
            comes twice.
    """
    if not path.exists():
        raise HistoryError(f"expected a file of users, found nothing at {path}; check the path")
    tell = progress or (lambda users: None)
    if path.is_dir() or path.suffix == ".parquet":
        return _ParquetUsers(path, shard_users, user, history, tell)
    if path.suffix in (".jsonl", ".ndjson"):
        return _LineUsers(path, shard_users, _JsonLine(path, user, history), tell)
    return _LineUsers(path, shard_users, _SequenceLine(path), tell)


class _ParquetUsers:
    """Row ranges of one Parquet file, or of a directory's files in the order of their names."""

    def __init__(
        self, path: Path, shard_users: int, user: str | None, history: str | None, tell: Progress
    ) -> None:
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not files:
            raise HistoryError(f"expected .parquet files in {path}, found none; check the path")
        try:
            self._table = pl.scan_parquet(files)
            schema = self._table.collect_schema()
        except pl.exceptions.PolarsError as error:
            raise HistoryError(
                f"expected Parquet in {path}, got {type(error).__name__}: {error}; write it again"
            ) from error
        self._path, self._size = path, shard_users
        self._user = _column(path, schema.names(), user, USER_NAMES, "user")
        self._history = _column(path, schema.names(), history, HISTORY_NAMES, "history")
        self.reading: dict[str, Any] = {
            "shard_users": shard_users,
            "user": self._user,
            "history": self._history,
        }
        kind = schema[self._history]
        if not isinstance(kind, pl.List) or not (kind.inner == pl.String or kind.inner.is_integer()):
            raise HistoryError(
                f"expected a list of item ids in column {self._history!r} of {path}, got {kind}; "
                f"group the events of each user into one row, oldest first"
            )
        self.users = int(self._table.select(pl.len()).collect().item())
        _refuse_empty(path, self.users)
        self.shards = -(-self.users // shard_users)
        self.sha256 = _sha256(files)
        self._check_users(tell)

    def read(self, shard: int) -> Users:
        """See :class:`UsersFile`."""
        rows = self._table.select(
            pl.col(self._user).cast(pl.String).alias("user"),
            pl.col(self._history).cast(pl.List(pl.String)).alias("history"),
        )
        part = rows.slice(shard * self._size, self._size).collect()
        histories = part["history"].to_list()
        for place, one in enumerate(histories):
            if one is not None and None in one:
                raise HistoryError(
                    f"expected item ids in row {shard * self._size + place + 1} of {self._path}, got a null "
                    f"among them; drop it"
                )
        return Users(tuple(part["user"].to_list()), tuple(tuple(one or ()) for one in histories))

    def _check_users(self, tell: Progress) -> None:
        """A null, or a user who comes twice, is found by 8 bytes a user."""
        hashes = np.empty(self.users, np.uint64)
        column = self._table.select(pl.col(self._user).cast(pl.String).alias("user"))
        for start in range(0, self.users, _SCAN_ROWS):
            ids = column.slice(start, _SCAN_ROWS).collect()["user"]
            if ids.null_count():
                row = start + int(ids.is_null().arg_max() or 0) + 1
                raise HistoryError(f"expected a user in row {row} of {self._path}, got a null; drop the row")
            hashes[start : start + len(ids)] = ids.hash(seed=0).to_numpy()
            tell(start + len(ids))
        suspects = _suspects(hashes).tolist()
        if suspects:
            alike = column.with_row_index().filter(pl.col("index").is_in(suspects)).collect()
            _refuse_repeated(self._path, alike["user"].to_list(), (alike["index"] + 1).to_list())


class _LineUsers:
    """Byte ranges of a file with one user a line; blank lines count for nothing."""

    def __init__(self, path: Path, shard_users: int, parse: _Line, tell: Progress) -> None:
        self._path, self._parse = path, parse
        self.reading: dict[str, Any] = {"shard_users": shard_users, "columns": parse.asked}
        hashes = array("Q")  # 8 bytes a user
        starts, lines = [], []  # of each shard: first byte, number of its first line
        digest = hashlib.sha256()
        where = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                digest.update(line)
                if line.strip():
                    if len(hashes) % shard_users == 0:
                        starts.append(where)
                        lines.append(number)
                    hashes.append(_hash(parse(line, number)[0]))
                    if len(hashes) % _SCAN_ROWS == 0:
                        tell(len(hashes))
                where += len(line)
        self.users, self.shards, self.sha256 = len(hashes), len(starts), digest.hexdigest()
        _refuse_empty(path, self.users)
        self._starts, self._lines = [*starts, where], lines
        suspects = {hashes[row] for row in _suspects(np.array(hashes, np.uint64)).tolist()}
        if suspects:
            repeated = [(one, line) for one, line in self._all_users() if _hash(one) in suspects]
            _refuse_repeated(path, [one for one, _ in repeated], [line for _, line in repeated])

    def read(self, shard: int) -> Users:
        """See :class:`UsersFile`."""
        start, end = self._starts[shard : shard + 2]
        with self._path.open("rb") as file:
            file.seek(start)
            lines = file.read(end - start).split(b"\n")  # as iterating over the file does
        parsed = [
            self._parse(line, number) for number, line in enumerate(lines, self._lines[shard]) if line.strip()
        ]
        return Users(tuple(one for one, _ in parsed), tuple(history for _, history in parsed))

    def _all_users(self) -> Iterator[tuple[str, int]]:
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield self._parse(line, number)[0], number


class _Line(Protocol):
    """What a line says: a user and item ids."""

    @property
    def asked(self) -> list[str | None]:
        """The names of the user's and the history's column, where they were given."""

    def __call__(self, line: bytes, number: int) -> tuple[str, tuple[str, ...]]:
        """Line ``number``, counted from 1."""


@dataclass(frozen=True, slots=True)
class _SequenceLine:
    path: Path

    @property
    def asked(self) -> list[str | None]:
        """Nothing has a name."""
        return []

    def __call__(self, line: bytes, number: int) -> tuple[str, tuple[str, ...]]:
        user, *items = _text(self.path, line, number).split()
        return user, tuple(items)


class _JsonLine:
    """An object with a user and a list; which keys they are is decided by the first line."""

    def __init__(self, path: Path, user: str | None, history: str | None) -> None:
        self._path = path
        self.asked: list[str | None] = [user, history]
        self._keys: tuple[str, str] | None = None

    def __call__(self, line: bytes, number: int) -> tuple[str, tuple[str, ...]]:
        try:
            record = json.loads(_text(self._path, line, number))
        except ValueError as error:
            raise HistoryError(
                f"expected one JSON object per line in {self._path}, got {error} in line {number}"
            ) from error
        if not isinstance(record, dict):
            raise HistoryError(
                f"expected one JSON object per line in {self._path}, got {type(record).__name__} in line {number}"
            )
        if self._keys is None:
            user, history = self.asked
            self._keys = (
                _column(self._path, list(record), user, USER_NAMES, "user"),
                _column(self._path, list(record), history, HISTORY_NAMES, "history"),
            )
        user, history = (record.get(key) for key in self._keys)
        if not _is_id(user) or not isinstance(history or [], list) or not all(map(_is_id, history or [])):
            raise HistoryError(
                f"expected an id in {self._keys[0]!r} and a list of ids in {self._keys[1]!r} in line {number} of "
                f"{self._path}, got {str(user)[:60]!r} and {str(history)[:60]!r}"
            )
        return str(user), tuple(str(one) for one in history or [])


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _text(path: Path, line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise HistoryError(
            f"expected UTF-8 in line {number} of {path}, got byte {line[error.start]:#04x}; convert the file"
        ) from error


def _column(path: Path, names: Sequence[str], asked: str | None, usual: Sequence[str], what: str) -> str:
    for name in (asked,) if asked else usual:
        if name in names:
            return name
    raise HistoryError(
        f"expected the {what} column {asked!r} in {path}, got the columns {list(names)}"
        if asked
        else f"expected a {what} column ({', '.join(usual)}) in {path}, got the columns {list(names)}; "
        f"name it with --{what}-column"
    )


def _refuse_empty(path: Path, users: int) -> None:
    if not users:
        raise HistoryError(f"expected at least one user in {path}, got none")


def _hash(user: str) -> int:
    return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=8).digest(), "little")


def _suspects(hashes: UInt64Array) -> Int64Array:
    """int64[M]: rows whose hash stands at another row too."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    return np.unique(np.concatenate([order[1:][same], order[:-1][same]]))


def _refuse_repeated(path: Path, ids: list[str], rows: list[int]) -> None:
    """Rows with equal hashes: refuse where the users themselves are equal, too."""
    first: dict[str, int] = {}
    for one, row in zip(ids, rows, strict=True):
        if one in first:
            raise HistoryError(
                f"expected every user once in {path}, got {one!r} in rows {first[one]} and {row}; "
                f"merge their histories, so that each user has one answer"
            )
        first[one] = row


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for one in files:
        with one.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()

"""What a reader says of a file beside its content: which rows it could not use, and why.

It knows lines and fields. It knows no format and raises only on request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from index.counted import counted
from index.errors import CatalogError, HistoryError

OnError: TypeAlias = Literal["fail", "skip"]
"""What to do with rows that cannot be used: refuse the file, or leave them out and report them."""

ReadError: TypeAlias = type[CatalogError] | type[HistoryError]
"""Which branch of the error tree a reader raises in."""

SHOWN_ROWS = 5  # bad rows spelled out in a message; all of them are in the report


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that could not be used, by its first fault."""

    line: int  # 1-based line of the file where the row starts; the row number for Parquet
    field: str  # the column, or "row" where the row as a whole is at fault
    expected: str
    got: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.field}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True)
class ReadReport:
    """How reading one file went."""

    path: Path
    format: str  # "csv", "jsonl", "movielens-dat" …
    rows_read: int  # rows in the file, without header and blank lines
    rows_kept: int
    bad_rows: tuple[BadRow, ...]  # by line, at most one per row
    warnings: tuple[str, ...]  # whole sentences about what was read but may surprise

    def summary(self) -> str:
        """A few lines for a person."""
        first = f"{self.path}: {self.format}, {self.rows_kept:,} of {counted(self.rows_read, 'row')} kept"
        shown = [f"  {row}" for row in self.bad_rows[:SHOWN_ROWS]]
        more = (
            [f"  … and {len(self.bad_rows) - SHOWN_ROWS:,} more"] if len(self.bad_rows) > SHOWN_ROWS else []
        )
        return "\n".join([first, *shown, *more, *(f"  note: {warning}" for warning in self.warnings)])


def refuse_bad_rows(
    path: Path, rows_read: int, bad_rows: Sequence[BadRow], mapping: str, error: ReadError
) -> None:
    """Raise if there are bad rows: the first few, their number, and the remedy.

    Args:
        path: the file.
        rows_read: its rows, bad ones included.
        bad_rows: those that could not be used.
        mapping: the columns that were read, as a person would write the mapping.
        error: what to raise.
    """
    if not bad_rows:
        return
    shown = "\n".join(f"  {row}" for row in bad_rows[:SHOWN_ROWS])
    more = f"\n  … and {len(bad_rows) - SHOWN_ROWS:,} more" if len(bad_rows) > SHOWN_ROWS else ""
    raise error(
        f"expected every row of {path} to be usable, got {len(bad_rows):,} bad of {rows_read:,}:\n"
        f"{shown}{more}\n"
        f"Leave them out with --on-error skip, or map other columns (read: {mapping})."
    )

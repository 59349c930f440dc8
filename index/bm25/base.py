"""The contract of a BM25 engine, and what a search gives back. It knows no engine and no analyser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from index.errors import RequestError
from index.types import Float32Array, Int32Array, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The items one query found, best first."""

    rows: Int32Array  # [<= k] catalog rows, none twice
    scores: Float32Array  # [<= k] all > 0, non-increasing; equal scores stand in row order


class Bm25(Protocol):
    """Item texts, searchable by words.

    Every engine ranks by (−score, item row) and returns no item that shares no term with the query, so a
    query may find fewer than ``k`` items, or none.
    """

    def __len__(self) -> int:
        """N, the items indexed (those without a word included; they are never found)."""

    def search(self, queries: Sequence[str], k: int, exclude: Sequence[IntArray] | None = None) -> list[Hits]:
        """The best ``k`` items of each query.

        Args:
            queries: free text. Empty text, and text with no indexed term, finds nothing.
            k: at most so many hits per query; it may exceed N.
            exclude: for each query, catalog rows that must not be returned: the k best *others* are.

        Raises:
            RequestError: ``k`` is below 1, there is not one ``exclude`` per query, or a row is outside [0, N).
        """


def check_search(k: int, exclude: Sequence[IntArray] | None, queries: int, items: int) -> None:
    """Refuse what no engine should be asked; see ``Bm25.search``."""
    if k < 1:
        raise RequestError(f"expected k >= 1, got {k}")
    if exclude is None:
        return
    if len(exclude) != queries:
        raise RequestError(
            f"expected one list of excluded rows per query, got {len(exclude)} for {queries} queries"
        )
    for rows in exclude:
        if len(rows) and not (np.min(rows) >= 0 and np.max(rows) < items):
            raise RequestError(f"expected excluded rows in [0, {items}), got {np.min(rows)}..{np.max(rows)}")

"""CatalogText: items as recipes write them into prompts. It knows no model, so training and asking share it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import polars as pl

from genrec.vocabulary import one_line
from index.item_index import ItemIndex

SHOWN_ITEMS = 20
"""Items of a history that a prompt in prose shows, the newest."""


class CatalogText:
    """The words for items.

    Args:
        index: the items.
    """

    def __init__(self, index: ItemIndex) -> None:
        self.index = index
        self.catalog = index.catalog

    def title(self, row: int) -> str:
        """The title of a row, on one line."""
        return one_line(self.catalog.titles[row])

    def listed(self, rows: Sequence[int]) -> str:
        """Titles as a numbered list."""
        lines = filter(None, map(self.title, rows))
        return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))

    def shown(self, history: Sequence[int]) -> str:
        """The newest items of a history as a numbered list."""
        return self.listed(list(history)[-SHOWN_ITEMS:]) or "(nothing yet)"

    def nameable(self) -> list[int]:
        """Every row that may be answered with."""
        kept = np.ones(len(self.catalog), bool)
        kept[self.index.removed] = False
        return [row for row in np.flatnonzero(kept).tolist() if self.may_name(row)]

    def may_name(self, row: int) -> bool:
        """Whether there are words for a row: an item without a title has none."""
        return bool(self.catalog.titles[row].strip())

    @cached_property
    def kinds(self) -> list[tuple[str, ...]]:
        """What kinds of thing each row is: the values of the first field of texts that many items share."""
        frame = self.catalog.frame
        for name in self.catalog.field_names:
            series = frame[name]
            is_list = series.dtype == pl.List(pl.String())
            if not is_list and series.dtype != pl.String():
                continue
            if 1 < (series.explode() if is_list else series).n_unique() <= len(frame) // 4:
                values = series.to_list()
                return [tuple(one or ()) if is_list else (one,) if one else () for one in values]
        return [() for _ in range(len(frame))]

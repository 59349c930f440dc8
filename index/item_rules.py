"""From what a request says of items to the ranks it may get: ``where``, ``include``, ``exclude``, seen items.

The bitmap of a filter depends only on the filter, so it is kept, up to a limit of bytes, under the filter's
canonical form. What is particular to a request (seen and excluded items) stays a short list beside it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np

from index.catalog import Catalog
from index.filter_columns import FilterColumns
from index.filter_expression import Where, canonical, parse_filter
from index.item_filter import Allowed, RankBitmap
from index.trie import TokenTrie
from index.types import BoolArray, IntArray, ItemId

CACHE_BYTES = 64 * 2**20  # some 350 filters over a catalog of a million items


class ItemRules:
    """Builds :class:`~index.item_filter.Allowed` for requests over one index. Safe to share between threads.

    Args:
        catalog: the items.
        trie: their token paths.
        removed: catalog rows that no request may get, whatever it says (``ItemIndex.removed``).
        cache_bytes: limit of the kept bitmaps.
    """

    def __init__(
        self,
        catalog: Catalog,
        trie: TokenTrie,
        removed: IntArray | None = None,
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._catalog = catalog
        self._trie = trie
        self._live: BoolArray | None = None  # [N] over ranks; None where nothing is removed
        self._everything: RankBitmap | None = None  # what a request without a filter may get
        if removed is not None and len(removed):
            self._live = np.ones(len(trie), np.bool_)
            self._live[trie.rank_of_item[removed]] = False
            self._everything = RankBitmap.from_mask(self._live)
        self._columns = FilterColumns(catalog, trie)
        self._cache: OrderedDict[str, RankBitmap] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._lock = Lock()

    def allowed(
        self,
        where: Where | None = None,
        include: Sequence[ItemId] | None = None,
        exclude_rows: IntArray | None = None,
    ) -> Allowed:
        """The ranks a request may get.

        Args:
            where: a filter; None allows all.
            include: item ids; only these are allowed (unknown ids match nothing). None allows all.
            exclude_rows: catalog rows to leave out, seen items among them.

        Raises:
            FilterError: ``where`` is no filter over this catalog's fields.
        """
        excluded = (
            None if exclude_rows is None else np.asarray(self._trie.rank_of_item[exclude_rows], np.int64)
        )
        bitmap = self._everything if where is None else self._bitmap(where)
        if include is not None:
            rows = self._catalog.rows_of([str(one) for one in include])
            ranks = self._trie.rank_of_item[rows[rows >= 0]]
            if bitmap is not None:
                ranks = ranks[bitmap.contains(ranks)]
            mask = np.zeros(len(self._trie), bool)
            mask[ranks] = True
            bitmap = RankBitmap.from_mask(mask)
        return Allowed.from_bitmap(bitmap, excluded)

    def allowed_rows(
        self, where: Where | None = None, include: Sequence[ItemId] | None = None
    ) -> BoolArray | None:
        """bool[N] over catalog rows, for who searches by words; None where all are allowed. See :meth:`allowed`."""
        bitmap = self.allowed(where, include).bitmap
        if bitmap is None:
            return None
        return bitmap.contains(np.asarray(self._trie.rank_of_item, np.int64))

    @property
    def cached_bytes(self) -> int:
        """Memory the kept bitmaps take."""
        return sum(bitmap.nbytes for bitmap in self._cache.values())

    def _bitmap(self, where: Where) -> RankBitmap:
        parsed = parse_filter(where)
        key = canonical(parsed)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        mask = self._columns.mask(parsed)
        bitmap = RankBitmap.from_mask(mask if self._live is None else mask & self._live)
        with self._lock:
            self._cache[key] = bitmap
            while self.cached_bytes > self._cache_bytes and len(self._cache) > 1:
                self._cache.popitem(last=False)
        return bitmap

"""From ``{"genre": 2}`` to caps: the labels a catalog's fields give every item.

A text, number or boolean field gives an item one label, a list field one per entry, a missing value none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock

import numpy as np

from genrec.caps import Caps
from index.catalog import Catalog
from index.errors import RequestError
from index.labels import label_table
from index.trie import TokenTrie
from index.types import Int32Array

_KEPT = 8  # caps kept, each four bytes an item and label: a service asks for the same ones again and again


class CapRules:
    """Builds :class:`~genrec.caps.Caps` for requests over one index. Safe to share between threads."""

    def __init__(self, catalog: Catalog, trie: TokenTrie) -> None:
        self._catalog = catalog
        self._trie = trie
        self._labels: dict[str, Int32Array] = {}  # by field: [N, F] label ids by rank
        self._made: OrderedDict[tuple[tuple[str, int], ...], Caps] = OrderedDict()
        self._lock = Lock()

    def caps(self, max_per: Mapping[str, int]) -> Caps | None:
        """Caps of a request; None where it has none.

        Args:
            max_per: field to the most items of one of its values.

        Raises:
            RequestError: a field the catalog does not have, or a limit that is no integer above 0.
        """
        for name, limit in max_per.items():
            if not isinstance(limit, int) or limit < 1:
                raise RequestError(f"expected max_per as a field and an integer >= 1, got {name}={limit!r}")
        if not max_per:
            return None
        key = tuple(sorted(max_per.items()))
        with self._lock:
            made = self._made.get(key)
            if made is not None:
                self._made.move_to_end(key)
                return made
        made = self._make(max_per)
        with self._lock:
            self._made[key] = made
            if len(self._made) > _KEPT:
                self._made.popitem(last=False)
        return made

    def _make(self, max_per: Mapping[str, int]) -> Caps:
        tables, most, labels = [], [], 0
        for name, limit in max_per.items():
            table = self._labels_of(name)
            count = int(table.max(initial=-1)) + 1
            tables.append(np.where(table >= 0, table + labels, -1))
            most.append(np.full(count, limit))
            labels += count
        return Caps(np.concatenate(tables, axis=1), np.concatenate(most))

    def _labels_of(self, name: str) -> Int32Array:
        with self._lock:
            if name not in self._labels:
                if name not in self._catalog.frame.columns:
                    fields = ", ".join(self._catalog.frame.columns)
                    raise RequestError(f"expected a field of the catalog ({fields}) in max_per, got {name!r}")
                by_row = label_table(self._catalog.frame[name])
                self._labels[name] = by_row[np.asarray(self._trie.item_at_rank, np.int64)]
            return self._labels[name]

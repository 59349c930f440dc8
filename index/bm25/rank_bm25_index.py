"""The reference engine: rank-bm25, a second implementation that the others are checked against.

It scores every item for every query in Python, so it is for tests and tables, not for service. It knows
catalog rows and text, no catalog.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from index.bm25.analyzer import analyze
from index.bm25.base import Bm25Settings, Hits, TermScore, check_row, search_by_scores
from index.bm25.documents import Texts, item_terms
from index.bm25.lucene_scores import stored_lengths
from index.errors import require
from index.types import BoolArray, Float32Array, Float64Array, Int64Array, IntArray

Idf: TypeAlias = Literal["lucene", "okapi"]


class RankBm25Index:
    """N item texts as rank-bm25 scores them; see ``Bm25`` for the rules of ``search``. Made by ``build``."""

    def __init__(self, engine: Any, worded: Int64Array, items: int, settings: Bm25Settings) -> None:
        self._engine = engine  # a BM25Okapi over the items that have a term; None where none has
        self._worded = worded  # [<= N] their rows, ascending
        self._items = items
        self._settings = settings

    @classmethod
    def build(
        cls,
        texts: Texts,
        k1: float = 1.2,
        b: float = 0.75,
        weights: Mapping[str, int] | None = None,
        idf: Idf = "lucene",
    ) -> RankBm25Index:
        """Index one text, or one text per field, for each catalog row; see ``Bm25sIndex.build``.

        Args:
            texts: N texts, any of them empty; or N texts for each field of ``weights``.
            k1: see ``Bm25Settings``, as for the next two.
            b: see there.
            weights: see there.
            idf: ``lucene`` gives the scores of the other engines, to about a millionth. ``okapi`` is the
                package as it comes: ``log((D − df + ½) / (df + ½))``, below zero for a term that more than
                half of the items have; the package puts a quarter of the mean idf in its place, and a term
                of exactly half keeps zero. Its scores are ``k1 + 1`` times as large besides, and lengths are
                not rounded. An item that scores zero or less is not found.

        Raises:
            MissingDependencyError: rank-bm25 is not installed.
            RequestError: a setting is out of range, or fields and weights do not fit.
        """
        settings = Bm25Settings(k1=k1, b=b, weights=weights)
        package = require("rank_bm25", extra="dev", purpose="the reference BM25 engine")
        documents = item_terms(texts, settings.weights)
        worded = np.flatnonzero([len(terms) > 0 for terms in documents])
        engine = None
        if len(worded):  # the package divides by the number of documents and of terms
            engine = package.BM25Okapi([documents[row] for row in worded], k1=k1, b=b)
            if idf == "lucene":
                engine.idf = _lucene_idf(engine, k1)
                engine.doc_len = stored_lengths(np.array(engine.doc_len))
        return cls(engine, worded, len(documents), settings)

    def __len__(self) -> int:
        return self._items

    @property
    def settings(self) -> Bm25Settings:
        """What the index was built with."""
        return self._settings

    def search(
        self,
        queries: Sequence[str],
        k: int,
        exclude: Sequence[IntArray] | None = None,
        allowed: Sequence[BoolArray | None] | None = None,
    ) -> list[Hits]:
        """The best ``k`` items of each query; see ``Bm25.search``."""
        return search_by_scores(self._scores, analyze(queries), k, exclude, allowed, len(self))

    def explain(self, query: str, row: int) -> list[TermScore]:
        """The query's terms that the item has; see ``Bm25.explain``."""
        check_row(row, len(self))
        place = int(np.searchsorted(self._worded, row))
        if self._engine is None or place == len(self._worded) or self._worded[place] != row:
            return []
        found = [
            TermScore(term, times * float(self._parts(term)[place]))
            for term, times in Counter(analyze([query])[0]).items()
            if term in self._engine.doc_freqs[place]
        ]
        return sorted(found, key=lambda part: (-part.score, part.term))

    def _scores(self, terms: list[str]) -> Float32Array:
        """float32[N]: the score of every item, zero where it shares no term."""
        scores = np.zeros(len(self), dtype=np.float32)
        if self._engine is not None:
            sums = np.zeros(len(self._worded), dtype=np.float64)
            for term, times in Counter(terms).items():
                # Rounded as the engines that store single precision do, so that equal items tie here too.
                sums += times * self._parts(term).astype(np.float32).astype(np.float64)
            scores[self._worded] = sums
        return scores

    def _parts(self, term: str) -> Float64Array:
        """float64[items with a term]: what one term gives each."""
        with np.errstate(invalid="ignore"):  # k1 = 0 makes the package divide 0 by 0 where the term is absent
            parts: Float64Array = self._engine.get_scores([term])
        return np.nan_to_num(parts, nan=0.0)


def _lucene_idf(engine: Any, k1: float) -> dict[str, float]:
    """Lucene's idf of every term, without the factor ``k1 + 1`` that the package multiplies scores by."""
    holders = Counter(term for document in engine.doc_freqs for term in document)
    total = engine.corpus_size
    return {
        term: math.log(1 + (total - held + 0.5) / (held + 0.5)) / (k1 + 1) for term, held in holders.items()
    }

"""The default BM25 engine: bm25s, scores as Lucene computes them.

bm25s scores every posting when the index is built; a search adds up the lists of the query's terms. What
this file adds is what the contract asks and bm25s leaves open: Lucene's scores to the last bit, ordered ties,
no hits without a common term, any ``k``, empty queries, filters. It knows catalog rows and text, no catalog.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from index.bm25.analyzer import ANALYZER, analyze
from index.bm25.base import Bm25Settings, Hits, TermScore, check_row, search_by_scores
from index.bm25.documents import Texts, item_terms
from index.bm25.lucene_scores import inverse_document_frequencies
from index.bm25.posting_counts import PostingCounts, narrow
from index.errors import IndexFormatError, RequestError
from index.types import BoolArray, Float32Array, Int32Array, Int64Array, IntArray

_ANALYZER_FILE = "analyzer.json"
_NO_ROWS = np.zeros(0, dtype=np.int32)
_NO_SCORES = np.zeros(0, dtype=np.float32)


class Bm25sIndex:
    """N item texts as one bm25s index; see ``Bm25`` for the rules of ``search``. Made by ``build`` or ``load``."""

    def __init__(
        self,
        engine: bm25s.BM25,
        weights: Mapping[str, int] | None = None,
        counts: PostingCounts | None = None,
    ) -> None:
        self._engine = engine
        self._counts = counts
        self._settings = Bm25Settings(k1=engine.k1, b=engine.b, weights=weights)

    @classmethod
    def build(
        cls, texts: Texts, k1: float = 1.2, b: float = 0.75, weights: Mapping[str, int] | None = None
    ) -> Bm25sIndex:
        """Index one text, or one text per field, for each catalog row.

        A document's score is Σ over query terms of ``idf · tf / (tf + k1 · (1 − b + b · length / mean
        length))`` with ``idf = log(1 + (D − df + ½) / (df + ½))``: Lucene's BM25Similarity. As in Lucene, D
        and the mean length count only the texts that have a term, so untitled items change no score.

        Args:
            texts: N texts, any of them empty; or N texts for each field of ``weights``.
            k1: see ``Bm25Settings``, as for the next two.
            b: see there.
            weights: see there.

        Raises:
            RequestError: a setting is out of range, or fields and weights do not fit.
        """
        settings = Bm25Settings(k1=k1, b=b, weights=weights)
        documents = item_terms(texts, settings.weights)
        rows = np.flatnonzero([len(terms) > 0 for terms in documents])
        # Ids in sorted term order: bm25s numbers terms by iterating a set, which differs from run to run.
        term_ids = {term: i for i, term in enumerate(sorted({t for terms in documents for t in terms}))}
        engine = bm25s.BM25(method="lucene", k1=k1, b=b)
        if term_ids:  # without a single term bm25s divides by a mean length of zero
            worded = [[term_ids[term] for term in documents[row]] for row in rows]
            engine.index((worded, term_ids), create_empty_token=False, show_progress=False)
            postings = rows[engine.scores["indices"]].astype(np.int32)
            counts = _counts(worded, rows, len(documents), engine.scores["indptr"])
            engine.scores["data"] = counts.scores(postings, engine.scores["indptr"], k1, b)
        else:
            counts = PostingCounts(np.zeros(0, np.uint8), np.zeros(len(documents), np.uint8), _NO_SCORES, 1.0)
            postings = np.zeros(0, dtype=np.int32)
            engine.scores = {"data": np.zeros(0, dtype=np.float32), "indptr": np.zeros(1, dtype=np.int64)}
            engine.vocab_dict, engine.nonoccurrence_array = {}, None
        # From here on bm25s speaks catalog rows: it scores N documents, some of them in no posting list.
        engine.scores |= {"indices": postings, "num_docs": len(documents)}
        return cls(engine, settings.weights, counts)

    def __len__(self) -> int:
        return int(self._engine.scores["num_docs"])

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
        found = []
        for term, times in Counter(analyze([query])[0]).items():
            rows, scores = self._postings(term)
            found += [TermScore(term, times * float(score)) for score in scores[rows == row]]
        return sorted(found, key=lambda part: (-part.score, part.term))

    def _scores(self, terms: list[str]) -> Float32Array:
        """float32[N]: the score of every item, zero where it shares no term."""
        # Summed in double and rounded once, as Lucene does: in single precision the sum would depend on the
        # order of the words, and items that tie would not.
        sums = np.zeros(len(self), dtype=np.float64)
        for term, times in Counter(terms).items():
            rows, scores = self._postings(term)
            sums[rows] += times * scores.astype(np.float64)
        return sums.astype(np.float32)

    def _postings(self, term: str) -> tuple[Int32Array, Float32Array]:
        """The rows that have a term, and what it gives each of them."""
        number = self._engine.vocab_dict.get(term)
        if number is None:
            return _NO_ROWS, _NO_SCORES
        scores = self._engine.scores
        here = slice(scores["indptr"][number], scores["indptr"][number + 1])
        return scores["indices"][here], scores["data"][here]

    def without(self, rows: IntArray) -> Bm25sIndex:
        """The same index, in which ``rows`` are never found; every other item keeps its scores."""
        gone = np.zeros(len(self), dtype=np.bool_)
        gone[rows] = True
        scores = self._engine.scores
        keep = ~gone[scores["indices"]]
        kept_before = np.concatenate([[0], np.cumsum(keep)])  # postings that stay among the first i
        engine = copy.copy(self._engine)
        engine.scores = scores | {
            "data": scores["data"][keep],
            "indices": scores["indices"][keep],
            "indptr": kept_before[scores["indptr"]],
        }
        counts = None if self._counts is None else self._counts.of_postings(keep)
        return Bm25sIndex(engine, self._settings.weights, counts)

    @property
    def can_rescore(self) -> bool:
        """Whether the index holds what :meth:`rescored` needs; one saved by an earlier version does not."""
        return self._counts is not None

    def rescored(self, k1: float, b: float) -> Bm25sIndex:
        """The same index with other settings, in milliseconds: to the last bit what building anew would make.

        Statistics stay those of the build, as under :meth:`without`.

        Raises:
            RequestError: a setting is out of range.
            IndexFormatError: the index was saved by an earlier version; see :attr:`can_rescore`.
        """
        settings = Bm25Settings(k1=k1, b=b, weights=self._settings.weights)
        if self._counts is None:
            raise IndexFormatError(
                "expected a BM25 index with its counts, got one of an earlier version; build the index again"
            )
        engine, scores = copy.copy(self._engine), self._engine.scores
        data = self._counts.scores(scores["indices"], scores["indptr"], k1, b)
        engine.k1, engine.b, engine.scores = k1, b, scores | {"data": data}
        return Bm25sIndex(engine, settings.weights, self._counts)

    def save(self, directory: Path | str) -> None:
        """Write arrays as ``.npy`` and the rest as JSON. Not atomic: whoever saves an index swaps it in whole."""
        directory = Path(directory)
        self._engine.save(directory, show_progress=False)
        about: dict[str, Any] = {"analyzer": ANALYZER, "weights": self._settings.weights}
        if self._counts is not None:
            about["mean_length"] = self._counts.mean_length
            self._counts.save(directory)
        (directory / _ANALYZER_FILE).write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path | str) -> Bm25sIndex:
        """Map the arrays into memory and read the terms.

        Raises:
            IndexFormatError: a file is missing or broken, the arrays do not fit each other, or the index was
                built with another analyser than this version's.
        """
        directory = Path(directory)
        try:
            about = json.loads((directory / _ANALYZER_FILE).read_text(encoding="utf-8"))
            analyzer, weights = about["analyzer"], about.get("weights")
            engine = bm25s.BM25.load(directory, mmap=True, show_progress=False, backend="numpy")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IndexFormatError(
                f"expected a BM25 index in {directory}, got {type(error).__name__}: {error}; build the index again"
            ) from error
        if analyzer != ANALYZER:
            raise IndexFormatError(
                f"expected a BM25 index of analyser {ANALYZER!r} in {directory}, got {analyzer!r}; "
                "build the index again with this version"
            )
        # Plain views of the mapped files: slicing a np.memmap costs microseconds each time.
        engine.scores |= {name: np.asarray(engine.scores[name]) for name in ("data", "indices", "indptr")}
        if not _fits(engine.scores, terms=len(engine.vocab_dict)):
            raise IndexFormatError(
                f"expected BM25 arrays that fit each other in {directory}, got files of different indexes; "
                "build the index again"
            )
        try:
            return cls(engine, weights, _load_counts(directory, about, engine))
        except (AttributeError, RequestError) as error:
            raise IndexFormatError(
                f"expected the settings of a BM25 index in {directory}, got {error}; build the index again"
            ) from error


def _load_counts(directory: Path, about: Mapping[str, Any], engine: bm25s.BM25) -> PostingCounts | None:
    """The counts beside an index; None where an earlier version wrote it.

    Raises:
        IndexFormatError: they are broken, or those of another index.
    """
    if "mean_length" not in about:
        return None
    scores = engine.scores
    return PostingCounts.load(
        directory,
        about["mean_length"],
        postings=len(scores["indices"]),
        items=scores["num_docs"],
        terms=len(engine.vocab_dict),
    )


def _counts(worded: list[list[int]], rows: Int64Array, items: int, indptr: Int64Array) -> PostingCounts:
    """Of documents that have a term: the counts of their postings, in the order of bm25s, and of all items."""
    lengths = np.fromiter(map(len, worded), dtype=np.int64, count=len(worded))
    terms = np.fromiter(chain.from_iterable(worded), dtype=np.int64, count=int(lengths.sum()))
    documents = np.repeat(np.arange(len(worded)), lengths)
    # Sorted by (term, document), as the postings of bm25s are.
    _, frequency = np.unique(terms * len(worded) + documents, return_counts=True)
    of_items = np.zeros(items, np.int64)
    of_items[rows] = lengths
    return PostingCounts(
        frequency=narrow(frequency),
        length=narrow(of_items),
        idf=inverse_document_frequencies(np.diff(indptr), len(worded)),
        mean_length=float(lengths.mean()),
    )


def _fits(scores: dict[str, Any], terms: int) -> bool:
    data, indices, indptr = scores["data"], scores["indices"], scores["indptr"]
    return (
        isinstance(scores["num_docs"], int)
        and len(indptr) == terms + 1
        and len(data) == len(indices) == indptr[-1]
    )

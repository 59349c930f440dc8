"""The default BM25 engine: bm25s, scores as Lucene computes them.

bm25s scores every posting when the index is built; a search adds up the lists of the query's terms. What
this file adds is what the contract asks and bm25s leaves open: ordered ties, no hits without a common term,
any ``k``, empty queries, exclusions. It knows catalog rows and text, no catalog.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from index.bm25.analyzer import ANALYZER, analyze
from index.bm25.base import Hits, check_search
from index.errors import IndexFormatError, RequestError
from index.types import Float32Array, IntArray

_ANALYZER_FILE = "analyzer.json"


class Bm25sIndex:
    """N item texts as one bm25s index; see ``Bm25`` for the rules of ``search``. Made by ``build`` or ``load``."""

    def __init__(self, engine: bm25s.BM25) -> None:
        self._engine = engine

    @classmethod
    def build(cls, texts: Sequence[str], k1: float = 1.2, b: float = 0.75) -> Bm25sIndex:
        """Index one text per catalog row.

        A document's score is Σ over query terms of ``idf · tf / (tf + k1 · (1 − b + b · length / mean
        length))`` with ``idf = log(1 + (D − df + ½) / (df + ½))``: Lucene's BM25Similarity. As in Lucene, D
        and the mean length count only the texts that have a term, so untitled items change no score.

        Args:
            texts: N texts, any of them empty.
            k1: how slowly repeats of a term saturate, >= 0; the default is Lucene's.
            b: how much long texts are held back, in [0, 1]; the default is Lucene's.

        Raises:
            RequestError: ``k1`` or ``b`` is out of range.
        """
        if not k1 >= 0 or not 0 <= b <= 1:
            raise RequestError(f"expected k1 >= 0 and b in [0, 1], got k1={k1}, b={b}")
        documents = analyze(texts)
        rows = np.flatnonzero([len(terms) > 0 for terms in documents])
        # Ids in sorted term order: bm25s numbers terms by iterating a set, which differs from run to run.
        term_ids = {term: i for i, term in enumerate(sorted({t for terms in documents for t in terms}))}
        engine = bm25s.BM25(method="lucene", k1=k1, b=b)
        if term_ids:  # without a single term bm25s divides by a mean length of zero
            worded = [[term_ids[term] for term in documents[row]] for row in rows]
            engine.index((worded, term_ids), create_empty_token=False, show_progress=False)
            postings = rows[engine.scores["indices"]].astype(np.int32)
        else:
            postings = np.zeros(0, dtype=np.int32)
            engine.scores = {"data": np.zeros(0, dtype=np.float32), "indptr": np.zeros(1, dtype=np.int64)}
            engine.vocab_dict, engine.nonoccurrence_array = {}, None
        # From here on bm25s speaks catalog rows: it scores N documents, some of them in no posting list.
        engine.scores |= {"indices": postings, "num_docs": len(texts)}
        return cls(engine)

    def __len__(self) -> int:
        return int(self._engine.scores["num_docs"])

    def search(self, queries: Sequence[str], k: int, exclude: Sequence[IntArray] | None = None) -> list[Hits]:
        """The best ``k`` items of each query; see ``Bm25.search``."""
        check_search(k, exclude, len(queries), len(self))
        hits = []
        for query, terms in enumerate(analyze(queries)):
            scores = self._scores(terms)
            if exclude is not None:
                scores[exclude[query]] = 0.0
            hits.append(_best(scores, k))
        return hits

    def _scores(self, terms: list[str]) -> Float32Array:
        """float32[N]: the score of every item, zero where it shares no term."""
        known = self._engine.get_tokens_ids(terms)
        if not known:
            return np.zeros(len(self), dtype=np.float32)
        scores: Float32Array = self._engine.get_scores_from_ids(known)
        return scores

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
        return Bm25sIndex(engine)

    def save(self, directory: Path | str) -> None:
        """Write arrays as ``.npy`` and the rest as JSON. Not atomic: whoever saves an index swaps it in whole."""
        directory = Path(directory)
        self._engine.save(directory, show_progress=False)
        (directory / _ANALYZER_FILE).write_text(json.dumps({"analyzer": ANALYZER}), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path | str) -> Bm25sIndex:
        """Map the arrays into memory and read the terms.

        Raises:
            IndexFormatError: a file is missing or broken, the arrays do not fit each other, or the index was
                built with another analyser than this version's.
        """
        directory = Path(directory)
        try:
            analyzer = json.loads((directory / _ANALYZER_FILE).read_text(encoding="utf-8"))["analyzer"]
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
        return cls(engine)


def _best(scores: Float32Array, k: int) -> Hits:
    """The k best of the positive scores by (−score, row)."""
    rows = np.flatnonzero(scores > 0).astype(np.int32)
    found = scores[rows]
    if len(found) > k:
        # Everything as good as the k-th best stays until ties are in row order.
        worst = np.partition(found, len(found) - k)[len(found) - k]
        rows, found = rows[found >= worst], found[found >= worst]
    order = np.argsort(-found, kind="stable")[:k]
    return Hits(rows=rows[order], scores=found[order])


def _fits(scores: dict[str, Any], terms: int) -> bool:
    data, indices, indptr = scores["data"], scores["indices"], scores["indptr"]
    return (
        isinstance(scores["num_docs"], int)
        and len(indptr) == terms + 1
        and len(data) == len(indices) == indptr[-1]
    )

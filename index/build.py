"""Catalog and histories in, index out: the offline story, each step in its own module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np

from index.bm25.base import Bm25Settings
from index.bm25.bm25s_index import Bm25sIndex
from index.bm25.documents import catalog_texts
from index.catalog import Catalog
from index.errors import CatalogError
from index.histories import Histories, hold_out_last, temporal_split
from index.item_index import ItemIndex
from index.item_vectors import VectorRecipe, fit_item_vectors
from index.leakage import event_hashes
from index.semantic_ids import EXTRA_SIZE, Collisions, fit_codebooks, level_tokens, unique_codes
from index.text_encoders import Progress as TextProgress
from index.text_encoders import TextEncoder, resolve_encoder
from index.trie import build_trie
from index.types import Float32Array

Holdout: TypeAlias = Literal["last-two", "temporal", "none"]
"""What is never looked at. ``last-two``: the last two events of every user (validation, test). ``temporal``: the
last fifth of all events in global time (a tenth for each part). ``none``: nothing, for production."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``."""

Encode: TypeAlias = Callable[[TextEncoder, Sequence[str], TextProgress], Float32Array]
"""Where an encoder runs: its vectors of all texts, float32[N, D], wherever they are computed."""


@dataclass(frozen=True)
class IndexSettings:
    """How an index is built. The defaults are the measured ones (EVALUATION in the benchmarks' log)."""

    text_encoder: str = "auto"  # "auto", "minilm", "tfidf", or a sentence-transformers name or directory
    cooccurrence_window: int = VectorRecipe.window
    cooccurrence_dimension: int = VectorRecipe.dimension
    cooccurrence_weight: float = VectorRecipe.weight
    levels: int = 3  # codes per item before the one that makes it unique
    codebook_size: int = 256
    collisions: Collisions = "extra"
    holdout: Holdout = "last-two"
    seed: int = 0
    bm25_k1: float = 1.2  # for this and the next two see Bm25Settings
    bm25_b: float = 0.75
    bm25_weights: dict[str, int] | None = (
        None  # such as {"title": 3, "description": 1}; None: one text an item
    )


def training_part(histories: Histories, holdout: Holdout) -> Histories:
    """The events that may be learned from."""
    if holdout == "last-two":
        return hold_out_last(histories, 2)
    return temporal_split(histories).train if holdout == "temporal" else histories


def build_index(
    catalog: Catalog,
    histories: Histories | None = None,
    settings: IndexSettings | None = None,
    progress: Progress | None = None,
    encode: Encode | None = None,
) -> ItemIndex:
    """Compile a catalog: text vectors, co-occurrence vectors, semantic IDs, trie, BM25.

    Args:
        catalog: at least one item.
        histories: whole histories; ``settings.holdout`` decides what is looked at. None builds from text only.
        settings: how; the measured defaults where not given.
        progress: told the stage and how far it is.
        encode: where the encoder runs; here, where not given (:class:`index.ray_encoding.RayEncoding`: a cluster).

    Raises:
        CatalogError: the catalog has no item, or no field of a name in ``bm25_weights``.
        RequestError: a setting of BM25 is out of range.
        MissingDependencyError: the text encoder asked for is not installed.
        IdentifierError: more items share a code path than can be told apart.
    """
    settings = settings or IndexSettings()
    tell = progress or (lambda stage, done, total: None)
    if not len(catalog):
        raise CatalogError("expected at least one item, got an empty catalog; nothing can be indexed")
    training = training_part(histories, settings.holdout) if histories is not None else _no_histories()

    bm25 = Bm25Settings(k1=settings.bm25_k1, b=settings.bm25_b, weights=settings.bm25_weights)
    words = catalog_texts(catalog, bm25.weights)
    texts = catalog.texts()
    encoder = resolve_encoder(settings.text_encoder, texts, seed=settings.seed)
    text = (encode or _encode_here)(encoder, texts, lambda done, total: tell("text vectors", done, total))
    recipe = VectorRecipe(
        window=settings.cooccurrence_window,
        dimension=settings.cooccurrence_dimension,
        weight=settings.cooccurrence_weight,
        seed=settings.seed,
    )
    tell("co-occurrence", 0, 1)
    fused = fit_item_vectors(text, training.offsets, training.items, recipe)
    tell("semantic IDs", 0, 1)
    vectors = fused.vectors()
    codebooks = fit_codebooks(
        vectors, levels=settings.levels, size=settings.codebook_size, seed=settings.seed
    )
    codes = unique_codes(codebooks, vectors, collisions=settings.collisions)
    sizes = level_sizes(codebooks.sizes, codes.shape[1])
    tell("trie and BM25", 0, 1)
    index = ItemIndex(
        catalog=catalog,
        trie=build_trie(level_tokens(codes, sizes)),
        level_sizes=sizes,
        codebooks=codebooks,
        vectors=fused,
        encoder=encoder,
        bm25=Bm25sIndex.build(words, k1=bm25.k1, b=bm25.b, weights=bm25.weights),
        trained_events=event_hashes(training, catalog.item_ids),
        settings={**asdict(settings), "text_encoder": encoder.name},
    )
    tell("trie and BM25", 1, 1)
    return index


def level_sizes(codebook_sizes: tuple[int, ...], levels: int) -> tuple[int, ...]:
    """Codes per level: the codebooks', and the bound of the extra code where there is one."""
    return codebook_sizes if levels == len(codebook_sizes) else (*codebook_sizes, EXTRA_SIZE)


def _encode_here(encoder: TextEncoder, texts: Sequence[str], progress: TextProgress) -> Float32Array:
    return encoder.encode(texts, progress=progress)


def _no_histories() -> Histories:
    return Histories((), np.zeros(1, np.int64), np.zeros(0, np.int32), None)

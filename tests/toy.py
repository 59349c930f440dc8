"""A catalog small enough to read, and users whose next item follows from their last."""

from __future__ import annotations

import numpy as np
import polars as pl

from index.build import IndexSettings, build_index
from index.catalog import Catalog
from index.histories import Histories
from index.item_index import ItemIndex

GENRES = ("comedy", "drama", "horror", "western")
WORDS = ("river", "night", "garden", "letter", "stranger", "harbour", "winter", "mirror", "train", "island")
ITEMS = len(GENRES) * len(WORDS)


def toy_catalog() -> Catalog:
    """40 items: item i is word i // 4 in genre i % 4, released in 1980 + i."""
    rows = range(ITEMS)
    return Catalog(
        pl.DataFrame(
            {
                "item_id": [f"i{row}" for row in rows],
                "title": [f"The {WORDS[row // 4]} {GENRES[row % 4]}" for row in rows],
                "genre": [GENRES[row % 4] for row in rows],
                "year": [1980 + row for row in rows],
            }
        )
    )


def toy_histories(users: int = 120, seed: int = 0) -> Histories:
    """Each user walks from item i to i + 4 (the next word of the genre), five to eight steps."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 9, users)
    starts = rng.integers(0, ITEMS, users)
    items = np.concatenate(
        [(start + 4 * np.arange(n)) % ITEMS for start, n in zip(starts, lengths, strict=True)]
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Histories([f"u{user}" for user in range(users)], offsets, items.astype(np.int32), None)


def toy_index(**settings: object) -> ItemIndex:
    """The toy catalog compiled with the light encoder."""
    chosen = IndexSettings(text_encoder="tfidf", codebook_size=8, levels=2, **settings)  # type: ignore[arg-type]
    return build_index(toy_catalog(), toy_histories(), chosen)

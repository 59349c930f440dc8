"""From titles to token paths to a trie: the twin of the semantic IDs for models that write text.

A path is a title's tokens and the terminator, so that "Alien" and "Aliens" part, and items with equal titles
share one. An item without a title has the path of the empty title, the terminator alone: it keeps its rank,
as every array over ranks needs, and :func:`untitled_rows` says which rows no search may return. It knows no
tokenizer: that is the model's, and comes as a function.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.errors import IdentifierError
from index.trie import TokenTrie, build_trie
from index.types import Int32Array, Tokenize


def build_title_trie(titles: Sequence[str], tokenize: Tokenize) -> TokenTrie:
    """The trie of a catalog's titles.

    Args:
        titles: N, in row order; empty where an item has none.
        tokenize: texts to token paths, each ending in one terminator that stands nowhere else.

    Raises:
        IdentifierError: the paths are not as many as the titles, or one is a prefix of another.
    """
    paths = tokenize(titles)
    if len(paths) != len(titles):
        raise IdentifierError(f"expected one token path per title, {len(titles)}, got {len(paths)}")
    return build_trie(paths)


def untitled_rows(titles: Sequence[str]) -> Int32Array:
    """int32[M], ascending: rows of the items without a title, which no text can name."""
    return np.flatnonzero([not title.strip() for title in titles]).astype(np.int32)

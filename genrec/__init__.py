"""genrec: a language model walks a trie of your catalog, so every recommendation is a real item.

Three nouns: a **Catalog** (your items), an **Index** (the catalog compiled into token paths, a trie and
BM25), and a **Recommender** (a decoder walking that index)::

    import genrec

    catalog = genrec.read_catalog("movies.csv").catalog
    histories = genrec.read_interactions("ratings.csv", catalog).histories
    index = genrec.build_index(catalog, histories)
    ...
    genrec.Recommender.load("runs/movies").recommend(["1", "32", "50"], k=10)

Importing it does not import torch.
"""

from __future__ import annotations

from importlib.util import find_spec as _find_spec
from pathlib import Path as _Path

__version__ = "0.1.0.dev0"


def _check_siblings() -> None:
    """``index`` and ``serving`` are plain names: make sure they are ours and not somebody else's."""
    home = _Path(__file__).resolve().parent.parent
    for name in ("index", "serving"):
        spec = _find_spec(name)
        found = _Path(spec.origin).resolve().parent if spec is not None and spec.origin else None
        if found != home / name:
            raise ImportError(
                f"expected the package '{name}' that comes with genrec in {home / name}, got {found}; "
                f"another module of that name shadows it: rename it, or start Python elsewhere"
            )


_check_siblings()

from genrec.recommender import Recommendation, RecommendedItem, Recommender  # noqa: E402
from genrec.search import Diversity  # noqa: E402
from genrec.wishes import Wishes  # noqa: E402
from index.build import IndexSettings, build_index  # noqa: E402
from index.catalog import Catalog, Item  # noqa: E402
from index.catalog_readers import read_catalog  # noqa: E402
from index.errors import GenrecError  # noqa: E402
from index.histories import Cases, Histories  # noqa: E402
from index.history_readers import read_interactions  # noqa: E402
from index.item_index import ItemIndex, load_index  # noqa: E402
from index.maintenance import add_items, compact, remove_items  # noqa: E402

__all__ = [
    "Cases",
    "Catalog",
    "Diversity",
    "GenrecError",
    "Histories",
    "IndexSettings",
    "Item",
    "ItemIndex",
    "Recommendation",
    "RecommendedItem",
    "Recommender",
    "Wishes",
    "add_items",
    "build_index",
    "compact",
    "load_index",
    "read_catalog",
    "read_interactions",
    "remove_items",
]

"""What LLMTreeRec must show on a planted catalog of three thousand items (:mod:`genrec.recipes.llmtreerec`)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import polars as pl

from genrec.recipes.catalog_talk import CatalogTalk
from genrec.recipes.check import Check
from genrec.recipes.llmtreerec import CategoryTree, llm_tree_rec
from genrec.recipes.planted import planted_recommender
from index.build import IndexSettings, build_index
from index.catalog import Catalog
from index.item_index import ItemIndex

_HEADS = ("red", "blue", "green", "old", "new", "wild", "calm", "cold", "warm", "dark")
_PLACES = ("river", "night", "garden", "letter", "island", "winter", "mirror", "train", "harbour", "tower")
_KINDS = ("alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "theta", "lambda", "zeta")


@lru_cache(maxsize=1)
def planted_catalog() -> ItemIndex:
    """3,000 items: ten kinds of ten places with thirty items each, their titles saying both."""
    rows = [(kind, place, number) for kind in _KINDS for place in _PLACES for number in range(30)]
    titles = [f"{kind} {place} {_HEADS[n % 10]} {_HEADS[n // 10]}" for kind, place, n in rows]
    frame = pl.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(len(rows))],
            "title": titles,
            "kind": [kind for kind, _, _ in rows],
            "place": [f"{place} of {kind}" for kind, place, _ in rows],
        }
    )
    return build_index(Catalog(frame), None, IndexSettings(text_encoder="tfidf", codebook_size=16, levels=2))


def check() -> list[Check]:
    """T0: an oracle that likes one place of one kind finds it by the labels; with shuffled labels it does not."""
    index = planted_catalog()
    titles, ids = index.catalog.titles, index.catalog.item_ids
    nodes = [*_KINDS, *(f"{place} of {kind}" for kind in _KINDS for place in _PLACES)]
    wanted = ("gamma", "island")

    def says(before: str) -> dict[str, float]:
        if not before[before.rfind("\n") + 1 :].rstrip(".").isdigit():
            return {}
        leaf = before.rfind("Items of")
        options = [line.partition(". ")[2] for line in before[leaf:].split("\n")] if leaf >= 0 else nodes
        return {one: float(np.exp(4 * sum(word in one.split() for word in wanted))) for one in options if one}

    recommender, decoder = planted_recommender(index, says)
    tree = CategoryTree.of(recommender, ["kind", "place"])
    rows = np.random.default_rng(3).permutation(len(titles)).tolist()
    shuffled = CategoryTree(
        {
            one: {name: tuple(rows[row] for row in leaf) for name, leaf in below.items()}
            for one, below in tree.leaves.items()
        }
    )
    target = {one for one, title in zip(ids, titles, strict=True) if title.startswith(" ".join(wanted))}
    before = decoder.tokens_read
    found = llm_tree_rec(recommender, ids[:3], tree=tree)
    read = decoder.tokens_read - before
    other = llm_tree_rec(recommender, ids[:3], tree=shuffled)
    talk = CatalogTalk(recommender)
    before = decoder.tokens_read
    talk.open(talk.listed(talk.nameable())).score(["x"])
    flat = decoder.tokens_read - before
    hits, chance = len(target & set(found.ids)), len(target & set(other.ids))
    asked = {*found.said_at("categories"), *found.said_at("subcategories")}
    return [
        Check("nodes that do not exist", len(asked - set(nodes)), 0, "=="),
        Check("tokens read, share of a flat listing of 3,000 items", read / flat, 0.15, "<="),
        Check(
            "items of the planted taste among 20, times those of a shuffled tree", hits / max(chance, 1), 2.0
        ),
    ]

"""Does ordering the beam by the share of allowed items help under a filter, and does it ever hurt?

A generator that knows every item's probability (so that only the search can lose anything) walks a trie of
Zipf-coded items. Per filter and beam width: recall@10 against the exact filtered top ten, with and without
look-ahead, and the prefixes an exact search expands.

    flat        item probabilities are Zipf and independent of the codes: the hardest case for a beam
    clustered   every node of the trie multiplies what is below it by a log-normal factor, as a model does
                whose codes mean something

A filter keeps single items (``items``) or whole third-level prefixes (``prefixes``, as a category does whose
items share codes). Run: ``python -m benchmarks.look_ahead [--quick] [--json]``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec.decoders.base import Items, Prefilled, Prompt
from genrec.search import SearchRequest, search
from index.item_filter import Allowed
from index.trie import TokenTrie, build_trie
from index.types import BoolArray, Float32Array, Float64Array, IntArray
from index.walk import Places, TrieWalk

CODES, LEVELS, TOP = 256, 4, 10
BEAMS = (10, 50, 200)
KEPT = (1.0, 0.1, 0.01, 0.001)


@dataclass
class KnownState:
    query: int
    node: list[int]
    end: list[int]

    @property
    def slots(self) -> int:
        return len(self.node)

    @property
    def nbytes(self) -> int:
        return 16 * len(self.node)


class KnownDecoder:
    """Knows every item's probability: a child's logit is the log of the mass below it."""

    def __init__(self, trie: TokenTrie, probability: Float64Array) -> None:  # [queries, N] by rank
        self.walk = TrieWalk(trie)
        self.mass = np.zeros((len(probability), len(trie) + 1))
        np.cumsum(probability, axis=1, out=self.mass[:, 1:])

    def prefill(self, prompts: Sequence[Prompt]) -> Prefilled:
        queries = [int(part.rows[0]) for (part,) in prompts if isinstance(part, Items)]
        hidden = np.array([[query, 0, len(self.walk.trie)] for query in queries], np.float32)
        return Prefilled([KnownState(query, [], []) for query in queries], hidden)  # type: ignore[list-item]

    def extend(
        self, states: Sequence[KnownState], request: IntArray, token: IntArray, parent: IntArray
    ) -> Float32Array:
        rows = []
        for b, t, p in zip(request.tolist(), token.tolist(), parent.tolist(), strict=True):
            state = states[b]
            node, end = (state.node[p], state.end[p]) if p >= 0 else (0, len(self.walk.trie))
            at = self.walk.step(Places(np.array([node]), np.array([end]), np.array([0])), np.array([t]))
            state.node.append(int(at.node[0]))
            state.end.append(int(at.end[0]))
            rows.append([state.query, int(at.node[0]), int(at.end[0])])
        return np.array(rows, np.float32)

    def edge_logits(self, hidden: Float32Array, row: IntArray, token: IntArray) -> Float32Array:
        query, node, end = hidden[row].astype(np.int64).T
        child = self.walk.step(Places(node, end, np.zeros(len(node), np.int64)), token)
        mass = self.mass[query, child.end] - self.mass[query, self.walk.start(child)]
        return np.log(np.maximum(mass, 1e-300)).astype(np.float32)

    def log_normalizer(self, hidden: Float32Array, depth: IntArray) -> Float32Array:
        raise NotImplementedError("only catalog scores are simulated")


def zipf_codes(items: int, rng: np.random.Generator) -> IntArray:
    """int[items, LEVELS]: distinct codes, each level Zipf-distributed with its own order of codes per prefix."""
    weight = 1 / np.arange(1, CODES + 1)
    found = np.zeros((0, LEVELS), np.int64)
    while len(found) < items:
        drawn = rng.choice(CODES, (items, LEVELS), p=weight / weight.sum())
        found = np.unique(np.concatenate([found, drawn]), axis=0)
    return found[np.sort(rng.permutation(len(found))[:items])]


def probabilities(
    codes: IntArray, queries: int, zipf: float, kind: str, rng: np.random.Generator
) -> Float64Array:
    """float64[queries, N], rows sum to one."""
    items = len(codes)
    log_p = np.stack([-zipf * np.log(rng.permutation(items) + 1.0) for _ in range(queries)])
    if kind == "clustered":
        for level in range(1, LEVELS):
            _, prefix = np.unique(codes[:, :level], axis=0, return_inverse=True)
            log_p += rng.standard_normal((queries, prefix.max() + 1))[:, prefix.ravel()]
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def filter_mask(codes: IntArray, kept: float, by: str, rng: np.random.Generator) -> BoolArray:
    """bool[N]: which items a filter allows."""
    if by == "items":
        return rng.random(len(codes)) < kept
    _, prefix = np.unique(codes[:, :3], axis=0, return_inverse=True)
    return (rng.random(prefix.max() + 1) < kept)[prefix.ravel()]


@dataclass(frozen=True)
class Cell:
    """One line of the table; lists go by BEAMS."""

    model: str
    zipf: float
    filter: str
    kept: float
    plain: list[float]
    look_ahead: list[float]
    exact_expansions: float  # median


def measure(
    trie: TokenTrie, codes: IntArray, model: str, zipf: float, by: str, kept: float, queries: int
) -> Cell:
    rng = np.random.default_rng([int(10 * zipf), int(1e4 * kept), len(by), len(model)])
    p = probabilities(codes, queries, zipf, model, rng)
    decoder = KnownDecoder(trie, p)
    plain, ahead, expansions = np.zeros(len(BEAMS)), np.zeros(len(BEAMS)), []
    for query in range(queries):
        mask = filter_mask(codes, kept, by, rng)
        allowed = Allowed.build(mask)
        best = set(np.argsort(-np.where(mask, p[query], -1))[: min(TOP, int(mask.sum()))].tolist())
        request = SearchRequest((Items(np.array([query])),), TOP, 10, allowed, look_ahead=False)
        for number, beam in enumerate(BEAMS):
            for look_ahead, recall in ((False, plain), (True, ahead)):
                one = replace(request, beam=beam, look_ahead=look_ahead)
                (result,) = search(decoder, trie, [one])
                recall[number] += len(best & set(result.ranks.tolist())) / len(best) / queries
        (exact,) = search(decoder, trie, [replace(request, beam=1, exact=True)])
        expansions.append(exact.expansions)
    return Cell(
        model, zipf, by, kept, plain.round(3).tolist(), ahead.round(3).tolist(), float(np.median(expansions))
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="20k items, 5 queries")
    parser.add_argument("--json", action="store_true", help="no table")
    options = parser.parse_args()
    items, queries = (20_000, 5) if options.quick else (options.items, options.queries)
    codes = zipf_codes(items, np.random.default_rng(0))
    codes = codes[np.lexsort(codes.T[::-1])]  # rank order: row i is rank i
    trie = build_trie(codes)
    cells = []
    if not options.json:
        print(f"{platform.machine()}, {os.cpu_count()} cores; {items} items, {queries} queries a line")
        print("model      zipf  filter    kept   recall@10 plain 10/50/200   look-ahead 10/50/200   exact")
    for model in ("flat", "clustered"):
        for zipf in (0.8, 1.2):
            for by in ("items", "prefixes"):
                for kept in KEPT if by == "items" else KEPT[1:]:
                    cell = measure(trie, codes, model, zipf, by, kept, queries)
                    cells.append(cell)
                    if not options.json:
                        plain, ahead = (
                            "  ".join(f"{r:.2f}" for r in one) for one in (cell.plain, cell.look_ahead)
                        )
                        print(
                            f"{model:9}  {zipf:.1f}   {by:8}  {kept:5.1%}   {plain:24}   {ahead:20}   "
                            f"{cell.exact_expansions:5.0f}",
                            flush=True,
                        )
    print(
        json.dumps(
            {
                "benchmark": "look_ahead",
                "items": items,
                "queries": queries,
                "beams": BEAMS,
                "cells": [vars(cell) for cell in cells],
            }
        )
    )


if __name__ == "__main__":
    main()

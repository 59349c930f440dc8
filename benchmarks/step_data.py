"""Catalogs of token paths, and the prefixes a beam search over them stands at: what step benchmarks run on.

All of it is synthetic and seeded. ``sid_l4``: codes of four levels by 256, drawn from a Zipf law per level, so
that branching is as skewed as in real semantic IDs. ``sid_l8``: eight levels by 2,048, uniform (the shape
STATIC's own benchmark takes). ``titles``: paths of 2 to 45 tokens (mean 9) and a terminator in a vocabulary of
128,000, first words and continuations Zipf-distributed: two thirds of their tokens need no decision.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from genrec.kernels import NumpyStep, StepRules
from index.item_filter import Allowed
from index.trie import TokenTrie
from index.types import Float32Array, Float64Array, Int64Array
from index.walk import Places, TrieWalk

TITLE_VOCABULARY = 128_000


def zipf_codes(
    items: int, rng: np.random.Generator, levels: int = 4, codes: int = 256, exponent: float = 0.8
) -> Int64Array:
    """int64[N, levels], distinct, in no order."""
    weight = 1 / np.arange(1, codes + 1) ** exponent
    boundaries = np.cumsum(weight / weight.sum())
    names = [rng.permutation(codes) for _ in range(levels)]
    packed = np.zeros(0, np.int64)
    while len(packed) < items:
        drawn = np.zeros(items * 5 // 4, np.int64)
        for name in names:
            place = np.minimum(np.searchsorted(boundaries, rng.random(len(drawn))), codes - 1)
            drawn = drawn * codes + name[place]
        packed = np.unique(np.concatenate([packed, drawn]))
    packed = rng.permutation(packed)[:items]
    return np.stack([packed // codes**level % codes for level in range(levels - 1, -1, -1)], axis=1)


def uniform_codes(items: int, rng: np.random.Generator, levels: int = 8, codes: int = 2048) -> Int64Array:
    """int64[N, levels], distinct but for luck."""
    return rng.integers(0, codes, (items, levels))


def synthetic_titles(items: int, rng: np.random.Generator) -> list[list[int]]:
    """N title-like token paths, all ending in token 0."""
    lengths = np.clip(rng.gamma(3.0, 3.0, items).astype(int), 2, 45)
    # A token's rank by a Zipf law with exponent 1, by inversion of its (log) distribution.
    tokens = np.exp(rng.random(int(lengths.sum())) * np.log(TITLE_VOCABULARY - 1)).astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    flat = tokens.tolist()
    return [[*flat[low:high], 0] for low, high in pairwise(bounds.tolist())]


def real_titles(items: int, sources: Sequence[Path], rng: np.random.Generator) -> list[list[int]]:
    """N token paths, all ending in token 0, of titles spliced from two real ones, so that openings are shared.

    Those of more than 45 tokens are left out: STATIC takes no more than 127, and real ones are shorter than splices.

    Args:
        sources: JSON lines with a field ``title``. A byte-level BPE is trained on them; of the 128,000 tokens it may
            have, it learns as many as it finds.
    """
    from tokenizers import ByteLevelBPETokenizer

    lines = [str(json.loads(line).get("title", "")).split() for source in sources for line in source.open()]
    words = [line for line in lines if len(line) > 1]
    titles: dict[str, None] = {}
    while len(titles) < items * 5 // 4:
        first, second = (words[i] for i in rng.integers(0, len(words), 2))
        title = [*first[: rng.integers(1, len(first))], *second[rng.integers(1, len(second)) :]]
        titles[" ".join(title)] = None
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(map(" ".join, words), TITLE_VOCABULARY - 1, show_progress=False)
    encoded = tokenizer.encode_batch(list(titles))
    return [[*(token + 1 for token in one.ids), 0] for one in encoded if len(one.ids) < 46][:items]


@dataclass(frozen=True)
class Stand:
    """Where a search stands before one step: R branching prefixes of B requests, and the model's answer."""

    depth: int  # tokens of every prefix
    request: Int64Array  # [R]
    places: Places  # [R]
    score: Float64Array  # [R]
    prefix: Int64Array  # [R, depth]
    log_prob: Float32Array  # [R, V] log-softmax over the vocabulary


def stands(
    trie: TokenTrie,
    vocabulary: int,
    requests: int,
    beams: int,
    rng: np.random.Generator,
    allowed: Allowed | None = None,
    deepest: int = 8,
) -> list[Stand]:
    """The steps of one beam search where its beams are full; the root is left out.

    The model's logits are the log number of items below a token, and unit normal noise.

    The search is leaf-synchronous: beams that are unique take no slot, so every prefix has a decision ahead.
    """
    rules = StepRules(
        np.full(requests, beams),
        np.full(requests, beams),
        [allowed or Allowed()] * requests,
        np.zeros(requests, bool),
        catalog=True,
    )
    kernel, walk = NumpyStep(trie, rules), TrieWalk(trie)
    request, places, score = np.arange(requests), walk.root(requests), np.zeros(requests)
    result = []
    for depth in range(deepest):
        log_prob = rng.standard_normal((len(request), vocabulary), np.float32)
        # A model that has learned how many items lie where, and is otherwise noise.
        children = walk.children(places)
        below = children.places.end - walk.start(children.places)
        log_prob[children.row, children.token] += np.log(below)
        log_prob -= np.log(np.exp(log_prob).sum(axis=1, keepdims=True))
        if depth and len(request) == requests * beams:
            start = walk.start(places)
            prefix = walk.path_slices(start, np.zeros_like(start), places.depth).reshape(len(start), depth)
            result.append(Stand(depth, request, places, score, prefix.astype(np.int64), log_prob))
        step = kernel.step(request, places, score, log_prob)
        kept = slice(step.prefixes)
        request = request[step.row[kept]]
        places = Places(step.node[kept], step.end[kept], np.full(step.prefixes, depth + 1))
        score = step.score[kept]
    return result

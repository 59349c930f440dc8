"""Where a search stands before each step over a given trie: the inputs of a step without any model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.kernels import NumpyStep, StepRules
from index.item_filter import Allowed
from index.trie import TokenTrie
from index.types import Float32Array, Float64Array, Int64Array
from index.walk import Places, TrieWalk


@dataclass(frozen=True, slots=True, eq=False)
class Stand:
    """R branching prefixes of one request, and a model's answer to them."""

    request: Int64Array  # [R] zeros
    places: Places  # [R], all at one depth
    score: Float64Array  # [R] log-probabilities of the prefixes
    prefix: Int64Array  # [R, depth] tokens
    log_prob: Float32Array  # [R, V] log-softmax over the vocabulary
    edges: int  # children of all R prefixes

    def __len__(self) -> int:
        return len(self.request)


def rules_of(beam: int, allowed: Allowed, *, catalog: bool) -> StepRules:
    """The rules of one request that wants as many items as it has beams."""
    limit = np.array([beam])
    return StepRules(limit, limit, [allowed], np.zeros(1, bool), catalog)


def stands(
    trie: TokenTrie, beam: int, rng: np.random.Generator, allowed: Allowed | None = None
) -> list[Stand]:
    """The steps of one beam search below the root, whose beam fills as soon as the trie is wide enough.

    The model knows how many items lie below a token, and is unit normal noise otherwise.
    """
    vocabulary = int(trie.path_tokens.max()) + 1
    kernel, walk = NumpyStep(trie, rules_of(beam, allowed or Allowed(), catalog=True)), TrieWalk(trie)
    places, score = walk.root(1), np.zeros(1)
    found: list[Stand] = []
    depth = 0
    while len(score):
        children = walk.children(places)
        log_prob = rng.standard_normal((len(score), vocabulary), np.float32)
        log_prob[children.row, children.token] += np.log(children.places.end - walk.start(children.places))
        log_prob -= np.log(np.exp(log_prob).sum(axis=1, keepdims=True))
        start = walk.start(places)
        prefix = walk.path_slices(start, np.zeros_like(start), places.depth).reshape(len(start), depth)
        request = np.zeros(len(score), np.int64)
        if depth:
            found.append(Stand(request, places, score, prefix.astype(np.int64), log_prob, len(children.row)))
        step = kernel.step(request, places, score, log_prob)
        kept = slice(step.prefixes)
        depth += 1
        places = Places(step.node[kept], step.end[kept], np.full(step.prefixes, depth))
        score = step.score[kept]
    return found

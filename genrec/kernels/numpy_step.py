"""The fused step in numpy: the reference every other kernel is tested against, written to be read."""

from __future__ import annotations

import numpy as np

from genrec.kernels.step import Edges, StepResult, StepRules
from genrec.prefixes import best_per_request
from index.item_filter import AllowedBatch
from index.trie import TokenTrie
from index.types import Float32Array, Float64Array, Int64Array, IntArray
from index.walk import Places, TrieWalk


class NumpyStep:
    """:class:`~genrec.kernels.step.StepKernel` as array operations."""

    def __init__(self, trie: TokenTrie, rules: StepRules) -> None:
        self._walk = TrieWalk(trie)
        self._rules = rules
        self._allowed = AllowedBatch(rules.allowed, len(trie))

    def edges(self, node: Int64Array) -> Edges:
        """See :class:`~genrec.kernels.step.StepKernel`."""
        children = self._walk.children(Places(node, np.zeros_like(node), np.zeros_like(node)))
        return Edges(children.row, children.token.astype(np.int64))

    def step(
        self,
        request: Int64Array,
        places: Places,
        score: Float64Array,
        logits: Float32Array,
        normalizer: Float32Array | None = None,
    ) -> StepResult:
        """See :class:`~genrec.kernels.step.StepKernel`."""
        children = self._walk.children(places)
        row, below = children.row, children.places
        edge_logits = (logits[row, children.token] if logits.ndim == 2 else logits).astype(np.float64)
        if self._rules.catalog:
            step = edge_logits - _log_sum_exp_by_row(edge_logits, row, len(places))[row]
        else:
            step = edge_logits if normalizer is None else edge_logits - normalizer[row]
        path_score = score[row] + np.minimum(step, 0.0)

        owner, start = request[row], self._walk.start(below)
        items = below.end - start
        allowed = self._allowed.count(owner, start, below.end)
        ended = self._walk.is_leaf(below)
        if not self._rules.catalog:
            ended &= self._walk.tail_length(below) == 0
        going = np.flatnonzero((allowed > 0) & ~ended)
        ended_edges = np.flatnonzero((allowed > 0) & ended)

        order = path_score.copy()
        ahead = self._rules.look_ahead[owner] & (allowed > 0)
        order[ahead] += np.log(allowed[ahead] / items[ahead])
        kept = _best(going, order, owner, self._rules.beam)
        # The items of one path share its probability, so an item's score is below that of its path.
        ends = _best_and_ties(ended_edges, path_score - np.log(items), owner, self._rules.items)

        bound = np.full(len(self._rules.beam), -np.inf)
        left_out = np.setdiff1d(going, kept, assume_unique=True)
        np.maximum.at(bound, owner[left_out], path_score[left_out])
        chosen = np.concatenate([kept, ends])
        return StepResult(
            row[chosen], below.node[chosen], below.end[chosen], path_score[chosen], len(kept), bound
        )


def _log_sum_exp_by_row(logits: Float64Array, row: Int64Array, rows: int) -> Float64Array:
    """float64[R]: log of the sum of exponentials of each row's logits; -inf for a row without edges."""
    top = np.full(rows, -np.inf)
    np.maximum.at(top, row, logits)
    total = np.bincount(row, weights=np.exp(logits - top[row]), minlength=rows)
    with np.errstate(divide="ignore"):
        result: Float64Array = top + np.log(total)
    return result


def _best(edge: IntArray, value: Float64Array, owner: Int64Array, limit: Int64Array) -> IntArray:
    """Of the edges given, each owner's best ``limit``, in edge order; ties go to the earlier edge."""
    return edge[best_per_request(owner[edge], value[edge], limit)]


def _best_and_ties(edge: IntArray, value: Float64Array, owner: Int64Array, limit: Int64Array) -> IntArray:
    """As :func:`_best`, and all edges that equal the last one of it."""
    best = _best(edge, value, owner, limit)
    worst = np.full(len(limit), np.inf)
    np.minimum.at(worst, owner[best], value[best])
    return edge[value[edge] >= worst[owner[edge]]]

"""Score given items exactly: their token paths are fed as one tree, in one call behind the prompt.

For items that must be in an answer whatever the beam finds (a prior's best), and for scoring candidates that
another system proposes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec.decoders.base import PROMPT_SLOT, Decoder, Hidden
from genrec.prefixes import Prefixes
from genrec.search_batch import Normalize, SearchBatch, SearchRequest
from genrec.values import Below
from index.errors import RequestError
from index.item_filter import Allowed
from index.trie import TokenTrie
from index.types import Float64Array, Int64Array, IntArray
from index.walk import Places


def score_items(
    decoder: Decoder,
    trie: TokenTrie,
    requests: Sequence[SearchRequest],
    ranks: Sequence[IntArray],
    *,
    normalize: Normalize = "catalog",
) -> list[Float64Array]:
    """The scores a search would give to items, filter or no filter: one prefill and one call of the model.

    Args:
        decoder: the model.
        trie: the catalog's token paths.
        requests: B of them; prompts and priors count, what is allowed does not.
        ranks: B arrays of item ranks, in any order.
        normalize: what a step's probabilities are normalised over.

    Returns:
        B arrays float64, in the order of ``ranks``.

    Raises:
        RequestError: another number of rank arrays than of requests, or a rank that the trie does not have.
    """
    if len(ranks) != len(requests):
        raise RequestError(f"expected ranks for {len(requests)} requests, got {len(ranks)} arrays")
    wanted = [np.asarray(one, np.int64) for one in ranks]
    rank = np.concatenate([*wanted, np.zeros(0, np.int64)])
    if len(rank) and not 0 <= rank.min() <= rank.max() < len(trie):
        raise RequestError(f"expected ranks in [0, {len(trie)}), got {rank.min()} to {rank.max()}")
    if not len(rank):
        return [np.zeros(0) for _ in wanted]
    plain = [replace(one, allowed=Allowed(), caps=None, sample_seed=None) for one in requests]
    batch = SearchBatch(decoder, trie, plain, normalize)
    request = np.repeat(np.arange(len(wanted)), [len(one) for one in wanted])
    owner, items = batch.items_of(paths_of(batch, request, rank))
    key = owner * len(trie) + items.rank
    order = np.argsort(key)
    score = items.value[order[np.searchsorted(key[order], request * len(trie) + rank)]]
    return np.split(score, np.cumsum([len(one) for one in wanted])[:-1])


def paths_of(batch: SearchBatch, request: Int64Array, rank: Int64Array) -> Prefixes:
    """The distinct finished paths of items, scored. ``request`` int64[R] is non-decreasing."""
    steps, ends = _trail(batch, request, rank)
    nodes, deepest = batch.trie.nodes, batch.trie.longest_path
    key = (request[steps.row] * (deepest + 1) + steps.depth) * nodes + steps.node
    _, first, which = np.unique(key, return_index=True, return_inverse=True)  # by request, then depth
    prefixes = steps.take(first)
    owner = request[prefixes.row]
    hidden = _feed(batch, owner, prefixes, which, steps)
    places = Places(prefixes.node, prefixes.end, prefixes.depth)
    if batch.normalize == "catalog":
        children = batch.walk.children(places)
        scores = batch.edge_scores(hidden, places, children)
        start = batch.walk.start(children.places)
        below = Below(owner[children.row], children.row, start, children.places.end, children.places.node)
        edge = np.searchsorted(children.row, which) + steps.child - batch.trie.first_child[steps.node]
        step = batch.values.mix(scores, below)[edge]
    else:
        logits = batch.decoder.edge_logits(hidden, which, steps.token)
        normalizer = batch.decoder.log_normalizer(hidden, prefixes.depth)
        step = np.minimum(logits.astype(np.float64) - normalizer[which], 0.0)
    score = np.bincount(steps.row, weights=step, minlength=len(rank)).astype(np.float64)
    _, distinct = np.unique(request * nodes + ends.node, return_index=True)
    score = score[distinct] + batch.values.root(batch.size)[request[distinct]]
    parent = np.full(len(distinct), PROMPT_SLOT)
    return Prefixes(request[distinct], ends.take(distinct), score, score, parent)


@dataclass(frozen=True, slots=True)
class _Steps:
    """S steps of walks from the root to given items, shallow ones first: from a node over a token to a child."""

    row: Int64Array  # [S] which item
    previous: Int64Array  # [S] the step before of the same item, -1 for its first
    depth: Int64Array  # [S] tokens before the step
    node: Int64Array  # [S]
    end: Int64Array  # [S] one past the last rank below the node
    token: Int64Array  # [S]
    child: Int64Array  # [S]

    def take(self, index: Int64Array) -> _Steps:
        return _Steps(
            self.row[index],
            self.previous[index],
            self.depth[index],
            self.node[index],
            self.end[index],
            self.token[index],
            self.child[index],
        )


def _trail(batch: SearchBatch, request: Int64Array, rank: Int64Array) -> tuple[_Steps, Places]:
    """The steps whose probability counts, and where the items' walks end.

    Under catalog normalisation a walk ends at its leaf, under the vocabulary's at the end of the path.
    """
    at = batch.walk.root(len(rank))
    length = batch.trie.path_length(rank)
    last = np.full(len(rank), -1)
    parts: list[_Steps] = []
    row, depth, made = np.arange(len(rank)), 0, 0
    while len(row):
        begin = np.full(len(row), depth)
        here = Places(at.node[row], at.end[row], begin)
        token = np.asarray(batch.walk.path_slices(rank[row], begin, begin + 1), np.int64)
        there = batch.walk.step(here, token)
        parts.append(_Steps(row, last[row], begin, here.node, here.end, token, there.node))
        last[row] = made + np.arange(len(row))
        at.node[row], at.end[row] = there.node, there.end
        made, depth = made + len(row), depth + 1
        row = row[~batch.walk.is_leaf(there) if batch.normalize == "catalog" else length[row] > depth]
    names = ("row", "previous", "depth", "node", "end", "token", "child")
    steps = _Steps(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    return steps, Places(at.node, at.end, length)


def _feed(
    batch: SearchBatch, owner: Int64Array, prefixes: _Steps, which: Int64Array, steps: _Steps
) -> Hidden:
    """Hidden rows of distinct prefixes (sorted by request, then depth), all fed in one call."""
    fed = prefixes.depth > 0
    if not fed.any():
        return batch.prompt_hidden[owner]
    slot = np.full(len(owner), PROMPT_SLOT)
    slot[fed] = batch.next_slots(owner[fed])
    before = prefixes.previous[fed]
    hidden, _ = batch.feed(owner[fed], steps.token[before], slot[which[before]])
    row = np.where(fed, batch.size + np.cumsum(fed) - 1, owner)
    return np.concatenate([batch.prompt_hidden, hidden])[row]

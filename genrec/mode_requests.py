"""From wishes to what a mode searches for, and the search itself. It knows rows and ranks, no ids of a history."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from genrec.blend import Blend
from genrec.history_prior import HistoryPrior
from genrec.modes import AnyMode, QueryMode, TrieMode
from genrec.prior import Prior
from genrec.queries import QueryRequest, QueryResult
from genrec.search import Normalize, SearchRequest, SearchResult, Synchronize, search
from genrec.vocabulary import one_line
from genrec.wishes import Wishes, resolve
from index.errors import RequestError
from index.item_filter import Allowed
from index.item_index import ItemIndex
from index.types import Int64Array, IntArray

Found: TypeAlias = SearchResult | QueryResult
"""What the search of a mode found: item ranks of its trie, or catalog rows."""


def requests_of(
    index: ItemIndex, modes: Sequence[AnyMode], histories: Sequence[IntArray], wishes: Sequence[Wishes]
) -> list[SearchRequest | QueryRequest]:
    """The request of each history, int[P] catalog rows, by its own mode and wishes.

    Raises:
        RequestError, FilterError: wishes that make no sense, contradict each other, or that the mode cannot fulfil.
    """
    rows = [np.asarray(one, np.int64) for one in histories]
    shared: dict[int, SearchRequest | QueryRequest] = {}  # by wish: what does not depend on the history
    for mode, one in zip(modes, wishes, strict=True):
        if id(one) not in shared:
            shared[id(one)] = shared_request(index, mode, one)
    blends = _blends(modes, rows, wishes)
    return [
        with_history(mode, own, one, shared[id(one)], blend)
        for mode, own, one, blend in zip(modes, rows, wishes, blends, strict=True)
    ]


def shared_request(index: ItemIndex, mode: AnyMode, wishes: Wishes) -> SearchRequest | QueryRequest:
    """A request without a history."""
    resolved = resolve(wishes, mode.defaults)
    assert resolved.beam is not None
    banned = index.catalog.rows_of([str(one) for one in resolved.exclude])
    banned = banned[banned >= 0]
    if isinstance(mode, QueryMode):
        assert resolved.queries is not None
        assert resolved.constraint is not None
        return QueryRequest(
            prompt=(),
            k=resolved.k,
            queries=resolved.queries,
            beam=resolved.beam,
            constraint=resolved.constraint,
            allowed=mode.rules.allowed_rows(resolved.where, resolved.include),
            exclude=np.asarray(banned, np.int64),
            diversity=resolved.diversity,
        )
    return SearchRequest(
        prompt=(),
        k=resolved.k,
        beam=resolved.beam,
        allowed=mode.rules.allowed(resolved.where, resolved.include, banned),
        exact=resolved.exact,
        max_expansions=resolved.max_expansions,
        prior=resolved.prior.over(mode.trie) if isinstance(resolved.prior, Prior) else None,
        caps=mode.caps.caps(resolved.max_per or {}),
        diversity=resolved.diversity,
    )


def _blends(
    modes: Sequence[AnyMode], histories: Sequence[Int64Array], wishes: Sequence[Wishes]
) -> list[Blend | None]:
    """What history priors give to requests, one each; None where none is asked for or nothing is known.

    Raises:
        RequestError: one is asked for, and the mode has none.
    """
    weights = [_prior_weight(mode, one) for mode, one in zip(modes, wishes, strict=True)]
    asked: dict[int, list[int]] = {}  # places by their prior: its lists are looked up for all together
    priors: dict[int, HistoryPrior] = {}
    for place, (mode, weight) in enumerate(zip(modes, weights, strict=True)):
        if not weight:
            continue
        if not isinstance(mode, TrieMode) or mode.history_prior is None:
            raise RequestError(
                "expected a bundle with a history prior for one in a request, got one without; leave prior out, or "
                "train the bundle again"
            )
        priors[id(mode.history_prior)] = mode.history_prior
        asked.setdefault(id(mode.history_prior), []).append(place)
    result: list[Blend | None] = [None] * len(weights)
    for name, places in asked.items():
        for place, shares in zip(
            places, priors[name].shares([histories[one] for one in places]), strict=True
        ):
            mode = modes[place]
            assert isinstance(mode, TrieMode)
            result[place] = shares.over(mode.trie, weights[place])
    return result


def _prior_weight(mode: AnyMode, wishes: Wishes) -> float:
    prior = resolve(wishes, mode.defaults).prior
    return prior if isinstance(prior, float) else 0.0


def with_history(
    mode: AnyMode,
    rows: Int64Array,
    wishes: Wishes,
    shared: SearchRequest | QueryRequest,
    blend: Blend | None = None,
) -> SearchRequest | QueryRequest:
    """The request of one history, int[P] catalog rows, and of what a history prior gives to it."""
    prompt = mode.spec.prompt(mode.speech, rows)
    seed = _sample_seed(wishes.seed, rows) if wishes.sample else None
    seen = rows if wishes.exclude_seen else rows[:0]
    if isinstance(shared, QueryRequest):
        assert isinstance(mode, QueryMode)
        excluded = np.concatenate([shared.exclude, seen])
        context = query_context(mode, rows, mode.defaults.context)
        return replace(shared, prompt=prompt, exclude=excluded, context=context, sample_seed=seed)
    assert isinstance(mode, TrieMode)
    allowed = shared.allowed
    if len(seen):
        ranks = np.asarray(mode.trie.rank_of_item[seen], np.int64)
        allowed = Allowed.from_bitmap(allowed.bitmap, np.concatenate([allowed.excluded, ranks]))
    return replace(shared, prompt=prompt, allowed=allowed, sample_seed=seed, blend=blend)


def query_context(mode: QueryMode, rows: Int64Array, items: int) -> str:
    """What is searched for behind the queries of a history int64[P]: the titles of its newest ``items``."""
    newest = rows[len(rows) - min(items, len(rows)) :].tolist()
    return " ".join(title for row in newest if (title := one_line(mode.speech.titles[row])))


def run_mode(
    mode: AnyMode,
    requests: Sequence[SearchRequest | QueryRequest],
    normalize: Normalize,
    synchronize: Synchronize,
) -> Sequence[Found]:
    """Search for requests of one mode."""
    if isinstance(mode, QueryMode):
        return mode.search.search([one for one in requests if isinstance(one, QueryRequest)])
    walks = [one for one in requests if isinstance(one, SearchRequest)]
    return search(mode.decoder, mode.trie, walks, normalize=normalize, synchronize=synchronize)


def _sample_seed(seed: int, rows: IntArray) -> int:
    """A seed of its own for every history, so that one seed does not bind a batch's draws together."""
    digest = hashlib.blake2b(np.asarray(rows, "<i8").tobytes(), digest_size=8, person=b"sample")
    digest.update(str(seed).encode())
    return int.from_bytes(digest.digest(), "little")

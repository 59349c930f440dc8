"""From wishes to what a mode searches for, and the search itself. It knows rows and ranks, no ids of a history."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from genrec.modes import AnyMode, QueryMode, TrieMode
from genrec.queries import QueryRequest, QueryResult
from genrec.search import Normalize, SearchRequest, SearchResult, Synchronize, search
from genrec.vocabulary import one_line
from genrec.wishes import Wishes, resolve
from index.item_filter import Allowed
from index.item_index import ItemIndex
from index.types import Int64Array, IntArray

Found: TypeAlias = SearchResult | QueryResult
"""What the search of a mode found: item ranks of its trie, or catalog rows."""


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
        prior=None if resolved.prior is None else resolved.prior.over(mode.trie),
        caps=mode.caps.caps(resolved.max_per or {}),
        diversity=resolved.diversity,
    )


def with_history(
    mode: AnyMode, rows: Int64Array, wishes: Wishes, shared: SearchRequest | QueryRequest
) -> SearchRequest | QueryRequest:
    """The request of one history, int[P] catalog rows."""
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
    return replace(shared, prompt=prompt, allowed=allowed, sample_seed=seed)


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

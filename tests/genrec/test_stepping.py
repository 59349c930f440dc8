"""A search driven from outside: requests that join, leave and are dropped between steps change no other's answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import genrec.leaf_search
from genrec.blend import Blend
from genrec.caps import Caps
from genrec.kernels import NumpyStep
from genrec.leaf_search import LeafSearch
from genrec.prior import Prior
from genrec.search import Normalize, SearchRequest, SearchResult, search
from index.item_filter import Allowed
from index.trie import TokenTrie, build_trie
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.genrec.test_search import VOCABULARY, normalizations, paths_of_a_catalog


def any_request(trie: TokenTrie, rng: np.random.Generator, normalize: Normalize) -> SearchRequest:
    """A request of any kind."""
    items = len(trie)
    request = SearchRequest(
        item_prompt(int(rng.integers(50))),
        k=int(rng.integers(1, 8)),
        beam=int(rng.integers(1, 5)),
        allowed=Allowed.build(
            rng.random(items) < 0.6 if rng.random() < 0.6 else None, rng.integers(0, items, 2)
        ),
        look_ahead=bool(rng.random() < 0.7),
    )
    match rng.integers(0, 7):
        case 0:
            return replace(request, exact=True, max_expansions=int(rng.choice([1, 3, 1000])))
        case 1:
            return replace(
                request, caps=Caps(rng.integers(0, 3, (items, 1)).astype(np.int32), np.array([1, 2, 1]))
            )
        case 2:
            return replace(request, prior=Prior(rng.standard_normal(items), 0.5, "additive", candidates=2))
        case 3 if normalize == "catalog":
            return replace(request, sample_seed=int(rng.integers(99)))
        case 4 if normalize == "catalog":
            return replace(request, prior=Prior(rng.dirichlet(np.ones(items)), 0.4, "mixture", candidates=2))
        case 5:
            ranks = np.sort(rng.choice(items, rng.integers(1, items + 1), replace=False))
            blend = Blend(ranks, rng.dirichlet(np.ones(len(ranks))) * 0.9 + 0.1 / len(ranks), 0.4, ahead=1)
            return replace(request, blend=blend)
    return request


def assert_same(got: SearchResult, expected: SearchResult) -> None:
    assert got.ranks.tolist() == expected.ranks.tolist()
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-9)
    assert (got.certified, got.expansions) == (expected.certified, expected.expansions)


@settings(max_examples=80, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 9999), normalizations)
def test_who_joins_and_leaves_between_steps_changes_no_answer(paths, seed, normalize):
    rng = np.random.default_rng(seed)
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    waiting = [any_request(trie, rng, normalize) for _ in range(7)]
    expected = [search(decoder, trie, [one], normalize=normalize)[0] for one in waiting]
    names, running, answered, dropped = [0, 1], None, {}, set()
    running = LeafSearch(decoder, trie, [waiting[0], waiting[1]], normalize)
    queue = list(range(2, 7))
    while running.size or queue:
        if queue and (not running.size or rng.random() < 0.5):
            count = int(rng.integers(1, 3))
            new, queue = queue[:count], queue[count:]
            running.join(LeafSearch(decoder, trie, [waiting[one] for one in new], normalize))
            names += new
        running.step()
        over = ~running.going
        for b in np.flatnonzero(over).tolist():
            answered[names[b]] = running.result_now(b)
        if rng.random() < 0.2 and running.going.any():
            victim = int(rng.choice(np.flatnonzero(running.going)))
            over[victim] = True
            dropped.add(names[victim])
        stay = np.flatnonzero(~over)
        running.keep(stay)
        names = [names[b] for b in stay]
    assert set(answered) == set(range(7)) - dropped
    for one, result in answered.items():
        assert_same(result, expected[one])
        # Only before its first step (a prior's items) and in its last can mates ask for a call it does not need.
        assert expected[one].model_calls <= result.model_calls <= expected[one].model_calls + 2


@settings(max_examples=60, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 9999), normalizations)
def test_what_is_known_between_two_steps_is_honest(paths, seed, normalize):
    """An answer asked for early: its items are allowed, and what it calls certified is the final order."""
    rng = np.random.default_rng(seed)
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    request = SearchRequest(
        item_prompt(seed), k=4, beam=2, allowed=Allowed.build(rng.random(len(trie)) < 0.7), exact=True
    )
    (final,) = search(decoder, trie, [request], normalize=normalize)
    running = LeafSearch(decoder, trie, [request], normalize)
    while running.going.any():
        running.step()
        now = running.result_now(0)
        assert now.ranks[: now.certified].tolist() == final.ranks[: now.certified].tolist()


@settings(max_examples=60, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 9999), normalizations)
def test_without_the_compiled_kernel_the_answers_are_the_same(paths, seed, normalize):
    rng = np.random.default_rng(seed)
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    requests = [replace(any_request(trie, rng, normalize), prior=None, caps=None) for _ in range(4)]
    expected = search(decoder, trie, requests, normalize=normalize)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(genrec.leaf_search, "step_kernel", NumpyStep)
        got = search(decoder, trie, requests, normalize=normalize)
    for one, other in zip(got, expected, strict=True):
        assert_same(one, other)
        assert one.model_calls == other.model_calls


def test_a_plain_batch_runs_on_the_kernel_and_one_with_a_prior_does_not():
    trie, decoder = build_trie([[0, 1], [1, 0], [1, 1]]), FakeDecoder(VOCABULARY)
    plain = SearchRequest(item_prompt(1))
    with_prior = replace(plain, prior=Prior(np.ones(3), 0.5, "additive"))
    search_of_plain = LeafSearch(decoder, trie, [plain], "catalog")
    assert search_of_plain.kernel is not None
    search_of_plain.join(LeafSearch(decoder, trie, [with_prior], "catalog"))
    assert search_of_plain.kernel is None
    search_of_plain.keep(np.array([0]))
    assert search_of_plain.kernel is not None

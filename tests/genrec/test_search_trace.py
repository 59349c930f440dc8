"""A traced search: the same answer, and a trace that accounts for every prefix it has scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.search import SearchRequest, search
from genrec.search_trace import ROOT, SearchTrace, TracedSearch
from index.item_filter import Allowed
from index.trie import TokenTrie, build_trie
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.genrec.test_search import VOCABULARY, normalizations, paths_of_a_catalog
from tests.genrec.test_stepping import any_request, assert_same

EVERYTHING = {"most_listed": 10**6, "most_prefixes": 10**6}


def traced(
    decoder: FakeDecoder, trie: TokenTrie, request: SearchRequest, normalize: str = "catalog", **limits: int
) -> SearchTrace:
    trace = SearchTrace(**limits)
    TracedSearch(decoder, trie, request, normalize, trace).run()  # type: ignore[arg-type]
    return trace


def path_of(trace: SearchTrace, number: int) -> tuple[int, ...]:
    prefix = trace.prefixes[number]
    return (() if prefix.parent < 0 else path_of(trace, prefix.parent)) + prefix.tokens


@settings(max_examples=60, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 9999), normalizations)
def test_watching_changes_nothing(paths, seed, normalize):
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    request = any_request(trie, np.random.default_rng(seed), normalize)
    (expected,) = search(decoder, trie, [request], normalize=normalize)
    trace = SearchTrace()
    (got,) = TracedSearch(decoder, trie, request, normalize, trace).run()
    assert_same(got, expected)
    assert got.model_calls == expected.model_calls
    assert not trace.truncated
    assert_same(trace.steps[-1].found, expected)
    assert trace.steps[-1].model_calls == expected.model_calls
    assert sum(len(step.expanded) for step in trace.steps) == expected.expansions


@settings(max_examples=60, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 9999), normalizations)
def test_every_scored_prefix_is_accounted_for(paths, seed, normalize):
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    rng = np.random.default_rng(seed)
    request = any_request(trie, rng, normalize)
    allowed_ranks = {
        rank
        for rank in range(len(trie))
        if (request.allowed.bitmap is None or request.allowed.bitmap.contains(np.array(rank)))
        and rank not in request.allowed.excluded
    }
    few = traced(decoder, trie, request, normalize, most_listed=1)
    every = traced(decoder, trie, request, normalize, **EVERYTHING)
    for trace in (few, every):
        assert [one.id for one in trace.prefixes] == list(range(len(trace.prefixes)))
        assert trace.steps[0].expanded == (ROOT,)
        for one in trace.prefixes:
            below = set(range(one.start, one.end))
            path = path_of(trace, one.id)
            for rank in below:
                assert tuple(trie.path(rank)[: len(path)]) == path
            assert one.depth == len(path) - len(one.tokens)
            assert one.allowed == len(below & allowed_ranks)
            assert set(one.examples) <= (below & allowed_ranks or below)
            assert len(one.examples) == min(3, one.allowed or one.end - one.start)
            assert (one.fate == "filtered") == (one.allowed == 0 and one.id != ROOT)
            if one.fate == "finished":
                assert path == tuple(trie.path(one.start))
        for number, step in enumerate(trace.steps):
            assert step.scored == sum(step.counts.values())
            unlisted = sum(one.count for one in step.unlisted)
            assert sum(one.step == number for one in trace.prefixes[1:]) + unlisted >= step.scored
            assert all(trace.prefixes[one].step <= number for one in step.expanded)
    assert [step.counts for step in few.steps] == [step.counts for step in every.steps]
    # Of the items of one step only twice as many as are wanted are listed, whatever the limits.
    assert {one.fate for step in every.steps for one in step.unlisted} <= {"finished"}
    # What goes on is what the next step expands.
    if not request.exact and request.sample_seed is None and request.caps is None:
        for number, step in enumerate(every.steps[:-1]):
            live = {one.id for one in every.prefixes[1:] if one.step == number and one.fate == "live"}
            assert live == set(every.steps[number + 1].expanded)
            assert len(live) == step.counts["live"]


@settings(max_examples=50, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 9999), normalizations)
def test_the_scores_are_those_the_search_chose_by(paths, seed, normalize):
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    request = SearchRequest(item_prompt(seed), k=3, beam=3, exact=seed % 2 == 0)
    trace = traced(decoder, trie, request, normalize, **EVERYTHING)
    ended = {one.id: one.score for one in trace.prefixes if one.fate == "finished"}
    for step in trace.steps:
        ended |= step.ended
    score_of = {}
    for number, score in ended.items():
        start, end = trace.prefixes[number].start, trace.prefixes[number].end
        score_of |= {rank: score - np.log(end - start) for rank in range(start, end)}
    found = trace.steps[-1].found
    for rank, score in zip(found.ranks.tolist(), found.scores.tolist(), strict=True):
        assert score_of[rank] == pytest.approx(score, abs=1e-9)
    for number, step in enumerate(trace.steps):
        left = [one for one in trace.prefixes if one.step == number and one.fate == "pruned"]
        if left and not request.exact:
            kept = [one.order for one in trace.prefixes if one.step == number and one.fate == "live"]
            assert max(one.order for one in left) <= min(kept, default=np.inf)
            assert step.bound >= max(one.score for one in left)


def test_a_toy_walk_can_be_read():
    """Two branches of two items; the second branch is filtered away, and the first holds a seen item."""
    trie = build_trie([[0, 2], [0, 3], [1, 2], [1, 3]])
    allowed = Allowed.build(np.array([True, True, False, False]), np.array([1]))
    trace = traced(FakeDecoder(4, seed=1), trie, SearchRequest(item_prompt(1), k=2, beam=2, allowed=allowed))
    assert [(one.tokens, one.fate, one.level, one.allowed) for one in trace.prefixes] == [
        ((), "live", 0, 1),
        ((0,), "live", 1, 1),
        ((1,), "filtered", 1, 0),
        ((2,), "finished", 2, 1),
        ((3,), "filtered", 2, 0),
    ]
    first, second = trace.steps
    assert (first.expanded, first.scored, second.expanded) == ((0,), 2, (1,))
    assert first.counts == {"live": 1, "pruned": 0, "filtered": 1, "finished": 0}
    assert len(first.found.ranks) == first.found.certified == 0
    assert (second.found.ranks.tolist(), second.found.certified, second.bound) == ([0], 1, -np.inf)


def test_forced_tokens_stand_beside_the_one_that_was_decided():
    trie = build_trie([[0, 1, 2, 3], [0, 1, 2, 4], [5, 6, 7, 8]])
    trace = traced(FakeDecoder(9), trie, SearchRequest(item_prompt(1), k=3, beam=3))
    assert [one.tokens for one in trace.prefixes] == [(), (0, 1, 2), (5, 6, 7, 8), (3,), (4,)]
    assert [one.depth for one in trace.prefixes] == [0, 0, 0, 3, 3]


def test_an_exact_search_takes_up_what_it_left_out():
    rng = np.random.default_rng(0)
    trie = build_trie(np.unique(rng.integers(0, 6, (150, 4)), axis=0))
    request = SearchRequest(item_prompt(3), k=5, beam=2, exact=True)
    trace = traced(FakeDecoder(6, seed=5, spread=0.5), trie, request, most_listed=1)
    again = [
        one
        for number, step in enumerate(trace.steps)
        for one in step.expanded
        if trace.prefixes[one].fate == "pruned"
    ]
    assert again
    assert trace.steps[-1].found.certified == 5
    assert [step.found.certified for step in trace.steps] == sorted(
        step.found.certified for step in trace.steps
    )


def test_a_long_search_is_written_down_to_a_limit_and_answered_all_the_same():
    rng = np.random.default_rng(0)
    trie = build_trie(np.unique(rng.integers(0, 8, (400, 4)), axis=0))
    request = SearchRequest(item_prompt(3), k=5, beam=2, exact=True)
    decoder = FakeDecoder(8, seed=5, spread=0.3)
    whole = traced(decoder, trie, request, **EVERYTHING)
    part = traced(decoder, trie, request, most_prefixes=100)
    assert part.truncated
    assert 0 < len(part.steps) < len(whole.steps)
    assert [step.counts for step in part.steps] == [step.counts for step in whole.steps[: len(part.steps)]]
    trace = SearchTrace(most_prefixes=100)
    (got,) = TracedSearch(decoder, trie, request, "catalog", trace).run()
    assert_same(got, search(decoder, trie, [request])[0])


def test_requests_of_a_kind_without_steps_are_not_traced():
    from genrec.search import Diversity

    request = replace(SearchRequest(item_prompt(1)), diversity=Diversity(2))
    with pytest.raises(AssertionError):
        TracedSearch(FakeDecoder(4), build_trie([[0], [1]]), request, "catalog", SearchTrace())

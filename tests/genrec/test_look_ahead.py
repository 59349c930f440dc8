"""Look-ahead under filters: it reorders the beam and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.search import SearchRequest, search
from index.item_filter import Allowed
from index.trie import build_trie
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.genrec.test_search import VOCABULARY, WIDE, normalizations, paths_of_a_catalog
from tests.reference import best_rows, score_all


def likes(logits: list[float]) -> FakeDecoder:
    """A decoder with the same logits at every prefix."""
    decoder = FakeDecoder(len(logits))
    decoder.logits_after = lambda prompt_seed, path: np.array(logits, np.float32)
    return decoder


def test_a_starved_beam_finds_what_the_filter_left():
    """Token 2 is likelier, but of its 9 items one is allowed: the likeliest allowed items are below token 1."""
    paths = [[1, i] for i in range(3, 7)] + [[2, i] for i in range(3, 12)]
    trie, decoder = build_trie(paths), likes([0.0, 1.0, 1.1] + [0.0] * 9)
    allowed = Allowed.build(np.array([True] * 4 + [False] * 8 + [True]))
    plain = SearchRequest(item_prompt(1), k=1, beam=1, allowed=allowed, look_ahead=False)
    (starved,), (rescued,) = (
        search(decoder, trie, [plain]),
        search(decoder, trie, [replace(plain, look_ahead=True)]),
    )
    assert starved.ranks.tolist() == [12]
    assert rescued.ranks.tolist() == [0]
    assert rescued.scores[0] > starved.scores[0]


@settings(max_examples=100, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), normalizations, st.integers(1, 5), st.integers(1, 4))
def test_certificates_hold_over_pure_scores(paths, seed, normalize, k, beam):
    allowed = np.random.default_rng(seed).random(len(paths)) < 0.4
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    rule = Allowed.build(allowed[trie.item_at_rank])
    request = SearchRequest(item_prompt(seed), k, beam, rule, look_ahead=True)
    scores = score_all(decoder, decoder.prompt_seed(request.prompt), paths, normalize)
    for one in (request, replace(request, beam=WIDE), replace(request, exact=True)):
        (result,) = search(decoder, trie, [one], normalize=normalize)
        rows = trie.item_at_rank[result.ranks].tolist()
        assert len(rows) == min(k, int(allowed.sum()))
        assert rows[: result.certified] == best_rows(scores, k, allowed)[: result.certified]
        np.testing.assert_allclose(result.scores, scores[rows], atol=1e-5)
        if one is not request:
            assert result.certified == len(rows)


def test_without_a_filter_it_changes_nothing():
    paths = np.random.default_rng(1).integers(0, VOCABULARY, (80, 4))
    trie, decoder = build_trie(np.unique(paths, axis=0)), FakeDecoder(VOCABULARY, 3)
    seen = Allowed.build(excluded=np.array([0, 5, 9]))
    request = SearchRequest(item_prompt(1), k=5, beam=5, allowed=seen, look_ahead=False)
    (without,), (ahead,) = (
        search(decoder, trie, [request]),
        search(decoder, trie, [replace(request, look_ahead=True)]),
    )
    np.testing.assert_array_equal(without.ranks, ahead.ranks)
    assert without.certified == ahead.certified


def test_requests_with_and_without_share_a_batch():
    paths = np.unique(np.random.default_rng(2).integers(0, VOCABULARY, (120, 4)), axis=0)
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, 4)
    rng = np.random.default_rng(3)
    requests = [
        SearchRequest(
            item_prompt(b),
            4,
            4,
            Allowed.build(rng.random(len(paths)) < 0.3) if b % 3 else Allowed(),
            look_ahead=b % 2 == 0,
        )
        for b in range(6)
    ]
    for request, batched in zip(requests, search(decoder, trie, requests), strict=True):
        (alone,) = search(decoder, trie, [request])
        assert alone.ranks.tolist() == batched.ranks.tolist()
        assert (alone.certified, alone.expansions) == (batched.certified, batched.expansions)

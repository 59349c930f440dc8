"""Samples without replacement: the right distribution, and the same draw however it is searched for."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from genrec.caps import Caps
from genrec.prior import Prior
from genrec.sampling import gumbel_noise, values_below
from genrec.search import SearchRequest, search
from index.errors import RequestError
from index.item_filter import Allowed
from index.trie import build_trie
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.genrec.test_search import VOCABULARY, WIDE, paths_of_a_catalog
from tests.reference import score_all, score_all_mixed

DRAWS = 1000
PATHS = [[1, 1, 2], [1, 1, 3], [1, 2, 0], [2, 4, 4], [2, 4, 4], [3, 0, 0], [3, 1, 0]]  # two items on one path


def draws(probability: np.ndarray, allowed: np.ndarray, prior: Prior | None = None) -> np.ndarray:
    """int[DRAWS, 2]: the first two rows drawn, one seed after another, from a search over PATHS."""
    trie, decoder = build_trie(PATHS), FakeDecoder(VOCABULARY, 7, spread=1.0)
    rule = Allowed.build(excluded=trie.rank_of_item[np.flatnonzero(~allowed)])
    request = SearchRequest(item_prompt(1), k=2, beam=1, allowed=rule, prior=prior)
    found = search(decoder, trie, [replace(request, sample_seed=seed) for seed in range(DRAWS)])
    rows = trie.item_at_rank[np.array([result.ranks for result in found])]
    scores = np.array([result.scores for result in found])
    np.testing.assert_allclose(np.exp(scores), probability[rows], rtol=1e-4)
    assert all(result.certified == 2 for result in found)
    return rows.astype(np.int64)


@pytest.mark.parametrize(("filtered", "with_prior"), [(False, False), (True, False), (True, True)])
def test_first_draws_and_ordered_pairs_follow_the_model(filtered, with_prior):
    allowed = np.array([True, True, False, True, False, True, True]) if filtered else np.ones(7, bool)
    trie, decoder = build_trie(PATHS), FakeDecoder(VOCABULARY, 7, spread=1.0)
    seed = decoder.prompt_seed(item_prompt(1))
    by_row = np.array([1.0, 0.0, 2.0, 1.0, 3.0, 0.5, 0.5])
    prior = Prior.of_rows(trie, by_row, 0.5) if with_prior else None
    log_p = (
        score_all_mixed(decoder, seed, PATHS, by_row, 0.5)
        if with_prior
        else score_all(decoder, seed, PATHS, "catalog")
    )
    p = np.exp(log_p)
    rows = draws(p, allowed, prior)
    q = np.where(allowed, p, 0) / p[allowed].sum()  # among the allowed, in the model's proportions
    items = np.flatnonzero(allowed)
    first = np.bincount(rows[:, 0], minlength=7)
    assert first[~allowed].sum() == 0
    assert chisquare(first[items], DRAWS * q[items]).pvalue > 1e-3
    pairs = list(permutations(items.tolist(), 2))
    seen = np.array([np.sum((rows[:, 0] == a) & (rows[:, 1] == b)) for a, b in pairs])
    expected = DRAWS * np.array([q[a] * q[b] / (1 - q[a]) for a, b in pairs])
    assert seen.sum() == DRAWS
    assert chisquare(seen, expected).pvalue > 1e-3


@settings(max_examples=60, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), st.integers(0, 2**70), st.integers(1, 6), st.integers(1, 5))
def test_a_draw_depends_on_its_seed_alone(paths, seed, sample_seed, k, beam):
    """Not on the beam; and a filter only takes items out of it."""
    allowed = np.random.default_rng(seed).random(len(paths)) < 0.6
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    request = SearchRequest(item_prompt(seed), WIDE, WIDE, sample_seed=sample_seed)
    filtered = replace(request, k=k, beam=beam, allowed=Allowed.build(allowed[trie.item_at_rank]))
    everything, some = search(decoder, trie, [request, filtered])
    rows, found = (trie.item_at_rank[result.ranks].tolist() for result in (everything, some))
    assert sorted(rows) == list(range(len(paths)))
    assert found == [row for row in rows if allowed[row]][:k]
    assert some.certified == len(found)
    scores = score_all(decoder, decoder.prompt_seed(request.prompt), paths, "catalog")
    np.testing.assert_allclose(some.scores, scores[found], atol=1e-5)
    (alone,) = search(decoder, trie, [filtered])
    assert alone.ranks.tolist() == some.ranks.tolist()
    assert alone.expansions == some.expansions


def test_a_sample_does_not_walk_the_whole_trie():
    paths = np.stack(np.meshgrid(*[np.arange(10)] * 3, indexing="ij"), -1).reshape(-1, 3)
    request = SearchRequest(item_prompt(1), k=5, beam=1, sample_seed=1)
    (result,) = search(FakeDecoder(10, 1), build_trie(paths), [request])
    assert result.certified == 5
    assert result.expansions <= 20  # of 111 branching prefixes


def test_caps_take_a_draw_in_its_order():
    paths = np.unique(np.random.default_rng(5).integers(0, VOCABULARY, (60, 3)), axis=0)
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, 5)
    labels = np.arange(len(paths))[:, None] % 3
    request = SearchRequest(item_prompt(1), len(paths), WIDE, sample_seed=3)
    capped = replace(request, k=5, beam=2, caps=Caps(labels, np.array([2, 2, 1])))
    everything, some = search(decoder, trie, [request, capped])
    taken: list[int] = []
    for rank in everything.ranks.tolist():
        if sum(one % 3 == rank % 3 for one in taken) < (2, 2, 1)[rank % 3]:
            taken.append(rank)
    assert some.ranks.tolist() == taken[:5]


def test_noise_is_gumbel_and_differs_by_seed_and_key():
    noise = gumbel_noise(11, np.arange(20_000))
    assert kstest(noise, "gumbel_r").pvalue > 1e-3
    assert (
        kstest(np.array([gumbel_noise(s, np.array([3]))[0] for s in range(2000)]), "gumbel_r").pvalue > 1e-3
    )
    other = gumbel_noise(12, np.arange(20_000))
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.03
    np.testing.assert_array_equal(noise, gumbel_noise(11 + 2**64, np.arange(20_000)))  # seeds are mod 2^64
    np.testing.assert_array_equal(gumbel_noise(-1, np.arange(3)), gumbel_noise(2**64 - 1, np.arange(3)))


def test_the_best_child_takes_its_parents_value_and_no_child_more():
    rng = np.random.default_rng(0)
    score, noise = np.log(rng.dirichlet(np.ones(6))), rng.gumbel(size=6)
    row = np.array([0, 0, 0, 1, 1, 1])
    ceiling = np.repeat([0.3, -2.0], 3)
    value = values_below(score, row, ceiling, noise)
    for here in (slice(0, 3), slice(3, 6)):
        assert value[here].max() == ceiling[here][0]
        assert np.argsort(value[here]).tolist() == np.argsort((score + noise)[here]).tolist()
        # Truncated Gumbels: exp(-value) moves by the same amount for all children.
        shift = np.exp(-value[here]) - np.exp(-(score + noise)[here])
        np.testing.assert_allclose(shift, shift[0])


@pytest.mark.parametrize(
    ("change", "modes", "message"),
    [
        ({}, {"normalize": "vocabulary"}, "catalog scores for a sample"),
        ({}, {"synchronize": "token"}, "sampling to be leaf-synchronous"),
        ({"prior": Prior(np.ones(2), 0.5, "additive")}, {}, "mixture prior for a sample"),
    ],
)
def test_samples_of_no_distribution_are_refused(change, modes, message):
    request = SearchRequest(item_prompt(1), sample_seed=1, **change)
    with pytest.raises(RequestError, match=message):
        search(FakeDecoder(3), build_trie([[1], [2]]), [request], **modes)

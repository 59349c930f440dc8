"""Blends against exhaustive scoring: the ranking, the proofs and the draws are those of the mixed distribution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from genrec.blend import Blend
from genrec.caps import Caps
from genrec.prior import Prior
from genrec.search import Diversity, SearchRequest, score_items, search
from genrec.values import Values
from index.errors import RequestError
from index.item_filter import Allowed
from index.trie import TokenTrie, build_trie
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.genrec.test_search import VOCABULARY, WIDE, normalizations, paths_of_a_catalog, request_for
from tests.reference import best_rows, best_rows_under_caps, score_all

seeds = st.integers(0, 999)
weights = st.sampled_from([0.1, 0.5, 0.9])


def random_blend(items: int, rng: np.random.Generator, weight: float, ahead: int) -> tuple[Blend, np.ndarray]:
    """A blend and its shares by rank, float64[items]."""
    ranks = np.sort(rng.choice(items, rng.integers(1, items + 1), replace=False))
    shares = rng.dirichlet(np.full(len(ranks), 0.5)) + 1e-9
    shares /= shares.sum()
    dense = np.zeros(items)
    dense[ranks] = shares
    return Blend(ranks, shares, weight, ahead), dense


class Case:
    """A random request with a blend over a catalog, and every row's true score."""

    def __init__(
        self, paths: list[list[int]], seed: int, weight: float, normalize: str, k: int, beam: int, ahead: int
    ) -> None:
        rng = np.random.default_rng(seed)
        self.trie: TokenTrie = build_trie(paths)
        self.decoder = FakeDecoder(VOCABULARY, seed)
        self.allowed = rng.random(len(paths)) < 0.7
        blend, shares = random_blend(len(paths), rng, weight, ahead)
        self.request = replace(request_for(self.trie, seed, k, beam, self.allowed), blend=blend)
        self.normalize, self.k = normalize, k
        prompt = self.decoder.prompt_seed(self.request.prompt)
        model = np.exp(score_all(self.decoder, prompt, paths, normalize))
        with np.errstate(divide="ignore"):
            self.scores = np.log((1 - weight) * model + weight * shares[self.trie.rank_of_item])

    def answer(self, **change: object) -> tuple[list[int], int]:
        """Rows and the number certified, after checking what must always hold."""
        request = replace(self.request, **change)
        (result,) = search(self.decoder, self.trie, [request], normalize=self.normalize)
        rows = self.trie.item_at_rank[result.ranks].tolist()
        np.testing.assert_allclose(result.scores, self.scores[rows], atol=1e-4)
        assert len(set(rows)) == len(rows) == min(self.k, int(self.allowed.sum()))
        assert self.allowed[rows].all()
        assert rows[: result.certified] == self.expected()[: result.certified]
        return rows, result.certified

    def expected(self) -> list[int]:
        return best_rows(self.scores, self.k, self.allowed)


@settings(max_examples=100, deadline=None)
@given(paths_of_a_catalog, seeds, weights, normalizations, st.integers(1, 8), st.integers(0, 9))
def test_a_wide_beam_equals_exhaustive_search(paths, seed, weight, normalize, k, ahead):
    case = Case(paths, seed, weight, normalize, k, WIDE, ahead)
    rows, certified = case.answer()
    assert rows == case.expected()
    assert certified == len(rows)


@settings(max_examples=100, deadline=None)
@given(
    paths_of_a_catalog,
    seeds,
    weights,
    normalizations,
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 9),
)
def test_narrow_beams_are_honest_and_exact_search_proves(paths, seed, weight, normalize, k, beam, ahead):
    case = Case(paths, seed, weight, normalize, k, beam, ahead)
    case.answer()
    rows, certified = case.answer(exact=True)
    assert rows == case.expected()
    assert certified == len(rows)


@settings(max_examples=60, deadline=None)
@given(paths_of_a_catalog, seeds, weights, st.integers(1, 4), st.booleans())
def test_caps_hold_over_the_mixed_scores(paths, seed, weight, k, exact):
    case = Case(paths, seed, weight, "catalog", k, 2, 1)
    labels = np.random.default_rng(seed).integers(0, 3, len(paths)).astype(np.int32)
    caps = Caps(labels[case.trie.item_at_rank][:, None], np.array([1, 2, 1]))
    request = replace(case.request, caps=caps, exact=exact)
    (result,) = search(case.decoder, case.trie, [request])
    rows = case.trie.item_at_rank[result.ranks].tolist()
    expected = best_rows_under_caps(case.scores, k, case.allowed, labels[:, None], [1, 2, 1])
    assert rows[: result.certified] == expected[: result.certified]
    assert len(rows) == len(expected)
    if exact:
        assert rows == expected


@settings(max_examples=50, deadline=None)
@given(paths_of_a_catalog, seeds, weights)
def test_a_blend_is_a_distribution_and_given_items_get_its_scores(paths, seed, weight):
    case = Case(paths, seed, weight, "catalog", 1, 1, 2)
    assert np.exp(case.scores).sum() == pytest.approx(1)
    (found,) = score_items(case.decoder, case.trie, [case.request], [np.arange(len(paths))])
    np.testing.assert_allclose(found, case.scores[case.trie.item_at_rank], atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(paths_of_a_catalog, seeds)
def test_requests_with_blends_priors_and_none_share_a_batch(paths, seed):
    cases = [Case(paths, seed, weight, "catalog", 3, 2, 1) for weight in (0.2, 0.8)]
    plain = replace(cases[0].request, blend=None)
    prior = Prior(np.random.default_rng(seed).random(len(paths)) + 0.1, 0.5)
    requests = [plain, cases[0].request, replace(plain, prior=prior), cases[1].request]
    requests += [replace(cases[1].request, exact=True), replace(cases[0].request, sample_seed=seed), plain]
    for request, batched in zip(requests, search(cases[0].decoder, cases[0].trie, requests), strict=True):
        (alone,) = search(cases[0].decoder, cases[0].trie, [request])
        assert alone.ranks.tolist() == batched.ranks.tolist()
        np.testing.assert_allclose(alone.scores, batched.scores)
        assert (alone.certified, alone.expansions) == (batched.certified, batched.expansions)


def test_draws_follow_the_mixed_distribution():
    paths = [[1, 1, 2], [1, 1, 3], [1, 2, 0], [2, 4, 4], [2, 4, 4], [3, 0, 0], [3, 1, 0]]
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, 7, spread=1.0)
    blend = Blend(np.array([0, 4, 5]), np.array([0.2, 0.5, 0.3]), 0.6)
    request = SearchRequest(item_prompt(1), k=1, beam=1, blend=blend, allowed=Allowed.build(excluded=[2]))
    model = np.exp(score_all(decoder, decoder.prompt_seed(request.prompt), paths, "catalog"))
    shares = np.zeros(7)
    shares[blend.ranks] = blend.shares
    mixed = 0.4 * model[trie.item_at_rank] + 0.6 * shares
    found = search(decoder, trie, [replace(request, sample_seed=seed) for seed in range(2_000)])
    ranks = np.array([result.ranks[0] for result in found])
    np.testing.assert_allclose([np.exp(one.scores[0]) for one in found], mixed[ranks], rtol=1e-4)
    assert (ranks != 2).all()
    others = np.delete(np.arange(7), 2)
    expected = 2_000 * mixed[others] / mixed[others].sum()
    assert chisquare(np.bincount(ranks, minlength=7)[others], expected).pvalue > 1e-3


def test_by_eye():
    """Two items below token 1, one below token 2, a model that gives every token the same."""
    trie = build_trie([[1, 1], [1, 2], [2, 1]])
    blend = Blend(np.array([0, 1]), np.array([0.25, 0.75]), 0.5)
    (result,) = search(FakeDecoder(3, spread=0.0), trie, [SearchRequest(item_prompt(1), blend=blend)])
    assert result.ranks.tolist() == [1, 0, 2]
    np.testing.assert_allclose(np.exp(result.scores), [0.5 / 4 + 0.5 * 0.75, 0.5 / 4 + 0.5 / 4, 0.5 / 2])
    assert result.certified == 3


def test_an_item_that_the_beam_would_lose_is_found_by_its_share():
    trie = build_trie([[a, b] for a in range(5) for b in range(5)])
    decoder = FakeDecoder(VOCABULARY, 3)
    request = SearchRequest(item_prompt(1), k=1, beam=1)
    (alone,) = search(decoder, trie, [replace(request, k=25, beam=25)])
    worst = int(alone.ranks[-1])
    (result,) = search(
        decoder, trie, [replace(request, blend=Blend(np.array([worst]), np.array([1.0]), 0.9))]
    )
    assert result.ranks.tolist() == [worst]
    assert result.certified == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranks": np.array([1, 0])}, "expected ascending ranks"),
        ({"ranks": np.array([-1, 0])}, "expected ranks >= 0, got -1"),
        ({"ranks": np.array([0])}, "with a share each"),
        ({"shares": np.array([0.9, 0.2])}, "sum to at most 1, got a sum of 1.1"),
        ({"shares": np.array([0.0, 0.2])}, "shares above 0"),
        ({"weight": 1.0}, "expected a weight in"),
        ({"ahead": -1}, "expected ahead >= 0"),
    ],
)
def test_what_is_no_distribution_is_refused(change, message):
    good = {"ranks": np.array([0, 1]), "shares": np.array([0.5, 0.5]), "weight": 0.5, "ahead": 1}
    with pytest.raises(RequestError, match=message):
        Blend(**{**good, **change})


def test_values_are_told_how_many_items_are_wanted():
    """Without ``k`` a blend could not say how many items to score ahead: it was an IndexError, far from the call."""
    blend = Blend(np.array([0]), np.array([1.0]), 0.5)
    with pytest.raises(TypeError, match="'k'"):
        Values([None], [None], [Allowed.build()], 2, blends=[blend])  # type: ignore[call-arg]
    assert Values([None], [None], [Allowed.build()], 2, [1], [blend]).candidates()[1].tolist() == [0]


def test_what_does_not_go_with_a_blend_is_refused():
    trie, decoder = build_trie([[0, 0], [1, 0]]), FakeDecoder(3)
    request = SearchRequest(item_prompt(1), k=1, blend=Blend(np.array([0]), np.array([1.0]), 0.5))
    for change, message in (
        ({"prior": Prior(np.ones(2), 0.5)}, "a prior or a blend"),
        ({"diversity": Diversity(2)}, "diversity or priors"),
        ({"blend": Blend(np.array([2]), np.array([1.0]), 0.5)}, "2 items of the trie, got rank 2"),
    ):
        with pytest.raises(RequestError, match=message):
            search(decoder, trie, [replace(request, **change)])
    with pytest.raises(RequestError, match="priors to be leaf-synchronous"):
        search(decoder, trie, [request], synchronize="token")

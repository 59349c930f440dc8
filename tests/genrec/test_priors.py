"""Priors against exhaustive scoring: what a prefix may be worth is never underestimated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.prior import Prior, best_in_ranges
from genrec.search import SearchRequest, score_items, search
from index.errors import RequestError
from index.trie import TokenTrie, build_trie
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.genrec.test_search import VOCABULARY, WIDE, normalizations, paths_of_a_catalog, request_for
from tests.reference import best_rows, score_all, score_all_mixed

weights = st.sampled_from([-2.0, -0.3, 0.0, 0.2, 0.5, 0.9])
seeds = st.integers(0, 999)


class Case:
    """A random request with a prior over a catalog, and every row's true score."""

    def __init__(
        self, paths: list[list[int]], seed: int, weight: float, normalize: str, k: int, beam: int
    ) -> None:
        rng = np.random.default_rng(seed)
        self.kind = "additive" if weight < 0 or normalize == "vocabulary" or seed % 2 else "mixture"
        by_row = rng.exponential(2.0, len(paths)) * (rng.random(len(paths)) < 0.7)
        by_row[rng.integers(len(paths))] += 1.0  # a mixture needs some mass
        self.trie: TokenTrie = build_trie(paths)
        self.decoder = FakeDecoder(VOCABULARY, seed)
        self.allowed = rng.random(len(paths)) < 0.7
        prior = Prior.of_rows(self.trie, by_row, weight, self.kind, candidates=0)
        self.request = replace(request_for(self.trie, seed, k, beam, self.allowed), prior=prior)
        self.normalize = normalize
        self.k = k
        prompt = self.decoder.prompt_seed(self.request.prompt)
        if self.kind == "mixture":
            self.scores = score_all_mixed(self.decoder, prompt, paths, by_row, weight)
        else:
            self.scores = score_all(self.decoder, prompt, paths, normalize) + weight * by_row

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
@given(paths_of_a_catalog, seeds, weights, normalizations, st.integers(1, 8))
def test_a_wide_beam_equals_exhaustive_search(paths, seed, weight, normalize, k):
    case = Case(paths, seed, weight, normalize, k, WIDE)
    rows, certified = case.answer()
    assert rows == case.expected()
    assert certified == len(rows)


@settings(max_examples=100, deadline=None)
@given(paths_of_a_catalog, seeds, weights, normalizations, st.integers(1, 5), st.integers(1, 3))
def test_narrow_beams_are_honest_and_exact_search_proves(paths, seed, weight, normalize, k, beam):
    case = Case(paths, seed, weight, normalize, k, beam)
    case.answer()
    rows, certified = case.answer(exact=True)
    assert rows == case.expected()
    assert certified == len(rows)


@settings(max_examples=100, deadline=None)
@given(
    paths_of_a_catalog, seeds, weights, normalizations, st.integers(1, 5), st.integers(1, 40), st.booleans()
)
def test_the_priors_best_are_scored_beside_the_beam(paths, seed, weight, normalize, k, candidates, exact):
    case = Case(paths, seed, weight, normalize, k, 1)
    prior = replace(case.request.prior, candidates=candidates)
    rows, certified = case.answer(prior=prior, exact=exact)
    if exact:
        assert rows == case.expected()
        assert certified == len(rows)
    if weight and candidates >= len(paths):  # all items scored: nothing is left to the beam
        assert rows == case.expected()


@settings(max_examples=100, deadline=None)
@given(paths_of_a_catalog, seeds, weights, normalizations)
def test_given_items_get_the_score_a_search_gives_them(paths, seed, weight, normalize):
    case = Case(paths, seed, weight, normalize, 1, 1)
    rng = np.random.default_rng(seed)
    ranks = [rng.integers(0, len(paths), size) for size in (5, 0, 1)]
    scores = score_items(case.decoder, case.trie, [case.request] * 3, ranks, normalize=normalize)
    assert case.decoder.calls <= 2
    for one, found in zip(ranks, scores, strict=True):
        np.testing.assert_allclose(found, case.scores[case.trie.item_at_rank[one]], atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(paths_of_a_catalog, seeds)
def test_a_mixture_is_still_a_distribution(paths, seed):
    case = Case(paths, 2 * seed, 0.4, "catalog", WIDE, WIDE)
    assert np.exp(case.scores).sum() == pytest.approx(1)
    everything = score_items(case.decoder, case.trie, [case.request], [np.arange(len(paths))])
    assert np.exp(everything[0]).sum() == pytest.approx(1, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(paths_of_a_catalog, seeds, st.integers(0, 10))
def test_requests_with_other_priors_and_none_share_a_batch(paths, seed, candidates):
    cases = [Case(paths, seed, weight, "catalog", 3, 2) for weight in (0.5, -1.0, 0.0)]
    priors = [case.request.prior for case in cases]
    requests = [replace(cases[0].request, prior=prior) for prior in (None, *priors)]
    requests += [replace(cases[0].request, prior=replace(priors[0], candidates=candidates), exact=True)]
    for request, batched in zip(requests, search(cases[0].decoder, cases[0].trie, requests), strict=True):
        (alone,) = search(cases[0].decoder, cases[0].trie, [request])
        assert alone.ranks.tolist() == batched.ranks.tolist()
        np.testing.assert_allclose(alone.scores, batched.scores)
        assert (alone.certified, alone.expansions) == (batched.certified, batched.expansions)


def test_a_mixture_by_eye():
    """Two items below token 1, one below token 2, a model that gives every token the same."""
    trie = build_trie([[1, 1], [1, 2], [2, 1]])
    decoder = FakeDecoder(3, spread=0.0)
    request = SearchRequest(item_prompt(1), prior=Prior(np.array([3.0, 0.0, 1.0]), 0.5))
    (result,) = search(decoder, trie, [request])
    assert result.ranks.tolist() == [0, 2, 1]
    # Token 1: half of 1/2 and half of 3/4. Below it: half of 1/2 and half of all.
    np.testing.assert_allclose(np.exp(result.scores), [0.625 * 0.75, 0.375, 0.625 * 0.25])


def test_items_on_one_path_share_by_the_prior():
    trie = build_trie([[1, 1], [1, 1], [2, 1]])
    request = SearchRequest(item_prompt(1), prior=Prior(np.array([3.0, 1.0, 0.0]), 0.5))
    (result,) = search(FakeDecoder(3, spread=0.0), trie, [request])
    by_rank = dict(zip(result.ranks.tolist(), np.exp(result.scores), strict=True))
    assert by_rank[0] == pytest.approx(0.75 * (0.5 / 2 + 0.5 * 3 / 4))
    assert by_rank[1] == pytest.approx(0.75 * (0.5 / 2 + 0.5 * 1 / 4))


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=20), st.data())
def test_best_in_ranges_is_the_maximum_of_each(values, data):
    ends = st.integers(0, len(values) - 1).flatmap(
        lambda start: st.tuples(st.just(start), st.integers(start + 1, len(values)))
    )
    ranges = data.draw(st.lists(ends, max_size=6))
    start, end = np.array(ranges, np.int64).reshape(-1, 2).T
    expected = [max(values[low:high]) for low, high in ranges]
    assert best_in_ranges(np.array(values), start, end).tolist() == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prior(np.array([1.0, np.nan]), 0.5), "1 values that are not finite"),
        (lambda: Prior(np.array([1.0, -1.0]), 0.5), ">= 0 with at least one"),
        (lambda: Prior(np.zeros(2), 0.5), ">= 0 with at least one"),
        (lambda: Prior(np.ones(2), 1.0), r"weight in \[0, 1\), got 1.0"),
        (lambda: Prior(np.ones(2), np.inf, "additive"), "finite prior weight"),
        (lambda: Prior(np.ones(2), 0.5, "product"), "got 'product'"),
        (lambda: Prior(np.ones(2), 0.5, candidates=-1), "candidates >= 0, got -1"),
        (lambda: Prior.of_rows(build_trie([[1], [2]]), np.ones(3), 0.5), r"\[2\], got \(3,\)"),
    ],
)
def test_priors_that_make_no_sense_are_refused(make, message):
    with pytest.raises(RequestError, match=message):
        make()


@pytest.mark.parametrize(
    ("prior", "modes", "message"),
    [
        (Prior(np.ones(3), 0.5), {}, "per item, 2, got 3"),
        (Prior(np.ones(2), 0.5), {"synchronize": "token"}, "priors to be leaf-synchronous"),
        (Prior(np.ones(2), 0.5), {"normalize": "vocabulary"}, "catalog scores for a mixture prior"),
    ],
)
def test_requests_that_do_not_fit_their_prior_are_refused(prior, modes, message):
    with pytest.raises(RequestError, match=message):
        search(FakeDecoder(3), build_trie([[1], [2]]), [SearchRequest(item_prompt(1), prior=prior)], **modes)


def test_ranks_outside_the_catalog_are_refused():
    trie, request = build_trie([[1], [2]]), SearchRequest(item_prompt(1))
    with pytest.raises(RequestError, match=r"ranks in \[0, 2\), got 0 to 2"):
        score_items(FakeDecoder(3), trie, [request], [np.array([0, 2])])
    with pytest.raises(RequestError, match="ranks for 1 requests, got 2"):
        score_items(FakeDecoder(3), trie, [request], [np.array([0]), np.array([0])])


def test_a_prior_over_one_trie_is_never_taken_for_that_over_another() -> None:
    """A server that loads a bundle anew frees a trie, and the next one may lie at the same address."""
    by_row = np.arange(6.0)
    prior = Prior.of_rows(build_trie([[row] for row in range(6)]), by_row, 1.0, "additive")
    rng = np.random.default_rng(0)
    for _ in range(20):
        trie = build_trie([[int(token)] for token in rng.permutation(6)])
        assert prior.over(trie).vector.tolist() == by_row[trie.item_at_rank].tolist()

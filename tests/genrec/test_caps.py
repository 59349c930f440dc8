"""Caps against a greedy pass over exhaustive scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.caps import Caps
from genrec.prior import Prior
from genrec.search import SearchRequest, search
from index.errors import RequestError
from index.item_filter import Allowed
from index.trie import TokenTrie, build_trie
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.genrec.test_search import VOCABULARY, WIDE, normalizations, paths_of_a_catalog, request_for
from tests.reference import best_rows_under_caps, score_all

GROUPS = 4


def random_labels(items: int, rng: np.random.Generator) -> list[list[int]]:
    """None, one or several of a few labels for every row."""
    several = int(rng.integers(1, 3))
    return [sorted({*rng.integers(0, GROUPS, rng.integers(0, several + 1)).tolist()}) for _ in range(items)]


def caps_of(trie: TokenTrie, labels: list[list[int]], most: list[int]) -> Caps:
    """From labels by row."""
    table = np.full((len(labels), max([1, *map(len, labels)])), -1)
    for row, own in enumerate(labels):
        table[row, : len(own)] = own
    return Caps(table[trie.item_at_rank], np.array(most))


class Case:
    """A random request under caps, and the answer a greedy pass gives."""

    def __init__(self, paths: list[list[int]], seed: int, normalize: str, k: int, beam: int) -> None:
        rng = np.random.default_rng(seed)
        self.trie, self.decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
        self.allowed = rng.random(len(paths)) < 0.8
        self.labels = random_labels(len(paths), rng)
        self.most = rng.integers(1, 4, GROUPS).tolist()
        self.normalize = normalize
        self.k = k
        caps = caps_of(self.trie, self.labels, self.most)
        self.request = replace(request_for(self.trie, seed, k, beam, self.allowed), caps=caps)
        prompt = self.decoder.prompt_seed(self.request.prompt)
        self.scores = score_all(self.decoder, prompt, paths, normalize)

    def expected(self) -> list[int]:
        return best_rows_under_caps(self.scores, self.k, self.allowed, self.labels, self.most)

    def answer(self, **change: object) -> tuple[list[int], int]:
        """Rows and the number certified, after checking what must always hold."""
        (result,) = search(
            self.decoder, self.trie, [replace(self.request, **change)], normalize=self.normalize
        )
        rows = self.trie.item_at_rank[result.ranks].tolist()
        assert len(set(rows)) == len(rows)
        assert self.allowed[rows].all()
        for label, most in enumerate(self.most):
            assert sum(label in self.labels[row] for row in rows) <= most
        assert rows[: result.certified] == self.expected()[: result.certified]
        np.testing.assert_allclose(result.scores, self.scores[rows], atol=1e-4)
        # Greedy answers may differ in length where labels overlap, but none stops while an item still fits.
        if len(rows) < self.k:
            fits = [
                row
                for row in np.flatnonzero(self.allowed).tolist()
                if row not in rows
                and all(
                    sum(label in self.labels[r] for r in rows) < self.most[label]
                    for label in self.labels[row]
                )
            ]
            assert fits == []
        return rows, result.certified


@settings(max_examples=100, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), normalizations, st.integers(1, 8))
def test_a_wide_beam_equals_the_greedy_pass(paths, seed, normalize, k):
    case = Case(paths, seed, normalize, k, WIDE)
    rows, certified = case.answer()
    assert rows == case.expected()
    assert certified == len(rows)


@settings(max_examples=150, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), normalizations, st.integers(1, 8), st.integers(1, 3))
def test_narrow_beams_fill_up_and_exact_search_proves(paths, seed, normalize, k, beam):
    case = Case(paths, seed, normalize, k, beam)
    case.answer()
    rows, certified = case.answer(exact=True)
    assert rows == case.expected()
    assert certified == len(rows)


@settings(max_examples=60, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), normalizations, st.integers(1, 8), st.integers(1, 6))
def test_an_exact_search_whose_budget_ends_still_fills_up(paths, seed, normalize, k, budget):
    Case(paths, seed, normalize, k, 1).answer(exact=True, max_expansions=budget)


@settings(max_examples=60, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), st.integers(1, 6), st.sampled_from(["mixture", "additive"]))
def test_caps_and_priors_combine(paths, seed, k, kind):
    case = Case(paths, seed, "catalog", k, 2)
    vector = np.random.default_rng(seed).random(len(paths)) + 0.1
    prior = Prior.of_rows(case.trie, vector, 0.5, kind, candidates=3)
    plain = SearchRequest(case.request.prompt, len(paths), WIDE, prior=prior)
    (everything,) = search(case.decoder, case.trie, [plain])
    case.scores = np.empty(len(paths))
    case.scores[case.trie.item_at_rank[everything.ranks]] = everything.scores
    case.answer(prior=prior)
    rows, certified = case.answer(prior=prior, exact=True)
    assert rows == case.expected()
    assert certified == len(rows)


@settings(max_examples=50, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), normalizations)
def test_a_batch_gives_each_request_its_own_answer(paths, seed, normalize):
    case = Case(paths, seed, normalize, 4, 2)
    other = replace(case.request, caps=Caps(np.zeros((len(paths), 1), int), np.array([2])), k=3)
    requests = [
        case.request,
        replace(case.request, caps=None),
        other,
        replace(case.request, exact=True),
        replace(other, exact=True),
    ]
    together = search(case.decoder, case.trie, requests, normalize=normalize)
    for request, batched in zip(requests, together, strict=True):
        (alone,) = search(case.decoder, case.trie, [request], normalize=normalize)
        assert alone.ranks.tolist() == batched.ranks.tolist()
        assert (alone.certified, alone.expansions) == (batched.certified, batched.expansions)


def test_a_rare_label_is_found_without_walking_the_whole_trie():
    """1,000 items of label 0 and one of label 1, which the model finds unlikely: one of each is wanted."""
    paths = np.stack(np.meshgrid(*[np.arange(10)] * 3, indexing="ij"), -1).reshape(-1, 3)
    trie, decoder = build_trie(paths), FakeDecoder(10, 1, spread=3.0)
    worst = int(search(decoder, trie, [SearchRequest(item_prompt(1), 1000, 1000)])[0].ranks[-1])
    labels = np.zeros((1000, 1), int)
    labels[worst] = 1
    request = SearchRequest(item_prompt(1), k=5, beam=5, caps=Caps(labels, np.array([1, 1])))
    (result,) = search(decoder, trie, [request])
    assert len(result.ranks) == 2  # no third item fits
    assert result.ranks[1] == worst
    assert result.expansions <= 2 * 5 * 3


def test_a_full_label_may_still_be_filled_better():
    """One item of the only label is known at once and fills it; the best one lies deeper."""
    trie = build_trie([[1, 0], [2, 1], [2, 2]])
    decoder = FakeDecoder(3)
    decoder.logits_after = lambda seed, path: np.array([0.0, 0.0, 4.0], np.float32)
    request = SearchRequest(item_prompt(1), k=2, caps=Caps(np.zeros((3, 1), int), np.array([1])), exact=True)
    (result,) = search(decoder, trie, [request])
    assert (result.ranks.tolist(), result.certified) == ([2], 1)


def test_caps_by_eye():
    trie = build_trie([[token] for token in range(6)])
    labels = np.array([[0, -1], [0, 1], [1, -1], [-1, -1], [0, -1], [1, -1]])
    decoder = FakeDecoder(6)
    decoder.logits_after = lambda seed, path: np.arange(6, 0, -1).astype(np.float32)
    request = SearchRequest(item_prompt(1), k=4, caps=Caps(labels, np.array([1, 1])))
    (result,) = search(decoder, trie, [request])
    # 0 takes label 0, so 1 (labels 0 and 1) does not fit; 2 takes label 1; 3 has none; nothing else fits.
    assert (result.ranks.tolist(), result.certified) == ([0, 2, 3], 3)


@pytest.mark.parametrize(
    ("labels", "most", "message"),
    [
        (np.zeros(3, int), np.array([1]), r"labels \[N, F\] below 1, got \(3,\)"),
        (np.full((3, 1), 2), np.array([1, 1]), "below 2, got .* up to 2"),
        (np.zeros((3, 1), int), np.array([0]), "at least 1 item, got 0"),
    ],
)
def test_caps_that_make_no_sense_are_refused(labels, most, message):
    with pytest.raises(RequestError, match=message):
        Caps(labels, most)


def test_caps_of_another_catalog_or_mode_are_refused():
    trie, caps = build_trie([[1], [2]]), Caps(np.zeros((3, 1), int), np.array([1]))
    with pytest.raises(RequestError, match="labels of every item, 2, got 3"):
        search(FakeDecoder(3), trie, [SearchRequest(item_prompt(1), caps=caps)])
    caps = Caps(np.zeros((2, 1), int), np.array([1]))
    with pytest.raises(RequestError, match="caps to be leaf-synchronous"):
        search(FakeDecoder(3), trie, [SearchRequest(item_prompt(1), caps=caps)], synchronize="token")
    nothing = SearchRequest(item_prompt(1), caps=caps, allowed=Allowed.build(np.zeros(2, bool)))
    assert len(search(FakeDecoder(3), trie, [nothing])[0].ranks) == 0

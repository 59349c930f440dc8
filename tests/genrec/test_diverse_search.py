"""Diverse beams: a toy by eye, plain search at one group, and a reference that runs group after group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.caps import Caps
from genrec.prior import Prior
from genrec.search import Diversity, SearchRequest, search
from index.errors import RequestError
from index.trie import build_trie
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.genrec.test_search import VOCABULARY, WIDE, normalizations, paths_of_a_catalog, request_for
from tests.reference import best_rows, dict_trie, score_all


class FavouriteDecoder(FakeDecoder):
    """First codes 0, 1, 2 of probability .8, .15, .05; below each, 0 and 1 of probability .6 and .4."""

    def logits_after(self, prompt_seed: int, path: Sequence[int]) -> np.ndarray:
        return np.log([0.6, 0.4, 1e-9] if path else [0.8, 0.15, 0.05]).astype(np.float32)


class SlowDiverseSearch:
    """One request over a trie of dicts. A group runs to its end before the next begins.

    That is the same search: a group heeds only the groups before it, and of those only choices of prefixes
    that are the beginning of its own.
    """

    def __init__(self, decoder, request, paths, normalize, allowed):
        self.decoder, self.request, self.normalize, self.allowed = decoder, request, normalize, allowed
        self.prompt_seed = decoder.prompt_seed(request.prompt)
        self.paths = [tuple(int(token) for token in path) for path in paths]
        self.trie = dict_trie(paths)
        self.walked: list[tuple[int, ...]] = []  # every choice of the groups before
        self.seen: dict[tuple[int, ...], float] = {}  # every prefix some group could have chosen
        self.chosen: set[tuple[int, ...]] = set()

    def rows(self, prefix):
        return [row for row, path in enumerate(self.paths) if path[: len(prefix)] == prefix]

    def allowed_rows(self, prefix):
        return [row for row in self.rows(prefix) if self.allowed[row]]

    def is_alone(self, prefix):
        return len({self.paths[row] for row in self.rows(prefix)}) == 1

    def log_p(self, prefix, token):
        node = self.trie
        for one in prefix:
            node = node[one]
        logits = self.decoder.logits_after(self.prompt_seed, prefix).astype(np.float64)
        return logits[token] - np.log(
            np.exp(logits[sorted(node)] if self.normalize == "catalog" else logits).sum()
        )

    def next_tokens(self, prefix):
        return sorted({self.paths[row][len(prefix)] for row in self.rows(prefix)})

    def penalty(self, prefix):
        repeats = sum(prefix[: len(choice)] == choice for choice in self.walked)
        return self.request.diversity.strength * repeats

    def run_group(self, beam, width):
        """Items of one group, row to score, from the prefixes it starts at; its choices, all of them."""
        found, choices = {}, []
        while beam:
            candidates = {}
            for prefix, score in beam.items():
                while not self.is_alone(prefix) and len(self.next_tokens(prefix)) == 1:
                    (token,) = self.next_tokens(prefix)
                    score += self.log_p(prefix, token)
                    prefix = (*prefix, token)
                if self.is_alone(prefix):
                    path = self.paths[self.rows(prefix)[0]]
                    score += sum(
                        self.log_p(path[:depth], path[depth]) for depth in range(len(prefix), len(path))
                    )
                    self.end(found, path, score)
                    continue
                for token in self.next_tokens(prefix):
                    child, below = (*prefix, token), score + self.log_p(prefix, token)
                    if not self.allowed_rows(child):
                        continue
                    ends = self.normalize == "catalog" or child in self.paths
                    if self.is_alone(child) and ends:
                        self.end(found, child, below)
                    else:
                        candidates[child] = below
            self.seen |= candidates
            ranked = sorted(
                candidates, key=lambda prefix: self.order(prefix, candidates[prefix]), reverse=True
            )
            beam = {prefix: candidates[prefix] for prefix in ranked[:width]}
            choices.extend(beam)
        self.chosen |= set(choices)
        return found, choices

    def order(self, prefix, score):
        share = 1.0
        if self.request.look_ahead and self.request.allowed.bitmap is not None:
            share = len(self.allowed_rows(prefix)) / len(self.rows(prefix))
        return score + np.log(share) - self.penalty(prefix)

    def end(self, found, prefix, score):
        rows = self.rows(prefix)
        found |= {row: score - np.log(len(rows)) for row in rows if self.allowed[row]}

    def run(self):
        request, groups = self.request, self.request.diversity.groups
        width = -(-max(request.beam, request.k) // groups)
        wanted = min(request.k, int(self.allowed.sum()))
        everything, taken, penalties, found_by = {}, [], [], []
        for group in range(groups):
            found, choices = self.run_group({(): 0.0}, width)
            everything |= found
            missing = wanted - len(everything)
            if group == groups - 1 and missing > 0:
                left_out = set(self.seen) - self.chosen
                best = sorted(left_out, key=lambda one: self.seen[one] - self.penalty(one), reverse=True)
                more, _ = self.run_group({one: self.seen[one] for one in best[:missing]}, max(width, missing))
                found |= more
                everything |= more
            found_by.append(found)
            penalties.append({row: self.penalty(self.paths[row]) for row in found})
            self.walked += choices
        for group in range(groups):
            found, share = found_by[group], request.k // groups + (group < request.k % groups)
            own = sorted(set(found) - set(taken), key=lambda row: (penalties[group][row] - found[row], row))
            taken += own[:share]
        rest = sorted(set(everything) - set(taken), key=lambda row: (-everything[row], row))
        taken += rest[: request.k - len(taken)]
        return sorted(taken, key=lambda row: (-everything[row], row))


diversities = st.builds(Diversity, st.integers(1, 5), st.sampled_from([0.0, 0.3, 1.0, 3.0, 50.0]))


def test_a_toy_by_eye():
    """Of first codes of .8, .15 and .05 the second group takes .15 once a repetition costs log(.8 / .15)."""
    paths = [[a, b] for a in range(3) for b in range(2)]
    requests = [
        SearchRequest(item_prompt(1), k=2, beam=2, diversity=Diversity(2, strength))
        for strength in (0.0, np.log(0.8 / 0.15) - 0.01, np.log(0.8 / 0.15) + 0.01)
    ]
    same, almost, unlike = search(FavouriteDecoder(3), build_trie(paths), requests)
    for result in (same, almost):
        assert result.ranks.tolist() == [0, 1]
        np.testing.assert_allclose(np.exp(result.scores), [0.48, 0.32], rtol=1e-6)
        assert result.certified == 2
    assert unlike.ranks.tolist() == [0, 2]
    np.testing.assert_allclose(np.exp(unlike.scores), [0.48, 0.09], rtol=1e-6)
    assert unlike.certified == 1  # the item of .32 was passed over


def test_a_group_sent_off_does_not_return_at_the_next_decision():
    """Both first codes fit into the second group; .8 * .6 would win below if only the last choice counted."""
    paths = [[a, b, c] for a in range(2) for b in range(2) for c in range(2)]
    request = SearchRequest(item_prompt(1), k=2, beam=4, diversity=Diversity(2, 3.0))
    (result,) = search(FavouriteDecoder(3), build_trie(paths), [request])
    assert [paths[row][0] for row in result.ranks] == [0, 1]


@settings(max_examples=150, deadline=None)
@given(
    paths_of_a_catalog,
    st.integers(0, 999),
    normalizations,
    diversities,
    st.integers(1, 9),
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from([1.0, 0.7, 0.2, 0.0]),
)
def test_group_after_group_finds_the_same_and_every_certificate_holds(
    paths, seed, normalize, diversity, k, beam, look_ahead, share
):
    allowed = np.random.default_rng(seed).random(len(paths)) < share
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    request = request_for(trie, seed, k, beam, None if share == 1.0 else allowed)
    request = replace(request, diversity=diversity, look_ahead=look_ahead)
    (result,) = search(decoder, trie, [request], normalize=normalize)
    rows = trie.item_at_rank[result.ranks].tolist()
    assert rows == SlowDiverseSearch(decoder, request, paths, normalize, allowed).run()
    assert len(set(rows)) == len(rows) == min(k, int(allowed.sum()))
    assert allowed[rows].all()
    scores = score_all(decoder, decoder.prompt_seed(request.prompt), paths, normalize)
    np.testing.assert_allclose(result.scores, scores[rows], atol=1e-5)
    assert rows[: result.certified] == best_rows(scores, k, allowed)[: result.certified]


@pytest.mark.parametrize("seed", range(40))
def test_groups_that_found_the_same_few_items_go_on(seed):
    """Many narrow groups and a mild penalty: the groups overlap, and together find fewer than k items."""
    rng = np.random.default_rng(seed)
    paths = rng.integers(0, 3, (70, rng.integers(3, 6))).tolist()
    allowed = rng.random(70) < rng.choice([0.5, 0.9])
    k = int(rng.integers(8, 16))
    trie, decoder = build_trie(paths), FakeDecoder(3, seed)
    diversity = Diversity(int(rng.integers(4, 9)), float(rng.choice([0.0, 0.2, 1.0])))
    request = replace(request_for(trie, seed, k, 1, allowed), diversity=diversity)
    (result,) = search(decoder, trie, [request], normalize=("catalog", "vocabulary")[seed % 2])
    rows = trie.item_at_rank[result.ranks].tolist()
    reference = SlowDiverseSearch(decoder, request, paths, ("catalog", "vocabulary")[seed % 2], allowed)
    assert rows == reference.run()
    assert len(set(rows)) == k


def test_an_answer_that_was_filled_up_with_the_last_item_is_proven():
    """Nine groups keep one and the same first code; what they come back for counts as found and not as left out."""
    paths = [[a, b] for a in range(3) for b in range(3)]
    request = SearchRequest(item_prompt(1), k=9, beam=1, diversity=Diversity(9, 0.0))
    (result,) = search(FakeDecoder(3), build_trie(paths), [request])
    assert (len(result.ranks), result.certified) == (9, 9)


@settings(max_examples=100, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), normalizations, st.integers(1, 9), st.integers(1, 8))
def test_one_group_is_the_plain_search(paths, seed, normalize, k, beam):
    allowed = np.random.default_rng(seed).random(len(paths)) < 0.7
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    plain = request_for(trie, seed, k, beam, allowed)
    diverse = replace(plain, diversity=Diversity(1, 2.0))
    # In one batch, the other way round too: answers come in the order of the requests.
    first, second, third = search(decoder, trie, [diverse, plain, diverse], normalize=normalize)
    for one in (first, third):
        assert one.ranks.tolist() == second.ranks.tolist()
        np.testing.assert_allclose(one.scores, second.scores)
        assert one.certified == second.certified


@settings(max_examples=60, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), normalizations, st.integers(1, 5))
def test_without_strength_all_groups_find_what_one_does(paths, seed, normalize, groups):
    """Nothing is pruned and nothing penalised, so the answer is the true ranking, and proven."""
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    request = SearchRequest(item_prompt(seed), 6, WIDE * groups, diversity=Diversity(groups, 0.0))
    (result,) = search(decoder, trie, [request], normalize=normalize)
    scores = score_all(decoder, decoder.prompt_seed(request.prompt), paths, normalize)
    assert trie.item_at_rank[result.ranks].tolist() == best_rows(scores, 6)
    assert result.certified == min(6, len(paths))


def test_a_batch_gives_each_request_its_own_answer():
    rng = np.random.default_rng(3)
    paths = rng.integers(0, VOCABULARY, (80, 3))
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, 3)
    requests = [
        replace(
            request_for(trie, b, int(rng.integers(1, 12)), 8, rng.random(80) < rng.choice([0.1, 0.6])),
            diversity=Diversity(int(rng.integers(1, 6)), float(rng.choice([0.0, 1.0, 5.0]))),
        )
        for b in range(12)
    ]
    for request, batched in zip(requests, search(decoder, trie, requests), strict=True):
        (alone,) = search(decoder, trie, [request])
        assert alone.ranks.tolist() == batched.ranks.tolist()
        assert (alone.certified, alone.expansions) == (batched.certified, batched.expansions)


def test_strength_spreads_the_answer_over_first_codes():
    """Under 16 first codes, a model with favourites: the stronger, the more codes among ten items.

    Up to about 3 nats; by then all groups keep apart, and within a group nothing asks for variety.
    """
    paths = np.unique(np.random.default_rng(0).integers(0, 16, (2000, 3)), axis=0)
    trie = build_trie(paths)
    codes = []
    for strength in (0.0, 0.3, 1.0, 3.0):
        requests = [
            SearchRequest(item_prompt(user), 10, 20, diversity=Diversity(5, strength)) for user in range(12)
        ]
        results = search(FakeDecoder(16), trie, requests)
        rows = [trie.item_at_rank[result.ranks] for result in results]
        codes.append(np.mean([len(np.unique(paths[one, 0])) for one in rows]))
    assert codes == sorted(codes), codes
    assert codes[-1] > codes[0] + 2, codes


def test_a_shared_prefix_is_fed_once():
    """Five groups that search alike cost what one of them does."""
    paths = np.random.default_rng(0).integers(0, VOCABULARY, (60, 3))
    trie = build_trie(paths)
    fed = []
    for groups in (1, 5):
        decoder = FakeDecoder(VOCABULARY)
        search(
            decoder, trie, [SearchRequest(item_prompt(1), 1, 4 * groups, diversity=Diversity(groups, 0.0))]
        )
        fed.append((decoder.calls, decoder.tokens_fed))
    assert fed[0] == fed[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diversity": Diversity(0)}, "groups >= 1"),
        ({"diversity": Diversity(2, -0.1)}, "finite strength >= 0"),
        ({"diversity": Diversity(2, float("nan"))}, "strength=nan"),
        ({"diversity": Diversity(2, float("inf"))}, "strength=inf"),
        ({"exact": True}, "diversity or exact search, got both"),
        ({"sample_seed": 1}, "diversity or sampling, got both"),
        ({"caps": Caps(np.zeros((2, 1), np.int64), np.array([1]))}, "diversity or caps, got both"),
        ({"prior": Prior(np.ones(2), 0.5, "additive")}, "diversity or priors, got both"),
    ],
)
def test_wishes_that_contradict_diversity_are_refused(change, message):
    request = replace(SearchRequest(item_prompt(1), diversity=Diversity(2)), **change)
    with pytest.raises(RequestError, match=message):
        search(FakeDecoder(3), build_trie([[1], [2]]), [request])


def test_diversity_is_leaf_synchronous():
    request = SearchRequest(item_prompt(1), diversity=Diversity(2))
    with pytest.raises(RequestError, match="diverse search to be leaf-synchronous"):
        search(FakeDecoder(3), build_trie([[1]]), [request], synchronize="token")

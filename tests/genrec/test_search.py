"""The search against exhaustive scoring, on random tries and a model of random logits."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.prefixes import best_per_request
from genrec.search import SearchRequest, search
from genrec.search_batch import _groups, log_softmax_by_row
from index.errors import RequestError
from index.item_filter import Allowed
from index.trie import TokenTrie, build_trie
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.reference import best_rows, score_all

VOCABULARY = 6
WIDE = 500  # no trie below has as many prefixes, so nothing is ever pruned

titles = st.lists(
    st.lists(st.integers(1, 5), max_size=5).map(lambda path: [*path, 0]), min_size=1, max_size=30
)
codes = st.integers(1, 4).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(0, 5), min_size=length, max_size=length), min_size=1, max_size=30
    )
)
paths_of_a_catalog = titles | codes
normalizations = st.sampled_from(["catalog", "vocabulary"])
synchronizations = st.sampled_from(["leaf", "token"])


def request_for(
    trie: TokenTrie, seed: int, k: int, beam: int, allowed: np.ndarray | None = None
) -> SearchRequest:
    """A request whose allowed rows (bool[N]) are half a bitmap, half an exclusion list."""
    if allowed is None:
        return SearchRequest(item_prompt(seed), k, beam)
    rng = np.random.default_rng(seed)
    by_bitmap = ~allowed & (rng.random(len(allowed)) < 0.5)
    mask = ~by_bitmap[trie.item_at_rank]
    excluded = trie.rank_of_item[np.flatnonzero(~allowed & ~by_bitmap)]
    return SearchRequest(item_prompt(seed), k, beam, Allowed.build(mask, excluded))


@settings(max_examples=150, deadline=None)
@given(
    paths_of_a_catalog, st.integers(0, 999), normalizations, synchronizations, st.integers(1, 12), st.data()
)
def test_a_wide_beam_equals_exhaustive_search(paths, seed, normalize, synchronize, k, data):
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(paths), max_size=len(paths))))
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    request = request_for(trie, seed, k, WIDE, allowed)
    (result,) = search(decoder, trie, [request], normalize=normalize, synchronize=synchronize)
    scores = score_all(decoder, decoder.prompt_seed(request.prompt), paths, normalize)
    rows = trie.item_at_rank[result.ranks].tolist()
    assert rows == best_rows(scores, k, allowed)
    np.testing.assert_allclose(result.scores, scores[rows], atol=1e-5)
    assert result.certified == len(rows)


@settings(max_examples=100, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), synchronizations)
def test_probabilities_sum_to_one_over_the_catalog(paths, seed, synchronize):
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    (result,) = search(decoder, trie, [SearchRequest(item_prompt(seed), WIDE, WIDE)], synchronize=synchronize)
    assert len(result.ranks) == len(paths)
    assert np.exp(result.scores).sum() == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=150, deadline=None)
@given(
    paths_of_a_catalog,
    st.integers(0, 999),
    normalizations,
    synchronizations,
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_a_certificate_is_never_wrong_and_every_answer_is_in_the_catalog(
    paths, seed, normalize, synchronize, k, beam
):
    rng = np.random.default_rng(seed)
    allowed = rng.random(len(paths)) < 0.7
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    request = request_for(trie, seed, k, beam, allowed)
    (result,) = search(decoder, trie, [request], normalize=normalize, synchronize=synchronize)
    scores = score_all(decoder, decoder.prompt_seed(request.prompt), paths, normalize)
    rows = trie.item_at_rank[result.ranks].tolist()
    assert rows[: result.certified] == best_rows(scores, k, allowed)[: result.certified]
    assert len(set(rows)) == len(rows)
    assert allowed[rows].all()
    np.testing.assert_allclose(result.scores, scores[rows], atol=1e-5)
    if synchronize == "leaf":  # never short, whatever the beam
        assert len(rows) == min(k, int(allowed.sum()))


@settings(max_examples=150, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), normalizations, st.integers(1, 6), st.integers(1, 4))
def test_exact_search_proves_the_exhaustive_answer(paths, seed, normalize, k, beam):
    allowed = np.random.default_rng(seed).random(len(paths)) < 0.7
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    request = replace(request_for(trie, seed, k, beam, allowed), exact=True)
    (result,) = search(decoder, trie, [request], normalize=normalize)
    scores = score_all(decoder, decoder.prompt_seed(request.prompt), paths, normalize)
    rows = trie.item_at_rank[result.ranks].tolist()
    assert rows == best_rows(scores, k, allowed)
    assert result.certified == len(rows)


@settings(max_examples=100, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), normalizations, st.integers(1, 8))
def test_an_exact_search_whose_budget_ends_is_complete_and_honest(paths, seed, normalize, budget):
    k = 3
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    request = replace(request_for(trie, seed, k, 2), exact=True, max_expansions=budget)
    (result,) = search(decoder, trie, [request], normalize=normalize)
    scores = score_all(decoder, decoder.prompt_seed(request.prompt), paths, normalize)
    rows = trie.item_at_rank[result.ranks].tolist()
    assert len(rows) == min(k, len(paths))
    assert rows[: result.certified] == best_rows(scores, k)[: result.certified]
    assert result.expansions <= budget + k * trie.longest_path


def test_exact_and_beam_requests_share_a_batch():
    paths = np.random.default_rng(0).integers(0, VOCABULARY, (60, 3))
    trie, decoder = build_trie(np.unique(paths, axis=0)), FakeDecoder(VOCABULARY, 5)
    beam = SearchRequest(item_prompt(1), k=5, beam=5)
    exact = replace(beam, exact=True)
    together = search(decoder, trie, [exact, beam, exact])
    alone = [search(decoder, trie, [one])[0] for one in (exact, beam, exact)]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.ranks, other.ranks)
        assert (one.certified, one.expansions) == (other.certified, other.expansions)
    assert together[0].certified == 5


@settings(max_examples=60, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), normalizations, synchronizations)
def test_a_batch_gives_each_request_its_own_answer(paths, seed, normalize, synchronize):
    rng = np.random.default_rng(seed)
    trie, decoder = build_trie(paths), FakeDecoder(VOCABULARY, seed)
    requests = [
        request_for(
            trie, seed + b, int(rng.integers(1, 6)), int(rng.integers(1, 6)), rng.random(len(paths)) < 0.6
        )
        for b in range(4)
    ]
    together = search(decoder, trie, requests, normalize=normalize, synchronize=synchronize)
    for request, batched in zip(requests, together, strict=True):
        (alone,) = search(decoder, trie, [request], normalize=normalize, synchronize=synchronize)
        assert alone.ranks.tolist() == batched.ranks.tolist()
        np.testing.assert_allclose(alone.scores, batched.scores)
        assert (alone.certified, alone.expansions) == (batched.certified, batched.expansions)


@settings(max_examples=50, deadline=None)
@given(paths_of_a_catalog, st.integers(0, 999), normalizations, synchronizations, st.integers(1, 60))
def test_a_batch_that_is_fed_in_groups_gives_the_same_answers(paths, seed, normalize, synchronize, most):
    """So little memory is allowed that calls hold some requests alone, down to one each."""
    trie = build_trie(paths)
    requests = [SearchRequest(item_prompt(seed + b), 1 + b, 2 + b) for b in range(5)]
    decoder = FakeDecoder(VOCABULARY, seed)
    together = search(decoder, trie, requests, normalize=normalize, synchronize=synchronize)
    with mock.patch("genrec.search_batch.MOST_SCORES", most):
        in_groups = search(decoder, trie, requests, normalize=normalize, synchronize=synchronize)
    for one, other in zip(together, in_groups, strict=True):
        assert one.ranks.tolist() == other.ranks.tolist()
        assert one.scores.tolist() == other.scores.tolist()
        assert (one.certified, one.model_calls) == (other.certified, other.model_calls)


def test_groups_hold_what_memory_allows():
    """Rows times what they see times requests, padded to the most of the group: at most twelve."""
    with mock.patch("genrec.search_batch.MOST_SCORES", 12):
        assert list(_groups(np.array([2, 2, 1, 4]), np.array([3, 3, 2, 2]))) == [(0, 2), (2, 3), (3, 4)]
        assert list(_groups(np.array([50, 0, 1]), np.array([50, 6, 1]))) == [(0, 1), (1, 3)]
        assert list(_groups(np.array([1, 1]), np.array([1, 1]))) == [(0, 2)]


def test_a_forced_tail_costs_no_call_under_catalog_normalisation():
    """Two titles that part at their first token: one prefill decides, the tails are free."""
    trie = build_trie([[1, 2, 3, 4, 0], [2, 2, 3, 4, 0]])
    decoder = FakeDecoder(VOCABULARY)
    (result,) = search(decoder, trie, [SearchRequest(item_prompt(1))])
    assert (decoder.calls, decoder.tokens_fed, result.model_calls) == (1, 0, 1)
    (result,) = search(decoder, trie, [SearchRequest(item_prompt(1))], normalize="vocabulary")
    assert (decoder.calls, decoder.tokens_fed) == (
        3,
        8,
    )  # one prefill, one pass for both tails: all but the ends


def test_a_shared_stretch_is_fed_in_one_call():
    trie = build_trie([[1, 2, 3, 4, 0], [1, 2, 3, 5, 0], [2, 0]])
    decoder = FakeDecoder(VOCABULARY)
    search(decoder, trie, [SearchRequest(item_prompt(1))])
    assert (decoder.calls, decoder.tokens_fed) == (2, 3)


def test_items_of_one_path_share_its_probability():
    trie = build_trie([[1, 0], [1, 0], [2, 0]])
    (result,) = search(FakeDecoder(VOCABULARY), trie, [SearchRequest(item_prompt(1), allowed=Allowed())])
    by_row = dict(zip(trie.item_at_rank[result.ranks].tolist(), result.scores, strict=True))
    assert by_row[0] == by_row[1]
    assert np.exp([by_row[0], by_row[1], by_row[2]]).sum() == pytest.approx(1)


def test_a_filter_masks_but_does_not_renormalise():
    trie = build_trie([[1, 0], [2, 0], [3, 0]])
    everything, filtered = search(
        FakeDecoder(VOCABULARY),
        trie,
        [
            SearchRequest(item_prompt(1)),
            SearchRequest(item_prompt(1), allowed=Allowed.build(excluded=np.array([0]))),
        ],
    )
    expected = [s for r, s in zip(everything.ranks, everything.scores, strict=True) if r != 0]
    np.testing.assert_array_equal(filtered.scores, expected)


@pytest.mark.parametrize("synchronize", ["leaf", "token"])
def test_nothing_allowed_is_an_empty_answer(synchronize):
    trie = build_trie([[1, 0], [2, 0]])
    nothing = Allowed.build(np.zeros(2, bool))
    (result,) = search(
        FakeDecoder(3), trie, [SearchRequest(item_prompt(1), allowed=nothing)], synchronize=synchronize
    )
    assert (len(result.ranks), result.certified) == (0, 0)


def test_no_request_asks_nothing_of_the_model():
    decoder = FakeDecoder(3)
    assert search(decoder, build_trie([[1]]), []) == []
    assert decoder.calls == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k >= 1"),
        ({"beam": 0}, "beam >= 1"),
        ({"normalize": "both"}, "catalog, vocabulary, got 'both'"),
        ({"synchronize": "word"}, "leaf, token, got 'word'"),
        ({"exact": True, "synchronize": "token"}, "leaf-synchronous"),
    ],
)
def test_wrong_requests_are_refused(change, message):
    request = SearchRequest(
        item_prompt(1), **{key: change[key] for key in change if key in ("k", "beam", "exact")}
    )
    modes = {key: change[key] for key in change if key in ("normalize", "synchronize")}
    with pytest.raises(RequestError, match=message):
        search(FakeDecoder(3), build_trie([[1]]), [request], **modes)


def test_best_per_request_breaks_ties_by_position():
    request = np.array([0, 0, 0, 0, 2, 2])
    score = np.array([1.0, 2.0, 1.0, 1.0, 5.0, 6.0])
    assert best_per_request(request, score, np.array([3, 9, 1])).tolist() == [0, 1, 2, 5]


def test_log_softmax_by_row_normalises_each_row():
    log_probability = log_softmax_by_row(np.array([0.0, 0.0, 1e4, -1e4], np.float32), np.array([0, 0, 3, 3]))
    np.testing.assert_allclose(log_probability, [np.log(0.5), np.log(0.5), 0.0, -2e4])

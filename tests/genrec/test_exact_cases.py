"""A thousand random exact searches against scoring every item: trie, model, filter, k, beam, normalisation.

Fifty catalogs of twenty requests each. Every request is searched thrice in one batch: exactly, exactly with a
budget, and by a plain beam. The seed of a catalog is the name of its test.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from genrec.search import SearchRequest, search
from index.item_filter import Allowed
from index.trie import TokenTrie, build_trie
from index.types import BoolArray
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.genrec.test_search import request_for
from tests.reference import best_rows, score_all

CATALOGS = 50
REQUESTS = 20


def random_catalog(rng: np.random.Generator, vocabulary: int) -> list[list[int]]:
    """Codes of one length, or titles of any length that end in 0; some twice, some the beginning of others."""
    size = int(rng.integers(1, 45))
    if rng.random() < 0.5:
        return rng.integers(0, vocabulary, (size, rng.integers(1, 5))).tolist()
    titles = [rng.integers(1, vocabulary, rng.integers(0, 6)).tolist() for _ in range(size)]
    for title in [titles[i] for i in rng.integers(0, size, size // 4)]:
        titles.append(title[: rng.integers(0, len(title) + 1)])  # all of it: a duplicate
    return [[*title, 0] for title in titles]


def random_mask(rng: np.random.Generator, items: int) -> BoolArray:
    """bool[N] by row: everything, half, few, one, nothing."""
    share = rng.choice([1.0, 0.5, 0.1, 0.0])
    mask = rng.random(items) < share
    if share == 0.0 and rng.random() < 0.6:
        mask[rng.integers(items)] = True
    return mask


def random_request(rng: np.random.Generator, trie: TokenTrie, prompt: int) -> tuple[SearchRequest, BoolArray]:
    """A request and the rows it may get, bool[N]."""
    items = len(trie)
    k = int(rng.choice([rng.integers(1, 4), rng.integers(4, 12), items + rng.integers(1, 5)]))
    beam = int(rng.choice([1, 2, 5, 20]))
    kind = rng.choice(["unfiltered", "mask", "exclusions"], p=[0.25, 0.55, 0.2])
    allowed = random_mask(rng, items) if kind == "mask" else np.ones(items, bool)
    if kind == "mask":
        request = request_for(trie, prompt, k, beam, allowed)
    elif kind == "exclusions":
        seen = rng.integers(0, items, rng.integers(0, items + 1))
        allowed[trie.item_at_rank[seen]] = False
        request = SearchRequest(item_prompt(prompt), k, beam, Allowed.build(excluded=seen))
    else:
        request = SearchRequest(item_prompt(prompt), k, beam)
    return replace(request, look_ahead=bool(rng.random() < 0.5)), allowed


@pytest.mark.parametrize("seed", range(CATALOGS))
def test_exact_search_equals_brute_force_and_no_certificate_is_wrong(seed):
    rng = np.random.default_rng([2026, seed])
    vocabulary = int(rng.integers(2, 8))
    paths = random_catalog(rng, vocabulary)
    trie = build_trie(paths)
    decoder = FakeDecoder(vocabulary, seed, spread=float(rng.choice([0.3, 1.0, 3.0])))
    normalize = "catalog" if seed % 2 else "vocabulary"
    cases = [random_request(rng, trie, prompt) for prompt in range(REQUESTS)]
    exact = [replace(request, exact=True) for request, _ in cases]
    budget = [replace(request, max_expansions=int(rng.integers(1, 12))) for request in exact]
    results = search(
        decoder, trie, [*exact, *budget, *(request for request, _ in cases)], normalize=normalize
    )
    for number, (request, allowed) in enumerate(cases):
        scores = score_all(decoder, decoder.prompt_seed(request.prompt), paths, normalize)
        truth = best_rows(scores, request.k, allowed)
        for result in results[number::REQUESTS]:
            rows = trie.item_at_rank[result.ranks].tolist()
            assert rows[: result.certified] == truth[: result.certified], f"request {number}"
            assert len(rows) == len(set(rows)) == len(truth), f"request {number}"
            assert allowed[rows].all(), f"request {number}"
            np.testing.assert_allclose(result.scores, scores[rows], atol=1e-5)
        proven = results[number]
        assert trie.item_at_rank[proven.ranks].tolist() == truth, f"request {number}"
        assert proven.certified == len(truth), f"request {number}"

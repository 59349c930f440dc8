"""A lane: whoever joins and leaves, each gets the answer of a search of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from genrec.search import SearchRequest, search
from index.errors import DecoderError
from index.item_filter import Allowed
from index.trie import build_trie
from serving.batching import Lane
from tests.fake_decoder import FakeDecoder, item_prompt

PATHS = [[a, b, c] for a in range(4) for b in range(4) for c in range(4) if (a + b + c) % 3]
TRIE = build_trie(PATHS)


def a_request(seed: int) -> SearchRequest:
    rng = np.random.default_rng(seed)
    mask = rng.random(len(TRIE)) < 0.5 if seed % 3 else None
    return SearchRequest(item_prompt(seed), k=4, beam=3, allowed=Allowed.build(mask, rng.integers(0, 9, 2)))


def drain(lane: Lane[int]) -> dict[int, list[int]]:
    answers = {}
    while len(lane):
        answers |= {name: result.ranks.tolist() for name, result in lane.step()}
    return answers


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
def test_everybody_gets_the_answer_of_a_search_alone(normalize):
    decoder = FakeDecoder(4)
    lane: Lane[int] = Lane(decoder, TRIE, normalize)
    answers: dict[int, list[int]] = {}
    for first in range(0, 12, 2):  # two join before every step
        lane.join([first, first + 1], [a_request(first), a_request(first + 1)])
        answers |= {name: result.ranks.tolist() for name, result in lane.step()}
    assert len(answers) < 12
    answers |= drain(lane)
    for seed, ranks in answers.items():
        (alone,) = search(decoder, TRIE, [a_request(seed)], normalize=normalize)
        assert ranks == alone.ranks.tolist()
    assert sorted(answers) == list(range(12))


def test_the_dropped_get_no_answer_and_the_others_theirs():
    decoder = FakeDecoder(4)
    lane: Lane[int] = Lane(decoder, TRIE, "catalog")
    lane.join(range(5), [replace(a_request(seed), exact=True) for seed in range(5)])
    assert lane.drop(lambda name: False) == []
    assert lane.drop(lambda name: name in (1, 3)) == [1, 3]
    assert lane.names == [0, 2, 4]
    answers = drain(lane)
    assert sorted(answers) == [0, 2, 4]
    for seed, ranks in answers.items():
        assert ranks == search(decoder, TRIE, [replace(a_request(seed), exact=True)])[0].ranks.tolist()
    assert lane.step() == []


def test_all_dropped_leaves_an_empty_lane_that_can_be_joined_again():
    lane: Lane[str] = Lane(FakeDecoder(4), TRIE, "catalog")
    lane.join(["a"], [a_request(1)])
    assert lane.drop(lambda name: True) == ["a"]
    assert (len(lane), lane.step()) == (0, [])
    lane.join(["b"], [a_request(2)])
    assert lane.clear() == ["b"]
    lane.join([], [])
    assert len(lane) == 0


def test_a_prompt_the_model_cannot_take_lets_nobody_join():
    class Picky(FakeDecoder):
        def prefill(self, prompts):
            if len(prompts) == 2:
                raise DecoderError("expected one prompt, got two")
            return super().prefill(prompts)

    lane: Lane[int] = Lane(Picky(4), TRIE, "catalog")
    lane.join([0], [a_request(0)])
    with pytest.raises(DecoderError, match="got two"):
        lane.join([1, 2], [a_request(1), a_request(2)])
    assert lane.names == [0]
    assert sorted(drain(lane)) == [0]

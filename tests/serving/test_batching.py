"""A lane: whoever joins and leaves, each gets the answer of a search of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from genrec.search import SearchRequest, search
from index.errors import DecoderError
from index.item_filter import Allowed
from index.trie import build_trie
from serving.batching import MOST_HELD, Joining, Lane
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


def test_all_who_find_room_join_at_once():
    joining = Joining(16)
    assert [joining.now(waiting, 16) for waiting in (1, 5, 16, 40)] == [1, 5, 16, 16]
    assert joining.now(3, 3) == 3  # little room, and nobody is left waiting for some
    assert joining.now(0, 16) == joining.now(9, 0) == 0


def test_where_more_wait_they_wait_for_half_a_batch():
    """Once in threes and fours, a full server stayed there: five prefills of three for one of sixteen."""
    joining = Joining(16)
    ends = {1: 3, 2: 3, 3: 3, 4: 3, 5: 4}  # of those that run, by the step in which they end
    running, joined = 16, []
    for step in range(1, 40):
        running -= ends.pop(step, 0)
        came = joining.now(100, 16 - running)
        if came:
            joined.append(came)
            running += came
            ends[step + 5] = came  # each runs for five steps
    assert joined[0] == 9  # three steps' worth
    assert min(joined) >= 7


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_nobody_waits_for_longer_than_a_few_steps(batch):
    joining = Joining(batch)
    for room in range(1, batch + 1):
        came = [joining.now(100, room) for _ in range(3 * (MOST_HELD + 1))]
        gaps = np.diff(np.flatnonzero([-1, *came]))
        assert max(gaps) <= MOST_HELD + 1
        assert set(came) <= {0, room}

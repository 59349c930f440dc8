"""What a recommender may be asked beyond a ranking: caps over fields, priors, samples."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from genrec.recommender import Recommendation, Recommender
from genrec.search import Diversity
from genrec.tasks import TaskDefaults
from genrec.wishes import Wishes
from index.errors import RequestError
from index.maintenance import remove_items
from tests.fake_decoder import FakeDecoder
from tests.toy import ITEMS, toy_index


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    index = toy_index()
    return Recommender(index, FakeDecoder(sum(index.level_sizes)), TaskDefaults(beam=5))


def ids(answer: Recommendation) -> list[str]:
    return [item.item_id for item in answer.items]


def test_at_most_so_many_per_genre(recommender):
    frame = recommender.index.catalog.frame
    genre = dict(zip(frame["item_id"], frame["genre"], strict=True))
    answer = recommender.recommend(["i3"], k=8, max_per={"genre": 2})
    assert Counter(genre[one] for one in ids(answer)) == dict.fromkeys(
        ("comedy", "drama", "horror", "western"), 2
    )
    everything = ids(recommender.recommend(["i3"], k=ITEMS))
    greedy: list[str] = []
    for one in everything:
        if sum(genre[other] == genre[one] for other in greedy) < 2:
            greedy.append(one)
    exact = recommender.recommend(["i3"], k=6, max_per={"genre": 2}, exact=True)
    assert ids(exact) == greedy[:6]
    assert exact.certified == 6
    few = recommender.recommend(["i3"], k=10, max_per={"genre": 1})
    assert len(few.items) == 4
    assert "4 of 10 items" in few.notes[0]
    with pytest.raises(RequestError, match="got 'colour'"):
        recommender.recommend(["i3"], max_per={"colour": 1})


def test_a_prior_by_id_and_by_row_is_the_same(recommender):
    by_row = np.zeros(ITEMS)
    by_row[[5, 9]] = 1.0, 3.0
    by_id = recommender.prior({"i5": 1.0, "i9": 3.0, "nobody": 7.0}, 0.9)
    answer = recommender.recommend(["i3"], prior=by_id)
    assert answer.items == recommender.recommend(["i3"], prior=recommender.prior(by_row, 0.9)).items
    assert ids(answer)[:2] == ["i9", "i5"]
    everything = recommender.recommend(["i3"], k=ITEMS, prior=by_id, exclude_seen=False)
    assert sum(item.probability for item in everything.items) == pytest.approx(1, abs=1e-5)


def test_an_additive_prior_shows_in_the_score_and_is_no_probability(recommender):
    plain = {item.item_id: item.score for item in recommender.recommend(["i3"], k=ITEMS).items}
    liked = recommender.recommend(["i3"], k=3, prior=recommender.prior({"i7": 2.0}, 50.0, "additive"))
    assert liked.items[0].item_id == "i7"
    assert liked.items[0].score == pytest.approx(plain["i7"] + 100)
    assert {item.probability for item in liked.items} == {None}


@pytest.mark.parametrize("kind", ["mixture", "additive"])
@pytest.mark.parametrize("wishes", [{}, {"exact": True}, {"beam": 1, "where": "year > 1981"}])
def test_removed_items_stay_out_however_a_prior_loves_them(recommender, kind, wishes):
    """The prior's best items are scored whatever the beam finds: removed ones must not be among them."""
    less = remove_items(recommender.index, ["i5", "i6"])
    asked = Recommender(less, recommender.decoder, recommender.defaults)
    loved = {"i5": 100.0, "i6": 90.0, "i7": 20.0}
    for values in (loved, np.array([loved.get(one, 0.0) for one in less.catalog.item_ids])):
        for candidates in (1, 2, 50):
            prior = asked.prior(values, 0.9, kind, candidates=candidates)
            answer = asked.recommend(["i3"], k=6, prior=prior, **wishes)
            assert len(answer.items) == 6
            assert not {"i3", "i5", "i6"} & set(ids(answer))
            assert "i7" in ids(answer)  # the best that may come is a candidate, even the only one
    if kind == "mixture":
        drawn = asked.recommend(["i3"], k=ITEMS, prior=asked.prior(loved, 0.9), sample=True)
        assert set(ids(drawn)) == set(less.catalog.item_ids) - {"i3", "i5", "i6"}


def test_samples_repeat_by_seed_and_differ_by_history(recommender):
    def drawn(history: list[str], seed: int) -> list[str]:
        return ids(recommender.recommend(history, k=5, sample=True, seed=seed))

    assert drawn(["i3"], 1) == drawn(["i3"], 1)
    assert len({tuple(drawn(["i3"], seed)) for seed in range(10)}) > 5
    together = recommender.recommend_batch([["i3"], ["i4"], []], Wishes(k=5, sample=True, seed=4))
    assert [ids(one) for one in together] == [drawn(one, 4) for one in (["i3"], ["i4"], [])]
    answer = recommender.recommend(["i3"], k=5, sample=True)
    assert answer.certified == 5
    assert "i3" not in ids(answer)
    scores = {item.item_id: item.score for item in recommender.recommend(["i3"], k=ITEMS).items}
    assert [item.score for item in answer.items] == pytest.approx([scores[one] for one in ids(answer)])


def test_groups_that_keep_apart_recommend_other_items(recommender):
    plain = recommender.recommend(["i3"], k=6, beam=6)
    one_group = recommender.recommend(["i3"], k=6, beam=6, diversity=Diversity(groups=1, strength=5.0))
    assert ids(one_group) == ids(plain)
    apart = recommender.recommend(["i3"], k=6, beam=6, diversity=Diversity(groups=3, strength=5.0))
    assert len(apart.items) == 6
    assert ids(apart) != ids(plain)
    scores = {item.item_id: item.score for item in recommender.recommend(["i3"], k=ITEMS, exact=True).items}
    for item in apart.items:
        assert item.score == pytest.approx(scores[item.item_id])  # the model's, without the penalty
    with pytest.raises(RequestError, match="got groups=0"):
        recommender.recommend(["i3"], diversity=Diversity(groups=0))

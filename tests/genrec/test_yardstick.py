"""All figures of one system, the hard cases by hand, and scikit-learn's ranking metrics beside ours."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from genrec.evaluation.ranking import Ranked
from genrec.evaluation.segments import Segments
from genrec.evaluation.yardstick import Yardstick
from index.build import training_part
from index.histories import Cases, Histories, leave_one_out
from tests.toy import toy_histories, toy_index


@pytest.fixture(scope="module")
def yardstick() -> Yardstick:
    histories = toy_histories()
    return Yardstick.of(toy_index(), leave_one_out(histories, "test"), training_part(histories, "last-two"))


def test_sparse_users_and_cold_targets_by_eye() -> None:
    # Training events per user: 5, 6, 1; item 9 is in no training event.
    events = [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5], [6]]
    offsets = np.cumsum([0, *map(len, events)]).astype(np.int64)
    training = Histories(["a", "b", "c"], offsets, np.concatenate(events).astype(np.int32), None)
    user, target = np.array([0, 1, 2, 2]), np.array([9, 9, 6, 5], np.int32)
    cases = Cases(user, np.array([0, 1, 2, 3, 4]), np.zeros(4, np.int32), target)
    found = Segments.of(cases, training, items=10)
    assert found.sparse.tolist() == [True, False, True, True]
    assert found.cold.tolist() == [True, True, False, False]


def test_ranking_metrics_are_scikit_learns(yardstick: Yardstick) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((len(yardstick.cases), yardstick.items))
    ranked = np.argsort(-scores, axis=1).astype(np.int32)
    target = yardstick.cases.target
    truth = np.eye(yardstick.items)[target]
    figures = yardstick.figures(Ranked(ranked))
    every = np.arange(yardstick.items)
    for k in (5, 10):
        assert figures[f"ndcg@{k}"] == pytest.approx(ndcg_score(truth, scores, k=k))
        assert figures[f"recall@{k}"] == pytest.approx(
            top_k_accuracy_score(target, scores, k=k, labels=every)
        )
    assert figures["recall@40"] == 1.0
    sparse = yardstick.segments.sparse
    assert figures["sparse_ndcg@10"] == pytest.approx(ndcg_score(truth[sparse], scores[sparse], k=10))


def test_what_cannot_be_said_is_not_there(yardstick: Yardstick) -> None:
    ranked = np.full((len(yardstick.cases), 10), -1, np.int32)
    figures = yardstick.figures(Ranked(ranked))
    assert not {"novelty@10", "ece@10", "list_ece@10", "recall@40", "diversity@40"} & figures.keys()
    nobody = np.zeros(len(yardstick.cases), np.bool_)
    without = dataclasses.replace(yardstick, segments=Segments(nobody, nobody))
    assert not [name for name in without.figures(Ranked(ranked)) if name.startswith(("sparse", "cold"))]


def test_probabilities_are_judged_where_there_are_any(yardstick: Yardstick) -> None:
    ranked = np.full((len(yardstick.cases), 10), -1, np.int32)
    ranked[:, 0] = yardstick.cases.target
    shares = np.zeros(ranked.shape)
    shares[:, 0] = 0.75
    figures = yardstick.figures(Ranked(ranked, shares=shares))
    assert figures["ece@10"] == pytest.approx(0.25)
    assert figures["list_ece@10"] == pytest.approx(0.25)

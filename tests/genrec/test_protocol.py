from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from genrec.evaluation.protocol import baseline_fits, evaluate, evaluate_baselines, rank_cases
from genrec.evaluation.ranking import ranked_cases
from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from genrec.wishes import Wishes
from index.build import IndexSettings, build_index, training_part
from index.errors import HistoryError, LeakageError
from index.histories import Histories, leave_one_out, temporal_split
from index.leakage import event_hashes
from tests.fake_decoder import FakeDecoder
from tests.toy import toy_catalog, toy_histories, toy_index


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    index = toy_index()
    return Recommender(index, FakeDecoder(sum(index.level_sizes)), TaskDefaults(beam=10))


def timed(histories: Histories) -> Histories:
    """The same events, one second apart, users one after another every hundred seconds."""
    times = np.concatenate([100.0 * u + np.arange(n) for u, n in enumerate(histories.lengths)])
    return dataclasses.replace(histories, timestamps=times)


def test_every_system_ranks_the_same_cases(recommender):
    histories = toy_histories()
    told = []
    result = evaluate(
        recommender,
        recommender.index.trained_events,
        histories,
        progress=lambda system, done, total: told.append((system, done, total)),
    )
    assert result.users == len(histories)
    assert list(result.systems) == [
        "genrec", "popularity", "bm25-last", "bm25-last5", "text-last", "cooccurrence", "cooccurrence+text",
    ]  # fmt: skip
    assert result.systems["genrec"]["validity"] == 1.0
    # The next item always follows the last one, so counting pairs must find it.
    assert result.systems["cooccurrence"]["recall@10"] > 0.9
    assert told[0][0] == "genrec"
    assert all(done <= total == len(histories) for _, done, total in told)


def test_ranking_in_batches_is_ranking_one_by_one(recommender):
    cases = leave_one_out(toy_histories(), "test").take(np.arange(6))
    ranked = rank_cases(recommender, cases, k=12)
    for case in range(len(cases)):
        (alone,) = recommender.search_rows([cases.history_of(case)], Wishes(k=12))
        assert ranked[case].tolist() == recommender.rows_of(alone).tolist()
        assert not set(ranked[case]) & set(cases.history_of(case).tolist())


def test_baselines_alone_give_the_same_rows(recommender):
    histories, index = toy_histories(), recommender.index
    table = evaluate(recommender, index.trained_events, histories, users=30)
    alone = evaluate_baselines(baseline_fits(index), index, histories, users=30)
    assert list(alone.systems) == list(table.systems)[1:]
    assert alone.systems["cooccurrence+text"] == table.systems["cooccurrence+text"]
    assert (alone.users, alone.sparse_users) == (table.users, table.sparse_users)
    assert alone.lists["popularity"].rows.tolist() == table.lists["popularity"].rows.tolist()
    assert list(alone.calibration) == []


def test_catalog_scores_are_probabilities_and_others_are_not(recommender):
    cases = leave_one_out(toy_histories(), "test").take(np.arange(5))
    shares = ranked_cases(recommender, cases, k=50).shares  # 40 items
    assert shares is not None
    seen = np.array([len(set(cases.history_of(case).tolist())) for case in range(5)])
    assert (shares > 0).sum(1).tolist() == (40 - seen).tolist()  # all but what the history has; padding is 0
    assert (shares.sum(1) < 1).all()
    assert (np.diff(shares, axis=1) <= 0).all()
    assert ranked_cases(recommender, cases, k=5, wishes=Wishes(normalize="vocabulary")).shares is None


def test_probabilities_are_judged(recommender):
    result = evaluate(recommender, recommender.index.trained_events, toy_histories(), users=40)
    said = result.calibration["genrec"]
    assert sum(one.count for one in said.lists.bins) == 40
    assert sum(one.count for one in said.items.bins) == 400
    assert result.systems["genrec"]["ece@10"] == said.items.error
    assert result.sparse_users > 0


def test_fewer_answers_than_places_are_padded(recommender):
    cases = leave_one_out(toy_histories(), "test").take(np.arange(2))
    ranked = rank_cases(recommender, cases, k=50)
    assert (ranked[:, -1] == -1).all()


def test_a_sample_is_the_same_for_a_seed(recommender):
    results = [
        evaluate(recommender, recommender.index.trained_events, toy_histories(), users=20, baselines=False)
        for _ in range(2)
    ]
    assert results[0].users == 20
    assert results[0].systems == results[1].systems


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_bundle_trained_on_what_it_must_predict_is_refused(recommender, part):
    histories = toy_histories()
    seen = event_hashes(histories, recommender.index.catalog.item_ids)
    with pytest.raises(LeakageError, match=r"trained on 120 of 120.*hold-out"):
        evaluate(recommender, seen, histories, part=part)
    honest = event_hashes(training_part(histories, "last-two"), recommender.index.catalog.item_ids)
    evaluate(recommender, honest, histories, part=part, baselines=False)


def test_a_temporal_split_needs_a_temporal_holdout():
    histories = timed(toy_histories())
    settings = IndexSettings(text_encoder="tfidf", codebook_size=8, levels=2, holdout="temporal")
    index = build_index(toy_catalog(), histories, settings)
    assert len(index.trained_events) == temporal_split(histories).train.num_events
    recommender = Recommender(index, FakeDecoder(sum(index.level_sizes)), TaskDefaults(beam=10))
    result = evaluate(recommender, index.trained_events, histories, split="temporal")
    assert result.users == len(temporal_split(histories).test)
    last_two = event_hashes(training_part(histories, "last-two"), index.catalog.item_ids)
    with pytest.raises(LeakageError, match="temporal for temporal"):
        evaluate(recommender, last_two, histories, split="temporal")


def test_nothing_to_predict_is_an_error(recommender):
    short = Histories(["u"], np.array([0, 2]), np.array([0, 1], np.int32), None)
    with pytest.raises(HistoryError, match="histories are too short"):
        evaluate(recommender, recommender.index.trained_events, short)
    with pytest.raises(HistoryError, match="timestamps"):
        evaluate(recommender, recommender.index.trained_events, toy_histories(), split="temporal")

"""SASRec with cross-entropy: the loss against plain loops, a planted chain, and the rules of baselines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genrec.evaluation.metrics import ndcg, recall
from genrec.evaluation.sasrec import Sasrec, SasrecModel, SasrecShape, train_sasrec
from genrec.training.pretrain import TrainSettings
from index.build import training_part
from index.errors import TrainingError
from index.histories import Cases, Histories, leave_one_out
from tests.toy import ITEMS, toy_histories

TINY = SasrecShape(hidden_size=16, layers=1, heads=2, dropout=0.0, max_items=4)


def tiny_model(items: int = 9, seed: int = 0) -> SasrecModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SasrecModel(items, TINY).eval()
        torch.nn.init.normal_(model.items.weight)  # far from where training starts: probabilities are unequal
    return model.requires_grad_(False)


def cases_of(*histories: list[int]) -> Cases:
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    flat = np.array([row for history in histories for row in history], np.int32)
    nobody = np.zeros(len(histories), np.int32)
    return Cases(np.arange(len(histories)), offsets, flat, nobody)


def test_the_loss_is_that_of_every_next_item_over_the_whole_catalog() -> None:
    model = tiny_model()
    sequences = [[3, 1, 4, 1, 5], [8, 2], [6]]
    rows = torch.full((3, 5), -1)
    for place, one in enumerate(sequences):
        rows[place, : len(one)] = torch.tensor(one)
    losses = []
    for one in sequences:
        for place in range(1, len(one)):
            hidden = model(torch.tensor([one[:place]]))[0, -1]
            logits = [float(hidden @ model.items.weight[item]) for item in range(9)]
            losses.append(math.log(sum(math.exp(logit) for logit in logits)) - logits[one[place]])
    assert len(losses) == 5
    assert float(model.loss(rows)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_all_items_as_negatives_are_the_full_softmax() -> None:
    model = tiny_model()
    rows = torch.tensor([[3, 1, 4, 1, 5], [8, 2, 0, -1, -1]])
    assert float(model.loss(rows, torch.arange(9))) == pytest.approx(float(model.loss(rows)), rel=1e-6)


def test_drawn_negatives_stand_for_all_without_bias() -> None:
    model, rows = tiny_model(), torch.tensor([[3, 1]])
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        # exp(loss) of one target is the softmax's sum over exp(its own logit): linear in what was drawn.
        drawn = [
            math.exp(model.loss(rows, torch.from_numpy(rng.choice(9, 4, replace=False)))) for _ in range(3000)
        ]
        assert np.mean(drawn) == pytest.approx(math.exp(model.loss(rows)), rel=0.03)
    assert np.std(drawn) > 0.01


def test_a_position_sees_what_came_before_and_nothing_else() -> None:
    model = tiny_model()
    together = model(torch.tensor([[3, 1, 4, 5], [8, 2, -1, -1]]))
    torch.testing.assert_close(together[0, :2], model(torch.tensor([[3, 1]]))[0])
    torch.testing.assert_close(together[1, :2], model(torch.tensor([[8, 2]]))[0])


def test_all_items_but_the_histories_are_ranked() -> None:
    baseline = Sasrec(tiny_model(), TINY.max_items)
    ranked = baseline.rank(cases_of([3, 1], [8], [], [7, 7, 7]), 12)
    assert sorted(ranked[0][ranked[0] >= 0].tolist()) == [0, 2, 4, 5, 6, 7, 8]
    assert sorted(ranked[1][ranked[1] >= 0].tolist()) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert (ranked[2] == -1).all()  # no history: evidence of nothing
    assert 7 not in ranked[3]
    assert (ranked[:, 9:] == -1).all()


def test_scores_are_those_behind_the_last_items() -> None:
    model = tiny_model()
    baseline = Sasrec(model, TINY.max_items)
    history = [0, 8, 3, 1, 4, 5]  # six, of which the newest four are read
    hidden = model(torch.tensor([history[-4:]]))[0, -1]
    order = torch.argsort(-(model.items.weight @ hidden)).tolist()
    expected = [item for item in order if item not in history]
    assert baseline.rank(cases_of(history, [2]), 3)[0].tolist() == expected


def test_a_planted_chain_is_learned() -> None:
    histories = toy_histories()  # from item i always to item i + 4
    validation = leave_one_out(histories, "validation")
    shape = SasrecShape(hidden_size=32, layers=1, heads=2, dropout=0.1, max_items=8)
    settings = TrainSettings(
        steps=150, learning_rate=1e-2, batch_targets=256, weight_decay=0.0, validations=5
    )
    told = []
    trained = train_sasrec(
        training_part(histories, "last-two"),
        ITEMS,
        settings=settings,
        validation=validation,
        shape=shape,
        progress=told.append,
    )
    test = leave_one_out(histories, "test")
    assert recall(trained.baseline.rank(test, 1), test.target, 1).mean() > 0.9
    measured = [at.validation["ndcg@10"] for at in told if at.validation]
    assert len(measured) == 5
    assert len(told) == trained.steps == 150
    assert trained.best["ndcg@10"] == max(measured)
    kept = ndcg(trained.baseline.rank(validation, 10), validation.target, 10).mean()
    assert kept == pytest.approx(trained.best["ndcg@10"])
    assert trained.baseline.parameters == sum(
        [ITEMS * 32, 8 * 32, 4 * (32 * 32 + 32), 32 * 128 + 128, 128 * 32 + 32, 6 * 32]
    )


def test_a_seed_repeats_and_leaves_the_callers_draws_alone() -> None:
    training = training_part(toy_histories(20), "last-two")

    def ranks(seed: int) -> list[list[int]]:
        settings = TrainSettings(steps=3, seed=seed, batch_targets=32)
        trained = train_sasrec(training, ITEMS, settings=settings, shape=TINY)
        assert trained.best == {}
        lists: list[list[int]] = trained.baseline.rank(cases_of([0, 4], [9]), 10).tolist()
        return lists

    before = torch.get_rng_state()
    first = ranks(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert ranks(0) == first
    assert ranks(1) != first


def test_minutes_end() -> None:
    settings = TrainSettings(minutes=0.01, batch_targets=32)
    trained = train_sasrec(training_part(toy_histories(20), "last-two"), ITEMS, settings=settings, shape=TINY)
    assert trained.steps >= 1
    assert trained.seconds >= 0.6


def test_large_catalogs_draw_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.evaluation.sasrec.FULL_SOFTMAX_ITEMS", 10)
    monkeypatch.setattr("genrec.evaluation.sasrec.SAMPLED_ITEMS", 5)
    seen = []
    loss = SasrecModel.loss
    monkeypatch.setattr(
        SasrecModel, "loss", lambda self, rows, drawn: (seen.append(drawn), loss(self, rows, drawn))[1]
    )
    settings = TrainSettings(steps=2, batch_targets=32)
    train_sasrec(training_part(toy_histories(20), "last-two"), ITEMS, settings=settings, shape=TINY)
    assert [len(set(one.tolist())) for one in seen] == [5, 5]
    assert seen[0].tolist() != seen[1].tolist()


def test_the_shape_follows_the_data() -> None:
    sparse, dense = toy_histories(20), toy_histories(20)
    dense = Histories(
        dense.user_ids,
        np.arange(0, 20 * 60 + 1, 60),
        np.tile(np.arange(60, dtype=np.int32) % ITEMS, 20),
        None,
    )
    assert (SasrecShape.of(sparse).dropout, SasrecShape.of(sparse).max_items) == (0.5, 50)
    assert (SasrecShape.of(dense).dropout, SasrecShape.of(dense).max_items) == (0.2, 200)


def test_nothing_to_learn_is_an_error() -> None:
    alone = Histories(["a"], np.array([0, 1]), np.array([0], np.int32), None)
    with pytest.raises(TrainingError, match="two training events"):
        train_sasrec(alone, ITEMS, settings=TrainSettings(steps=1))

"""A bundle with its prior: fitted on training events alone, weighed on validation, the same wherever it is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from genrec.bundle import load_bundle
from genrec.evaluation.protocol import evaluate
from genrec.history_prior import PriorSettings
from genrec.recommender import Recommender
from genrec.search import Diversity
from genrec.training import fit_prior
from genrec.training import train_bundle as train_bundle_module
from genrec.training.fit_prior import choose_prior, fit_history_prior
from genrec.training.pretrain import TrainSettings
from genrec.training.train_bundle import train_bundle
from genrec.wishes import Wishes
from index.build import training_part
from index.errors import RequestError
from index.histories import leave_one_out
from tests.fake_decoder import FakeDecoder
from tests.toy import ITEMS, toy_histories, toy_index


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A model that has hardly learned beside counts that know: the prior must win."""
    out = tmp_path_factory.mktemp("prior") / "toy"
    trained = train_bundle(toy_index(), toy_histories(), out, settings=TrainSettings(steps=3))
    assert trained.prior_weight > 0
    assert trained.prior_validation["ndcg@10"] > trained.validation["catalog"]["ndcg@10"]
    return out


def test_training_builds_it_and_everything_asks_with_it(bundle):
    opened = load_bundle(bundle, verify=True)
    assert any(name.startswith("history_prior/") for name in opened.artifact.manifest["files"])
    recommender = Recommender.of_bundle(opened)
    assert recommender.defaults.prior_weight == opened.tasks["semantic_id"].prior_weight > 0
    assert recommender.recommend(["i8", "i12"]).items[0].item_id == "i16"  # users go four items on
    usual = recommender.recommend(["i8", "i12"], k=5)
    by_weight = recommender.recommend(["i8", "i12"], k=5, prior=recommender.defaults.prior_weight)
    assert usual.items == by_weight.items == recommender.recommend(["i8", "i12"], k=5, prior="history").items
    alone = recommender.recommend(["i8", "i12"], k=5, prior="none")
    assert alone.items == recommender.recommend(["i8", "i12"], k=5, prior=0.0).items
    assert alone.items != usual.items


def test_probabilities_still_sum_to_one(bundle):
    answer = Recommender.load(bundle).recommend(
        ["i8", "i12"], k=ITEMS, exclude_seen=False, normalize="catalog"
    )
    assert sum(item.probability for item in answer.items) == pytest.approx(1, abs=1e-5)
    assert answer.certified == ITEMS


def test_batches_are_their_requests_one_by_one(bundle):
    recommender = Recommender.load(bundle)
    histories = [["i1"], [], ["i8", "i12"], ["nobody"], ["i3", "i7", "i11"]]
    wishes = [Wishes(), Wishes(), Wishes(prior="none"), Wishes(prior=0.3), Wishes(where='genre == "drama"')]
    for history, wish, together in zip(
        histories, wishes, recommender.recommend_batch(histories, wishes), strict=True
    ):
        (alone,) = recommender.recommend_batch([history], wish)
        assert [one.item_id for one in alone.items] == [one.item_id for one in together.items]
        np.testing.assert_allclose(
            [one.score for one in alone.items], [one.score for one in together.items], atol=1e-5
        )


def test_a_filter_masks_and_changes_no_score(bundle):
    recommender = Recommender.load(bundle)
    everything = {one.item_id: one.score for one in recommender.recommend(["i8"], k=ITEMS).items}
    some = recommender.recommend(["i8"], k=10, where='genre == "western"').items
    assert len(some) == 10
    for one in some:
        assert one.score == pytest.approx(everything[one.item_id], abs=1e-5)


def test_what_a_prior_does_not_go_with_is_asked_without_it_unless_it_is_named(bundle):
    recommender = Recommender.load(bundle)
    alone = recommender.recommend(["i8"], prior="none", synchronize="token")
    assert recommender.recommend(["i8"], synchronize="token").items == alone.items
    groups = Diversity(2, 0.5)
    assert recommender.recommend(["i8"], diversity=groups).items
    with pytest.raises(RequestError, match="diversity or priors"):
        recommender.recommend(["i8"], diversity=groups, prior="history")
    with pytest.raises(RequestError, match="got 'text'"):
        recommender.recommend(["i8"], prior="text")
    with pytest.raises(RequestError, match=r"weight of the history prior in \[0, 1\), got 1"):
        recommender.recommend(["i8"], prior=1)
    own = recommender.recommend(["i8"], prior=recommender.prior({"i5": 1.0}, 0.9), normalize="catalog")
    assert own.items[0].item_id == "i5"  # one's own prior stands instead of the bundle's


def test_a_bundle_without_one_answers_as_ever(tmp_path):
    out = tmp_path / "toy"
    trained = train_bundle(
        toy_index(), toy_histories(), out, settings=TrainSettings(steps=1), prior_weight=0.0
    )
    assert (trained.prior_weight, trained.prior_validation) == (0.0, {})
    recommender = Recommender.load(out)
    assert recommender.recommend(["i8"]).items == recommender.recommend(["i8"], prior="none").items
    with pytest.raises(RequestError, match="expected a bundle with a history prior"):
        recommender.recommend(["i8"], prior=0.5)


def test_samples_are_drawn_with_it(bundle):
    recommender = Recommender.load(bundle)
    everything = recommender.recommend(["i8"], k=ITEMS, normalize="catalog")
    scores = {one.item_id: one.score for one in everything.items}
    drawn = recommender.recommend(["i8"], k=5, sample=True, seed=3, normalize="catalog")
    assert len({one.item_id for one in drawn.items}) == 5
    for one in drawn.items:
        assert one.score == pytest.approx(scores[one.item_id], abs=1e-5)


def test_evaluate_has_a_row_for_the_engine_and_one_for_the_model(bundle):
    opened = load_bundle(bundle)
    recommender = Recommender.of_bundle(opened)
    result = evaluate(recommender, opened.trained_events(), toy_histories(), baselines=False)
    assert list(result.systems) == ["genrec", "genrec-model", "history-prior"]
    assert result.systems["genrec"]["ndcg@10"] > result.systems["genrec-model"]["ndcg@10"]


@pytest.mark.parametrize("has_ties", [False, True])
def test_evaluate_has_a_row_for_the_prior_alone(bundle, has_ties):
    """A model worth nothing looked strong beside baselines where its prior did all the work; this row says so."""
    opened = load_bundle(bundle)
    recommender, prior = Recommender.of_bundle(opened), opened.prior
    assert prior is not None
    if has_ties:  # all that follows an event is worth the same
        rates = np.ones_like(prior.lists.follow_rates)
        settings = PriorSettings(text_weight=0.0, word_weight=0.0)
        prior = replace(prior, lists=replace(prior.lists, follow_rates=rates), settings=settings)
        (mode,) = recommender.modes.values()
        recommender = Recommender(opened.index, modes={"semantic_id": replace(mode, history_prior=prior)})
    result = evaluate(recommender, opened.trained_events(), toy_histories(), users=50, baselines=False)
    cases = leave_one_out(toy_histories(), "test")
    cases = cases.take(np.sort(np.random.default_rng(0).choice(len(cases), 50, replace=False)))
    found = result.lists["history-prior"]
    for case, row in enumerate(found.rows):
        history = cases.history_of(case)
        (shares,) = prior.shares([history])
        of_all = np.zeros(ITEMS)
        of_all[shares.rows] = shares.shares
        best = np.argsort(-of_all, kind="stable")[: len(shares.rows)][: len(row)]  # ties by item row
        assert row.tolist() == best.tolist() + [-1] * (len(row) - len(best))
        assert not set(row.tolist()) & set(history.tolist())
    assert found.shares is None
    assert "history-prior" not in result.calibration


def test_a_bundle_asked_without_its_prior_has_no_row_for_it(bundle):
    opened = load_bundle(bundle)
    (mode,) = Recommender.of_bundle(opened).modes.values()
    alone = replace(mode, defaults=replace(mode.defaults, prior_weight=0.0))
    recommender = Recommender(opened.index, modes={"semantic_id": alone})
    result = evaluate(recommender, opened.trained_events(), toy_histories(), users=10, baselines=False)
    assert list(result.systems) == ["genrec"]


def test_no_held_out_event_is_counted():
    """Histories whose held-out events are all changed make the same prior."""
    index, histories = toy_index(), toy_histories()
    changed = histories.items.copy()
    last = histories.offsets[1:]
    for back in (1, 2):
        changed[last - back] = (changed[last - back] + 17) % ITEMS
    other = replace(histories, items=changed)
    one, two = (fit_history_prior(index, training_part(part, "last-two")) for part in (histories, other))
    for name, array in one.lists.arrays().items():
        assert np.array_equal(array, two.lists.arrays()[name]), name
    leaking = fit_history_prior(index, other)
    assert not np.array_equal(one.lists.follow_rates, leaking.lists.follow_rates)


def exhaustive(recommender, prior, cases, recall=False):
    """NDCG@10, or Recall@10, of settings and a weight, by scoring every item."""
    rows = [cases.history_of(case) for case in range(len(cases))]
    found = recommender.search_rows(rows, Wishes(k=ITEMS, beam=ITEMS, exclude_seen=False))

    def ndcg(settings: PriorSettings, weight: float) -> float:
        gains = []
        shares = replace(prior, settings=settings).shares(rows)
        for case, (result, share) in enumerate(zip(found, shares, strict=True)):
            mixed = np.zeros(ITEMS)
            mixed[recommender.rows_of(result)] = (1 - weight) * np.exp(result.scores)
            mixed[share.rows] += weight * share.shares
            mixed[rows[case]] = -1
            rank = 1 + (mixed > mixed[cases.target[case]]).sum()
            gains.append((1.0 if recall else 1 / np.log2(rank + 1)) if rank <= 10 else 0.0)
        return float(np.mean(gains))

    return ndcg


def test_the_choice_is_the_best_of_all_by_exhaustive_scoring():
    weights = (0.0, 0.3, 0.8)
    index, histories = toy_index(), toy_histories()
    recommender = Recommender(index, FakeDecoder(sum(index.level_sizes)))
    prior = fit_history_prior(index, training_part(histories, "last-two"))
    cases = leave_one_out(histories, "validation").take(np.arange(40))
    # What really came next every way finds first of all: of targets at random one way finds the most.
    cases = replace(cases, target=np.random.default_rng(0).integers(0, ITEMS, 40).astype(np.int32))
    chosen = choose_prior(recommender, prior, cases, weights=weights)

    ndcg = exhaustive(recommender, prior, cases)
    best = max(
        ndcg(PriorSettings(recency, text_weight, power, word_weight, 1.0), weight)
        for recency in fit_prior.RECENCIES
        for text_weight, word_weight in fit_prior.TEXT_WEIGHTS
        for power in fit_prior.POWERS
        for weight in weights
    )
    assert chosen.ndcg == pytest.approx(best, abs=1e-6)
    # What is kept is the way, not its figure: asked again, it is worth as much as the best.
    assert ndcg(chosen.settings, chosen.weight) == pytest.approx(best, abs=1e-6)
    assert chosen.settings.unseen_boost == PriorSettings().unseen_boost, (
        "no case has an unseen item to measure with"
    )


@pytest.mark.parametrize("may_cost", [0.0, 0.02, 1.0])
def test_unseen_items_are_boosted_as_far_as_it_finds_some_and_may_cost(may_cost, monkeypatch):
    monkeypatch.setattr(fit_prior, "NEW_ITEMS_MAY_COST", may_cost)
    index, histories = toy_index(), toy_histories()
    recommender = Recommender(index, FakeDecoder(sum(index.level_sizes)))
    prior = fit_history_prior(index, training_part(histories, "last-two"))
    offsets, unseen = prior.lists.follow_offsets, range(0, ITEMS, 3)
    kept = np.ones(len(prior.lists.follow_rows), bool)
    for row in unseen:  # nothing follows them and they follow nothing
        kept[offsets[row] : offsets[row + 1]] = False
    kept &= ~np.isin(prior.lists.follow_rows, unseen)
    owner = np.repeat(np.arange(ITEMS), np.diff(offsets))[kept]
    lists = replace(
        prior.lists,
        follow_offsets=np.searchsorted(owner, np.arange(ITEMS + 1)),
        follow_rows=prior.lists.follow_rows[kept],
        follow_rates=prior.lists.follow_rates[kept],
    )
    prior = replace(prior, lists=lists)
    cases = leave_one_out(histories, "validation").take(np.arange(40))
    chosen = choose_prior(recommender, prior, cases)
    ndcg = exhaustive(recommender, prior, cases)
    of_boost = {
        boost: ndcg(replace(chosen.settings, unseen_boost=boost), chosen.weight)
        for boost in (1.0, *fit_prior.BOOSTS)
    }
    assert len({round(one, 6) for one in of_boost.values()}) > 1, (
        "boosts must matter for this to test anything"
    )
    at = np.flatnonzero(np.isin(cases.target, list(unseen)))
    of_unseen = exhaustive(recommender, prior, cases.take(at), recall=True)
    affordable = [b for b, one in of_boost.items() if one >= (1 - may_cost) * of_boost[1.0] - 1e-9]
    found = {b: of_unseen(replace(chosen.settings, unseen_boost=b), chosen.weight) for b in affordable}
    most = max(found.values())
    expected = (
        min(b for b in affordable if found[b] == most)
        if most > found[1.0]
        else max(b for b in affordable if b <= 2)
    )
    assert chosen.settings.unseen_boost == expected
    assert chosen.ndcg == pytest.approx(of_boost[expected], abs=1e-6)


def test_the_model_alone_is_kept_where_it_is_better():
    """The targets are the model's own first answers: whatever the prior says can only move them down."""
    index, histories = toy_index(), toy_histories()
    recommender = Recommender(index, FakeDecoder(sum(index.level_sizes)))
    prior = fit_history_prior(index, training_part(histories, "last-two"))
    cases = leave_one_out(histories, "validation").take(np.arange(20))
    rows = [cases.history_of(case) for case in range(20)]
    favourite = [recommender.rows_of(one)[0] for one in recommender.search_rows(rows, Wishes(k=1))]
    told = replace(cases, target=np.array(favourite, np.int32))
    chosen = choose_prior(recommender, prior, told)
    assert (chosen.weight, chosen.settings.unseen_boost) == (0, PriorSettings().unseen_boost)


def test_training_asks_the_prior_for_targets_and_says_so(tmp_path, monkeypatch):
    told = []
    budget = TrainSettings(steps=2, batch_targets=8)
    train_bundle(
        toy_index(),
        toy_histories(),
        tmp_path / "taught",
        settings=budget,
        prior_weight=0.0,
        stage=lambda *at: told.append(at),
    )
    assert (train_bundle_module.TEACHING, 0, 16) in told, "no more events than two steps draw from"
    assert (train_bundle_module.TEACHING, 16, 16) in told
    assert load_bundle(tmp_path / "taught").prior is None, "the bundle itself has none"
    monkeypatch.setattr(train_bundle_module, "fit_history_prior", None)  # whoever calls it fails
    untaught = replace(budget, taught=0.0)
    train_bundle(toy_index(), toy_histories(), tmp_path / "untaught", settings=untaught, prior_weight=0.0)
    with pytest.raises(TypeError):
        train_bundle(toy_index(), toy_histories(), tmp_path / "none", settings=budget, prior_weight=0.0)


@pytest.mark.parametrize(
    ("budget", "events"),
    [
        ({"minutes": 0.5}, 10_000),
        ({"minutes": 15.0}, 200_000),
        ({"steps": 10, "batch_targets": 100}, 1_000),
        ({"steps": 5_000}, 200_000),
    ],
)
def test_a_small_budget_asks_the_prior_less(budget, events):
    assert train_bundle_module._taught_events(TrainSettings(**budget)) == events

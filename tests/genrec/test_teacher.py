"""What a teacher draws: shares of the history prior, without what the user's own history put there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.evaluation.cooccurrence import Cooccurrence
from genrec.history_prior import HistoryPrior, NeighbourLists, PriorSettings
from genrec.native_model import NativeConfig, NativeModel
from genrec.training import pretrain
from genrec.training.fit_prior import _best_of_rows
from genrec.training.pretrain import TrainSettings, train_native
from genrec.training.teacher import CHOICES, Teacher, teach
from index.errors import TrainingError
from index.histories import Histories

ITEMS = 9
SETTINGS = PriorSettings(recency=0.5, text_weight=0.0, power=2.0, word_weight=0.0)


def histories_of(sequences: list[list[int]]) -> Histories:
    items = np.array([item for one in sequences for item in one], np.int32)
    names = [str(user) for user in range(len(sequences))]
    return Histories(names, np.cumsum([0, *map(len, sequences)]), items)


def prior_of(rates: object, near: dict[int, list[int]] | None = None) -> HistoryPrior:
    offsets, rows, values = _best_of_rows(rates, 100)  # type: ignore[arg-type]
    near = near or {}
    near_rows = np.array([row for item in range(ITEMS) for row in near.get(item, [])], np.int32)
    near_offsets = np.cumsum([0, *(len(near.get(item, [])) for item in range(ITEMS))])
    text = np.eye(ITEMS, dtype=np.float32)
    return HistoryPrior(NeighbourLists(offsets, rows, values, near_offsets, near_rows), text, SETTINGS)


def shares_at(teacher: Teacher, event: int) -> dict[int, float]:
    row = teacher.place[event]
    if row < 0:
        return {}
    taught = teacher.rows[row] >= 0
    shares = np.diff(teacher.cumulative[row][taught], prepend=0.0)
    return {int(item): float(share) for item, share in zip(teacher.rows[row][taught], shares, strict=True)}


def test_a_pair_that_one_user_alone_bought_teaches_that_user_nothing() -> None:
    training = histories_of([[0, 1], [0, 2], [3, 4]])
    teacher = teach(prior_of(Cooccurrence(training, ITEMS).rates), training)
    assert shares_at(teacher, 0) == {}, "a first event has nothing before it"
    assert shares_at(teacher, 1) == {2: 1.0}, "1 came behind 0 in this history only"
    assert shares_at(teacher, 3) == {1: 1.0}
    assert shares_at(teacher, 5) == {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=7, unique=True), min_size=2, max_size=6)
)
def test_it_is_the_prior_of_everybody_else(sequences: list[list[int]]) -> None:
    """Brute force: rates counted without the user, over the events of all."""
    training = histories_of(sequences)
    teacher = teach(prior_of(Cooccurrence(training, ITEMS).rates), training)
    count = np.bincount(training.items, minlength=ITEMS)
    for user, sequence in enumerate(sequences):
        others = histories_of([*sequences[:user], *sequences[user + 1 :]])
        fewer = np.bincount(others.items, minlength=ITEMS)
        rates = Cooccurrence(others, ITEMS).rates.toarray() * ((fewer + 10) / (count + 10))[:, None]
        for place in range(1, len(sequence)):
            score = np.zeros(ITEMS)
            for age, item in enumerate(reversed(sequence[:place])):
                score += 0.5**age * rates[item]
            score[sequence[:place]] = 0
            score[score < 1e-7] = 0  # float32 rates leave a rest of what was taken out
            found = shares_at(teacher, int(training.offsets[user]) + place)
            expected = score**2 / max((score**2).sum(), 1e-30)
            for item in range(ITEMS):
                assert found.get(item, 0.0) == pytest.approx(expected[item], abs=1e-4)


def test_text_neighbours_are_taught_where_nobody_else_was() -> None:
    training = histories_of([[0, 1], [3, 4]])
    prior = prior_of(Cooccurrence(training, ITEMS).rates, near={0: [5], 1: [5]})
    text = np.eye(ITEMS, dtype=np.float32)
    text[5] = text[0]
    prior = replace(prior, text=text, settings=replace(SETTINGS, text_weight=0.2))
    assert shares_at(teach(prior, training), 1) == {5: pytest.approx(1.0)}


def test_targets_are_drawn_by_share_and_the_rest_stays() -> None:
    place = np.array([-1, 0, 1, -1], np.int32)
    rows = np.full((2, CHOICES), -1, np.int32)
    cumulative = np.full((2, CHOICES), 2.0, np.float32)
    rows[0, :2], cumulative[0, :2] = (7, 8), (0.75, 1.0)
    rows[1, 0], cumulative[1, 0] = 6, 1.0
    teacher = Teacher(place, rows, cumulative)
    events = np.tile(np.array([0, 1, 2, 3, -1]), (4_000, 1))
    items = np.array([1, 2, 3, 4], np.int64)
    drawn = teacher.targets(events, items, 0.5, np.random.default_rng(0))
    assert (drawn[:, 0] == 1).all()
    assert (drawn[:, 3] == 4).all()
    assert (drawn[:, 4] == -1).all()
    of_one = {item: float((drawn[:, 1] == item).mean()) for item in (2, 7, 8)}
    assert of_one == pytest.approx({2: 0.5, 7: 0.375, 8: 0.125}, abs=0.03)
    assert set(drawn[:, 2].tolist()) == {3, 6}
    assert (teacher.targets(events, items, 0.0, np.random.default_rng(0))[:, :4] == items).all()


def test_more_events_than_may_be_taught_are_drawn_by_seed() -> None:
    training = histories_of([[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1]])
    prior = prior_of(Cooccurrence(training, ITEMS).rates)
    told: list[tuple[int, int]] = []
    some = teach(prior, training, seed=1, most=4, progress=lambda *at: told.append(at))
    assert (some.place >= 0).sum() == 4
    assert told == [(0, 4), (4, 4)]
    again, other = (teach(prior, training, seed=seed, most=4) for seed in (1, 2))
    assert np.array_equal(some.place, again.place)
    assert not np.array_equal(some.place, other.place)
    everything = teach(prior, training)
    for event in np.flatnonzero(some.place >= 0):
        assert shares_at(some, event) == shares_at(everything, event)


# --- a model that is taught -------------------------------------------------------------------------------

CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]], np.int32)
CONFIG = NativeConfig(
    code_sizes=(3, 2), hidden_size=16, layers=1, heads=2, max_items=8, head_size=16, dropout=0.0
)
TRAINING = TrainSettings(steps=60, batch_targets=40, checkpoint_every=25, taught=1.0)


def round_the_six(by: int) -> tuple[np.ndarray, Teacher]:
    """Histories that count up by one, and a teacher that says: the last item plus ``by``."""
    items = np.concatenate([(np.arange(5) + user) % 6 for user in range(30)])
    place = np.where(np.arange(150) % 5 > 0, np.arange(150), -1).astype(np.int32)
    rows = np.full((150, CHOICES), -1, np.int32)
    rows[1:, 0] = (items[:-1] + by) % 6
    cumulative = np.full((150, CHOICES), 2.0, np.float32)
    cumulative[:, 0] = 1.0
    return items, Teacher(place, rows, cumulative)


def trained(by: int | None, settings: TrainSettings = TRAINING, **more: object) -> NativeModel:
    items, teacher = round_the_six(by or 0)
    return train_native(
        CONFIG,
        CODES,
        np.arange(0, 151, 5),
        items,
        settings=settings,
        teacher=None if by is None else teacher,
        **more,  # type: ignore[arg-type]
    ).model


def said_after(model: NativeModel, last: int) -> int:
    """The likeliest item behind one item."""
    with torch.no_grad():
        hidden = model.encode(torch.tensor([[last]]))[0, -1]
        tokens = model.item_tokens
        levels = model.level_logits(hidden.expand(6, -1), tokens)
        picked = [
            torch.log_softmax(logits, 1).gather(1, (tokens[:, at] - model.level_offsets[at])[:, None])
            for at, logits in enumerate(levels)
        ]
    return int(torch.cat(picked, 1).sum(1).argmax())


def test_a_model_says_what_it_is_taught_behind_what_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "TAUGHT_LAST", 1.0)  # taught to the end, and by no event
    taught, plain, off = trained(3), trained(None), trained(3, replace(TRAINING, taught=0.0))
    assert [said_after(taught, item) for item in range(6)] == [(item + 3) % 6 for item in range(6)]
    assert [said_after(plain, item) for item in range(6)] == [(item + 1) % 6 for item in range(6)]
    assert all(
        torch.equal(one, other) for one, other in zip(plain.parameters(), off.parameters(), strict=True)
    ), "a part of 0 is no teacher"


def test_the_part_that_is_taught_falls_to_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[float] = []
    targets = Teacher.targets

    def watched(self: Teacher, events: np.ndarray, items: np.ndarray, part: float, rng: object) -> np.ndarray:
        parts.append(part)
        return targets(self, events, items, part, rng)  # type: ignore[arg-type]

    monkeypatch.setattr(Teacher, "targets", watched)
    trained(3, replace(TRAINING, steps=10, taught=0.9))
    assert parts == pytest.approx([0.9 - 0.081 * step for step in range(10)])


def test_a_taught_run_resumes_to_the_same_weights_and_to_its_own_teacher(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    settings = replace(TRAINING, taught=0.5)
    whole = trained(3, settings, checkpoint=path)
    resumed = trained(3, settings, checkpoint=path, resume=True)
    assert all(
        torch.equal(one, other) for one, other in zip(whole.parameters(), resumed.parameters(), strict=True)
    )
    with pytest.raises(TrainingError, match="got other taught targets"):
        trained(2, settings, checkpoint=path, resume=True)


@pytest.mark.parametrize("taught", [-0.1, 1.1])
def test_a_part_is_between_nothing_and_everything(taught: float) -> None:
    with pytest.raises(TrainingError, match=r"expected taught in \[0, 1\]"):
        TrainSettings(steps=1, taught=taught)

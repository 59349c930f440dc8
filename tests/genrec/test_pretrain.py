"""Training: batches cover every event, the loss falls, a killed run resumes to the very same weights."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from genrec.native_model import NativeConfig, NativeModel
from genrec.training.checkpoint import load_checkpoint
from genrec.training.examples import check_histories, epoch_batches
from genrec.training.loss import sequence_loss
from genrec.training.optimization import schedule
from genrec.training.pretrain import TrainProgress, TrainResult, TrainSettings, train_native
from genrec.training.siblings import Siblings
from index.errors import TrainingError

CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]], np.int32)
CONFIG = NativeConfig(
    code_sizes=(3, 2), hidden_size=16, layers=1, heads=2, max_items=8, head_size=16, dropout=0.1
)
SETTINGS = TrainSettings(steps=24, batch_targets=40, checkpoint_every=5, validations=4)


def cycle_histories(users: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """The next item is always the last one plus one, round the six items."""
    sequences = [(np.arange(3 + user % 5) + user) % len(CODES) for user in range(users)]
    return np.cumsum([0, *map(len, sequences)]), np.concatenate(sequences).astype(np.int32)


class Killed(Exception):
    """Stands for the power cut."""


def train(**arguments: object) -> TrainResult:
    offsets, items = cycle_histories()
    data: dict[str, object] = {"config": CONFIG, "codes": CODES, "offsets": offsets, "items": items}
    options: dict[str, object] = {**data, "settings": SETTINGS, **arguments}
    return train_native(**options)  # type: ignore[arg-type]


def weights_equal(one: NativeModel, other: NativeModel) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def falling(model: NativeModel) -> dict[str, float]:
    """A validation that draws random numbers and likes the second model best."""
    torch.rand(3)
    falling.calls += 1  # type: ignore[attr-defined]
    return {"ndcg@10": {1: 0.1, 2: 0.4}.get(falling.calls, 0.2)}  # type: ignore[attr-defined]


# --- batches ---------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 23), min_size=1, max_size=20).filter(any),
    max_items=st.integers(1, 9),
    batch_targets=st.integers(1, 30),
    epoch=st.integers(0, 3),
)
def test_an_epoch_holds_every_event_once_in_order(
    lengths: list[int], max_items: int, batch_targets: int, epoch: int
) -> None:
    offsets = np.cumsum([0, *lengths])
    items = np.arange(offsets[-1])  # every event is its own item: what comes out names its place
    histories = check_histories(offsets, items, len(items))
    batches = epoch_batches(histories, max_items, batch_targets, seed=3, epoch=epoch)
    assert sorted(np.concatenate([batch[batch >= 0] for batch in batches])) == items.tolist()
    user = np.repeat(np.arange(len(lengths)), lengths)
    for batch in batches:
        assert batch.shape[1] <= max_items + 1
        for row in batch:
            events = row[row >= 0]
            assert (row[len(events) :] == -1).all(), "padding stands on the right"
            assert (np.diff(events) == 1).all(), "a window is a stretch of one history"
            assert len(set(user[events])) == 1


def test_epochs_differ_and_repeat_by_seed() -> None:
    offsets, items = cycle_histories()
    histories = check_histories(offsets, items, len(CODES))
    first, again, second = (epoch_batches(histories, 8, 20, seed=1, epoch=epoch) for epoch in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert [b.tolist() for b in first] != [b.tolist() for b in second]


@pytest.mark.parametrize(
    ("offsets", "items", "message"),
    [
        ([0, 2], [0, 1, 2], "offsets from 0 to 3"),
        ([0, 2, 1, 3], [0, 1, 2], "rising offsets"),
        ([0, 0], [], "at least one training event"),
        ([0, 2], [0, 6], r"item rows in \[0, 6\)"),
        ([0, 2], [0, -1], r"item rows in \[0, 6\)"),
    ],
)
def test_histories_that_make_no_sense_raise(offsets: list[int], items: list[int], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        check_histories(np.array(offsets), np.array(items, np.int64), len(CODES))


# --- learning --------------------------------------------------------------------------------------------


def log_p(
    model: NativeModel, codes: np.ndarray, history: list[int], item: int, *, catalog: bool
) -> torch.Tensor:
    """Log-probability of one item, level by level, with the softmax written out."""
    hidden = model.encode(torch.tensor([history], dtype=torch.int64))[:, -1]
    total = torch.zeros(())
    for level, logits in enumerate(model.level_logits(hidden, model.item_tokens[[item]])):
        same_prefix = (codes[:, :level] == codes[item, :level]).all(1)
        rivals = np.unique(codes[same_prefix, level]) if catalog else np.arange(logits.shape[1])
        total = total + logits[0, codes[item, level]] - logits[0, rivals].logsumexp(0)
    return total


RAGGED = np.array([[0, 0, 0], [0, 2, 1], [0, 2, 0], [1, 3, 0], [2, 1, 1], [2, 3, 0], [2, 3, 1]], np.int32)
RAGGED_CONFIG = replace(CONFIG, code_sizes=(3, 4, 2))


@pytest.mark.parametrize("catalog", [False, True], ids=["vocabulary", "catalog"])
def test_the_loss_is_the_mean_of_minus_log_p_per_event(catalog: bool) -> None:
    """Against a loop over events, one history prefix at a time."""
    torch.manual_seed(0)
    model = NativeModel(RAGGED_CONFIG, RAGGED).eval()
    histories = [[0, 3, 5], [2], [6, 4, 1, 3]]
    rows = torch.tensor([history + [-1] * (4 - len(history)) for history in histories])
    events = [(history[:place], item) for history in histories for place, item in enumerate(history)]
    expected = -torch.stack([log_p(model, RAGGED, *event, catalog=catalog) for event in events]).mean()
    got = sequence_loss(model, rows, Siblings(RAGGED) if catalog else None)
    torch.testing.assert_close(got, expected)


def test_catalog_normalised_probabilities_sum_to_one_over_the_items() -> None:
    torch.manual_seed(0)
    model, siblings = NativeModel(RAGGED_CONFIG, RAGGED).eval(), Siblings(RAGGED)
    single = [sequence_loss(model, torch.tensor([[item]]), siblings) for item in range(len(RAGGED))]
    torch.testing.assert_close(torch.exp(-torch.stack(single)).sum(), torch.tensor(1.0))


def test_siblings_by_eye() -> None:
    siblings = Siblings(RAGGED)
    items = torch.arange(7)
    assert siblings.count(0, items).tolist() == [3] * 7
    assert siblings.count(1, items).tolist() == [2, 2, 2, 1, 2, 2, 2]
    assert siblings.count(2, items).tolist() == [1, 2, 2, 1, 1, 2, 2]
    assert (~siblings.absent(1, torch.tensor([4, 3]), 4)).int().tolist() == [[0, 1, 0, 1], [0, 0, 0, 1]]
    assert (~siblings.absent(2, torch.tensor([0, 6]), 2)).int().tolist() == [[1, 0], [1, 1]]


def test_a_determined_next_item_is_learned() -> None:
    losses: list[float] = []
    result = train(
        settings=TrainSettings(steps=150, batch_targets=60, learning_rate=1e-2),
        progress=lambda report: losses.append(report.loss),
    )
    # Only the first event of a history cannot be known: log 6 = 1.79 nats on about a fifth of all events.
    assert losses[0] > 1.6
    assert np.mean(losses[-5:]) < 0.6
    model = result.model
    with torch.no_grad():
        for last in range(6):
            hidden = model.encode(torch.tensor([[(last - 1) % 6, last]]))[:, -1]
            tokens = model.item_tokens[[(last + 1) % 6]]
            logits = model.level_logits(hidden, tokens)
            predicted = [int(level.argmax()) for level in logits]
            assert predicted == CODES[(last + 1) % 6].tolist()


def test_paths_seen_often_get_a_vector_that_training_moves() -> None:
    """Counts 1, 5, 3, 4, 0, 2 over the six items: the last two are no path seen three times."""
    items = np.repeat(np.arange(6), [1, 5, 3, 4, 0, 2])
    data = CODES, np.array([0, 15]), items
    model = train_native(CONFIG, *data, settings=SETTINGS).model
    assert model.paths.paths.tolist() == [[0, -1], [1, -1], [0, 1], [1, 0], [1, 1]]
    assert model.path_vector.weight[0].tolist() == [0.0] * CONFIG.hidden_size
    assert (model.path_vector.weight[1:].abs().amax(1) > 1e-3).all()
    plain = train_native(replace(CONFIG, own_paths=0), *data, settings=SETTINGS).model
    assert (len(plain.paths), plain.path_vector.weight.shape) == (0, (1, CONFIG.hidden_size))


def test_the_best_validation_is_what_comes_back() -> None:
    falling.calls = 0  # type: ignore[attr-defined]
    kept: list[dict[str, torch.Tensor]] = []

    def validate(model: NativeModel) -> dict[str, float]:
        kept.append({name: value.clone() for name, value in model.state_dict().items()})
        return falling(model)

    reports: list[TrainProgress] = []
    result = train(validate=validate, progress=reports.append)
    assert [report.step for report in reports if report.validation] == [6, 12, 18, 24]
    assert result.best == {"ndcg@10": 0.4, "step": 12.0}
    assert all(torch.equal(value, kept[1][name]) for name, value in result.model.state_dict().items())
    assert not result.model.training


def test_patience_stops_early() -> None:
    falling.calls = 0  # type: ignore[attr-defined]
    result = train(settings=replace(SETTINGS, validations=8, patience=2), validate=falling)
    assert [figures["step"] for figures in result.validations] == [3, 6, 9, 12]
    assert result.steps == 12


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    factors = [schedule(done, 0.1) for done in np.linspace(0, 1, 101)]
    assert factors[0] < 0.02
    assert max(factors) == pytest.approx(1.0)
    assert factors.index(max(factors)) == 10
    assert all(later < earlier for earlier, later in pairwise(factors[10:]))
    assert factors[-1] == pytest.approx(0.0)


class Ticking:
    """A clock on which a step takes a hundredth of a second or so: a busy machine stretches nothing."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.002
        return self.now


def test_a_budget_in_minutes_is_kept_and_ends_annealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.training.pretrain.time", Ticking())
    reports: list[TrainProgress] = []
    falling.calls = 0  # type: ignore[attr-defined]
    settings = TrainSettings(minutes=1.5 / 60, batch_targets=40, validations=3)
    result = train(settings=settings, validate=falling, progress=reports.append)
    assert result.seconds == pytest.approx(1.5, abs=0.05)
    assert len(result.validations) == 3
    assert reports[-1].validation is not None
    assert reports[-1].learning_rate < 0.05 * max(report.learning_rate for report in reports)


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train()
    assert torch.equal(torch.get_rng_state(), before)


# --- resuming --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed_at", [6, 13, 20])
def test_a_killed_run_resumes_to_the_same_weights(killed_at: int, tmp_path: Path) -> None:
    """Killed after a checkpoint at any place of an epoch, between validations, with the best already seen."""
    falling.calls = 0  # type: ignore[attr-defined]
    whole = train(validate=falling)

    def kill(report: TrainProgress) -> None:
        if report.step == killed_at:
            raise Killed

    path = tmp_path / "run" / "checkpoint.safetensors"
    falling.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(Killed):
        train(validate=falling, checkpoint=path, progress=kill)
    saved = load_checkpoint(path)
    assert saved.step == killed_at // 5 * 5
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing half-written stays"
    falling.calls = len(saved.validations)  # type: ignore[attr-defined]
    resumed = train(validate=falling, checkpoint=path, resume=True)
    assert weights_equal(resumed.model, whole.model)
    assert resumed.best == whole.best
    assert resumed.validations == whole.validations


def test_resuming_without_validation_gives_the_same_weights(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    whole = train(checkpoint=path)
    assert load_checkpoint(path).step == 20
    assert weights_equal(train(checkpoint=path, resume=True).model, whole.model)


def test_resume_without_a_checkpoint_starts_at_the_beginning(tmp_path: Path) -> None:
    assert weights_equal(train(checkpoint=tmp_path / "none", resume=True).model, train().model)


def test_seeds_give_different_weights() -> None:
    assert not weights_equal(train(settings=replace(SETTINGS, seed=1)).model, train().model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": replace(SETTINGS, steps=30)}, "got steps 30 where it has 24; resume it"),
        ({"settings": replace(SETTINGS, steps=None, minutes=1.5)},
         "got steps none where it has 24; minutes 1.5 where it has none; resume it"),
        ({"config": replace(CONFIG, dropout=0.3)}, "got dropout 0.3 where it has 0.1; resume it"),
        ({"items": cycle_histories()[1][::-1].copy()}, "got other training events; resume it"),
        ({"codes": CODES[::-1].copy()}, "got other codes; resume it"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    train(checkpoint=path)
    with pytest.raises(TrainingError, match=re.escape(said)):
        train(**changes, checkpoint=path, resume=True)


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"not a checkpoint at all")
    with pytest.raises(TrainingError, match=r"a training checkpoint in .*checkpoint\.safetensors"):
        train(checkpoint=path, resume=True)


def test_a_checkpoint_of_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    old = {"fingerprint": "ab12", "step": 3}
    save_file({"rng": torch.zeros(1)}, path, metadata={"genrec_checkpoint": json.dumps(old)})
    with pytest.raises(TrainingError, match="delete it to train from the start"):
        train(checkpoint=path, resume=True)


# --- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of steps and minutes, got steps=None, minutes=None"),
        ({"steps": 3, "minutes": 1.0}, "one of steps and minutes"),
        ({"steps": 0}, "steps above 0, got 0"),
        ({"minutes": -1.0}, "minutes above 0"),
        ({"steps": 3, "patience": 0}, "patience above 0"),
    ],
)
def test_settings_that_make_no_run_raise(options: dict[str, float], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainSettings(**options)  # type: ignore[arg-type]


def test_a_validation_without_the_selection_metric_raises() -> None:
    with pytest.raises(TrainingError, match=r"figures with ndcg@10, got \['recall@10', 'step'\]"):
        train(validate=lambda model: {"recall@10": 1.0})


def test_a_loss_that_is_not_finite_raises() -> None:
    with pytest.raises(TrainingError, match="a finite loss"):
        train(settings=replace(SETTINGS, learning_rate=1e30))

"""Training batches of tasks: every event once an epoch, similar lengths together, the same for a seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from genrec.decoders.prompt_reader import HistoryForm, PromptReader
from genrec.speech import Speech, SpeechForm
from genrec.tasks import TASKS
from genrec.training.examples import check_histories
from genrec.training.task_examples import Example, ExampleMaker, TaskBatches, collate
from genrec.vocabulary import TextVocabulary
from index.build import training_part
from index.errors import TrainingError
from index.item_index import ItemIndex
from tests.toy import toy_histories, toy_index

START, END = 3, 4


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return toy_index()


def maker_of(index: ItemIndex, kind: str = "compact", max_items: int = 4) -> ExampleMaker:
    vocabulary = TextVocabulary.train(index.catalog.titles, 300)
    form = HistoryForm((START,), max_items, end=(END,))
    reader = PromptReader(form, index.level_tokens + vocabulary.size)
    speech = Speech(index, SpeechForm(kind, max_items), vocabulary)  # type: ignore[arg-type]
    return ExampleMaker(speech, reader, vocabulary.size)


def batches_of(index: ItemIndex, **changes: Any) -> TaskBatches:
    training = training_part(toy_histories(), "last-two")
    arguments: dict[str, Any] = {
        "maker": maker_of(index),
        "histories": check_histories(training.offsets, training.items, len(index.catalog)),
        "mixture": {"semantic_id": 1.0},
        "max_items": 4,
        "batch_size": 8,
        "batches": 1000,
        "seed": 1,
        "loss_on": "answers",
        "is_encoder_decoder": False,
        "active": np.arange(len(index.catalog)),
        **changes,
    }
    return TaskBatches(
        arguments.pop("maker"), arguments.pop("histories"), arguments.pop("mixture"), **arguments
    )


def epoch_of(batches: TaskBatches, epoch: int) -> list[dict[str, torch.Tensor]]:
    numbers = [number for number in range(400) if batches.locate(number)[0] == epoch]
    return [batches[number] for number in numbers]


def learned(batch: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    """The answers of a batch: labels that count, row by row."""
    return [tuple(row[row != -100].tolist()) for row in batch["labels"]]


def test_an_example_is_what_the_model_will_be_asked(index: ItemIndex) -> None:
    maker = maker_of(index)
    rows = np.array([5, 9])
    (codes,) = maker.examples("semantic_id", [rows], np.array([13]))
    paths = index.level_tokens + maker.token_offset
    assert codes.prompt == [START, *paths[5], *paths[9], END]
    assert codes.answer == paths[13].tolist()
    (title,) = maker.examples("title", [rows], np.array([13]))
    vocabulary = maker.speech.vocabulary
    assert title.prompt == [*codes.prompt, vocabulary.mark("title")]
    assert vocabulary.text(title.answer) == index.catalog.titles[13]
    (named,) = maker.examples("title_of_code", [rows[:1]], rows[:1])
    assert named.prompt == [START, *paths[5], END, vocabulary.mark("name")]
    assert vocabulary.text(named.answer) == index.catalog.titles[5]
    (coded,) = maker.examples("code_of_title", [rows[:1]], rows[:1])
    assert coded.answer == paths[5].tolist()


def test_an_epoch_learns_every_event_once(index: ItemIndex) -> None:
    batches = batches_of(index)
    training = training_part(toy_histories(), "last-two")
    paths = index.level_tokens + maker_of(index).token_offset
    expected = Counter(tuple(paths[item].tolist()) for item in training.items)
    for epoch in (0, 1):
        got = Counter(answer for batch in epoch_of(batches, epoch) for answer in learned(batch))
        assert got == expected
    first, second = (epoch_of(batches, epoch)[0]["input_ids"].tolist() for epoch in (0, 1))
    assert first != second


def test_learning_all_covers_every_event_once_too(index: ItemIndex) -> None:
    """Whole stretches: an item in a prompt is as good a target as the answer behind it."""
    batches = batches_of(index, loss_on="all", max_items=3)
    training = training_part(toy_histories(), "last-two")
    offset = maker_of(index).token_offset
    expected = Counter((index.level_tokens[training.items] + offset)[:, 0].tolist())
    for epoch in (0, 1, 2):
        labels = [token for batch in epoch_of(batches, epoch) for row in learned(batch) for token in row]
        firsts = set((index.level_tokens[:, 0] + offset).tolist())
        assert Counter(token for token in labels if token in firsts) == expected


def test_batches_repeat_by_number_and_seed(index: ItemIndex) -> None:
    one, again, other = batches_of(index), batches_of(index), batches_of(index, seed=2)
    for number in (90, 3, 0):  # in any order, as a resumed run asks
        assert torch.equal(one[number]["input_ids"], again[number]["input_ids"])
    assert not all(torch.equal(one[number]["labels"], other[number]["labels"]) for number in range(5))


def test_lengths_are_alike_within_a_batch(index: ItemIndex) -> None:
    batches = batches_of(index, batch_size=8, max_items=20)
    epoch = epoch_of(batches, 0)
    real = sum(int(batch["attention_mask"].sum()) for batch in epoch)
    padded = sum(batch["attention_mask"].numel() for batch in epoch)
    assert real / padded > 0.9
    widths = [batch["input_ids"].shape[1] for batch in epoch]
    assert widths != sorted(widths), "short batches do not all come first"


def test_the_mixture_is_drawn_by_weight(index: ItemIndex) -> None:
    mixture = {"semantic_id": 3.0, "title": 1.0, "title_of_code": 1.0, "code_of_title": 1.0}
    batches = batches_of(index, mixture=mixture)
    offset = maker_of(index).token_offset
    answers = [answer for number in range(60) for answer in learned(batches[number])]
    share = np.mean([answer[0] < offset for answer in answers])
    assert abs(share - 2 / 6) < 0.08  # titles and names are text


def test_items_without_a_title_teach_no_text(index: ItemIndex) -> None:
    maker = maker_of(index)
    maker.speech.is_titled[:] = False
    with pytest.raises(TrainingError, match="expected items with titles to learn title"):
        batches_of(index, maker=maker, mixture={"title": 1.0})[0]
    mixed = batches_of(index, maker=maker, mixture={"semantic_id": 1.0, "title": 1.0})
    assert all(len(answer) == len(index.level_sizes) for answer in learned(mixed[0]))


def test_tasks_about_single_items_name_no_removed_one(index: ItemIndex) -> None:
    batches = batches_of(index, mixture={"semantic_id": 1e-9, "title_of_code": 1.0}, active=np.array([7]))
    vocabulary = maker_of(index).speech.vocabulary
    named = {vocabulary.text(answer) for number in range(5) for answer in learned(batches[number])}
    assert named == {index.catalog.titles[7]}


def test_collated_causal_and_encoder_decoder() -> None:
    batch = [Example([1, 2, 3], [8, 9]), Example([4], [7])]
    causal = collate(batch, "answers", is_encoder_decoder=False)
    assert causal["input_ids"].tolist() == [[1, 2, 3, 8, 9], [4, 7, 0, 0, 0]]
    assert causal["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert causal["labels"].tolist() == [[-100, -100, -100, 8, 9], [-100, 7, -100, -100, -100]]
    whole = collate(batch, "all", is_encoder_decoder=False)
    assert whole["labels"].tolist() == [[1, 2, 3, 8, 9], [4, 7, -100, -100, -100]]
    apart = collate(batch, "answers", is_encoder_decoder=True)
    assert apart["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert apart["labels"].tolist() == [[8, 9], [7, -100]]


def test_an_encoder_has_no_prompt_to_learn(index: ItemIndex) -> None:
    with pytest.raises(TrainingError, match="whose prompts are not predicted"):
        batches_of(index, loss_on="all", is_encoder_decoder=True)


@pytest.mark.parametrize("epochs", [0.5, 1, 2.25])
def test_epochs_in_batches(index: ItemIndex, epochs: float) -> None:
    batches = batches_of(index)
    events = training_part(toy_histories(), "last-two").num_events
    assert abs(batches.batches_of_epochs(epochs) - epochs * events / 8) <= 1


def test_every_task_makes_examples(index: ItemIndex) -> None:
    maker = maker_of(index, "prose")
    for name in TASKS:
        (example,) = maker.examples(name, [np.array([3])], np.array([3]))
        assert example.prompt
        assert example.answer

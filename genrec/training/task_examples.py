"""Tasks as training batches for language models: prompt and answer in tokens, similar lengths together.

Prompts and answers come from the very functions that make them at inference (:class:`genrec.tasks.TaskSpec` and the
decoder's :class:`~genrec.decoders.prompt_reader.PromptReader`), so the two cannot drift apart. Batch number i of a
run is a function of the seed and i alone, so a resumed run sees the same batches. It knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset

from genrec.decoders.prompt_reader import PromptReader
from genrec.recipes.instructions import INSTRUCTIONS, NEXT
from genrec.recipes.lessons import Lesson, Lessons, Moment
from genrec.speech import Speech
from genrec.tasks import TASKS
from genrec.training.examples import Histories, window_bounds
from index.errors import TrainingError
from index.types import Int64Array, IntArray

LossOn: TypeAlias = Literal["answers", "all"]
"""What is learned: the answers, or the prompts as well (a causal model only)."""
POOL_BATCHES = 32
"""Examples are sorted by length inside pools of so many batches, then batches are shuffled."""
_IGNORED = -100  # what the losses of the transformers library leave out


@dataclass(frozen=True, slots=True)
class Example:
    """One question and its answer, as vocabulary ids."""

    prompt: list[int]
    answer: list[int]
    is_lesson: bool = False
    """Items in the prompt of an instruction may be drawn at random: its prompt is never learned."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, eq=False)
class ExampleMaker:
    """Makes examples of tasks.

    Args:
        speech: how the model reads and writes.
        reader: how its decoder turns prompts into ids.
        token_offset: vocabulary id of the trie's token 0.
    """

    speech: Speech
    reader: PromptReader
    token_offset: int

    def examples(self, task: str, prompts: Sequence[IntArray], targets: IntArray) -> list[Example]:
        """Examples of one task.

        Args:
            task: its name.
            prompts: R of int[P], what each prompt shows: a history, or the one item an alignment task is about.
            targets: int[R], catalog rows the answers name.
        """
        spec = TASKS[task]
        shift = 0 if spec.is_text else self.token_offset
        answers = spec.answers(self.speech, np.asarray(targets, np.int64))
        return [
            Example(
                self.reader.ids(spec.prompt(self.speech, rows)).tolist(), [token + shift for token in answer]
            )
            for rows, answer in zip(prompts, answers, strict=True)
        ]

    def lesson(self, lesson: Lesson) -> Example:
        """A lesson of an instruction, in the tokens that a session asks and a grammar answers with."""
        vocabulary = self.speech.vocabulary
        answer: list[int] = []
        for number, ids in enumerate(vocabulary.answers(lesson.answers), start=1):
            answer += [*(vocabulary.literal(f"\n{number}.") if number > 1 else ()), *ids[:-1]]
        return Example(vocabulary.prompt(lesson.prompt).tolist(), [*answer, vocabulary.end], is_lesson=True)


class TaskBatches(Dataset[dict[str, Any]]):
    """The batches of a run, by number.

    An epoch is one pass over all training events: each is the target of one task, drawn by the mixture's weights; a
    task about single items takes an item of the catalog instead. With ``loss_on="all"`` whole stretches of a history
    are examples, whose last event is the answer, as all events in them are learned.

    Args:
        maker: makes examples.
        histories: training events.
        mixture: weights of the tasks.
        max_items: items of a history that are read.
        batch_size: examples a batch.
        batches: how many there are in all, over all epochs.
        seed: of every draw.
        loss_on: what is learned.
        is_encoder_decoder: whether prompts are read by an encoder.
        active: int[M], catalog rows that tasks about single items may name.
        few: learn from so many training events alone, the same in every epoch; None: from all.
        longest: most tokens of an instruction with its answer; longer ones are left out.
    """

    def __init__(
        self,
        maker: ExampleMaker,
        histories: Histories,
        mixture: Mapping[str, float],
        *,
        max_items: int,
        batch_size: int,
        batches: int,
        seed: int,
        loss_on: LossOn,
        is_encoder_decoder: bool,
        active: IntArray,
        few: int | None = None,
        longest: int = 2**31,
    ) -> None:
        if loss_on == "all" and is_encoder_decoder:
            raise TrainingError(
                "expected the loss on answers for an encoder-decoder, whose prompts are not predicted, got 'all'"
            )
        self._maker, self._histories, self._mixture = maker, histories, mixture
        self._max_items, self._batch_size, self._batches = max_items, batch_size, batches
        self._seed, self._loss_on, self._is_encoder_decoder = seed, loss_on, is_encoder_decoder
        self._active = active
        self._few, self._longest = few, longest
        self._epoch_starts = [0]  # number of each epoch's first batch, as far as asked for
        self._pool = lru_cache(maxsize=2)(self._make_pool)

    def __len__(self) -> int:
        return self._batches

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Batch ``number``, padded, as a model of the transformers library takes it."""
        epoch, place = self.locate(number)
        batch = self._pool(epoch, place // POOL_BATCHES)[place % POOL_BATCHES]
        return collate(batch, self._loss_on, self._is_encoder_decoder)

    def locate(self, number: int) -> tuple[int, int]:
        """The epoch of a batch, and its place there."""
        starts = self._epoch_starts
        while starts[-1] <= number:
            events = len(self._targets(len(starts) - 1))
            starts.append(starts[-1] + -(-events // self._batch_size))
        epoch = int(np.searchsorted(starts, number, side="right")) - 1
        return epoch, number - starts[epoch]

    def batches_of_epochs(self, epochs: float) -> int:
        """Batches of so many epochs."""
        whole = int(epochs)
        self.locate(0)
        while len(self._epoch_starts) <= whole + 1:
            self.locate(self._epoch_starts[-1])
        begin, end = self._epoch_starts[whole], self._epoch_starts[whole + 1]
        return max(1, begin + round((epochs - whole) * (end - begin)))

    @lru_cache(maxsize=2)  # noqa: B019 - one dataset lives as long as its run
    def _targets(self, epoch: int) -> Int64Array:
        """int64[E, 2]: begin and end in the flat items of every example of an epoch; the last one is the target."""
        offsets, items = self._histories.offsets, self._histories.items
        rng = np.random.default_rng([self._seed, epoch])
        if self._loss_on == "all":
            begin, length = window_bounds(offsets, self._max_items + 1, rng)
            bounds = np.stack([begin, begin + length], 1)
        else:
            end = np.arange(len(items)) + 1
            user = np.searchsorted(offsets, end - 1, side="right") - 1
            bounds = np.stack([np.maximum(offsets[user], end - 1 - self._max_items), end], 1)
        return bounds[rng.permutation(len(bounds))][: self._few]

    def _make_pool(self, epoch: int, pool: int) -> list[list[Example]]:
        """The batches of a pool, in the order they are taken."""
        size = POOL_BATCHES * self._batch_size
        drawn = 0 if self._few else epoch  # a few examples are the same in all epochs, draws and all
        bounds = self._targets(drawn)[pool * size : (pool + 1) * size]
        rng = np.random.default_rng([self._seed, drawn, pool, 1])
        examples = self._examples(bounds, rng)
        if self._few:  # in another order
            rng = np.random.default_rng([self._seed, epoch, pool, 2])
            examples = [examples[place] for place in rng.permutation(len(examples))]
        examples.sort(key=len)
        count = -(-len(bounds) // self._batch_size)
        cuts = np.linspace(0, len(examples), count + 1).round().astype(int)
        batches = [examples[begin:end] for begin, end in pairwise(cuts)]
        return [batches[place] for place in rng.permutation(count)]

    def _examples(self, bounds: Int64Array, rng: np.random.Generator) -> list[Example]:
        items, names = self._histories.items, list(self._mixture)
        weights = np.array([self._mixture[name] for name in names])
        drawn = rng.choice(len(names), len(bounds), p=weights / weights.sum())
        examples = []
        for number, name in enumerate(names):
            chosen = bounds[drawn == number]
            if name in INSTRUCTIONS:
                examples += self._lessons(name, chosen, rng)
                continue
            targets = items[chosen[:, 1] - 1]
            prompts = [items[begin : end - 1] for begin, end in chosen.tolist()]
            if TASKS[name].shown != "history":
                targets = rng.choice(self._active, len(chosen))
                prompts = [targets[place : place + 1] for place in range(len(targets))]
            if (
                TASKS[name].is_text or TASKS[name].shown == "title"
            ):  # an item without a title has none to give
                kept = np.flatnonzero(self._maker.speech.is_titled[targets])
                targets, prompts = targets[kept], [prompts[place] for place in kept]
            examples += self._maker.examples(name, prompts, targets)
        if not examples:
            raise TrainingError(
                f"expected items with titles to learn {', '.join(names)} from, and instructions of at most "
                f"{self._longest} tokens, got none among {len(bounds)} examples; add titles to the catalog, or the "
                "task semantic_id"
            )
        return examples

    @cached_property
    def _writer(self) -> Lessons:
        return Lessons(self._maker.speech.index, self._histories.items)

    def _lessons(self, name: str, bounds: Int64Array, rng: np.random.Generator) -> list[Example]:
        """An instruction about each of these events, but those about an item that may not be answered with."""
        offsets, items = self._histories.offsets, self._histories.items
        ends = offsets[np.searchsorted(offsets, bounds[:, 1] - 1, side="right")]
        found = []
        for (begin, end), user_end in zip(bounds.tolist(), ends.tolist(), strict=True):
            after = list(dict.fromkeys(items[end - 1 : min(end - 1 + NEXT, user_end)].tolist()))
            moment = Moment(items[begin : end - 1].tolist(), after)
            if all(map(self._writer.may_answer, after)):
                found.append(self._maker.lesson(INSTRUCTIONS[name](self._writer, moment, rng)))
        return [one for one in found if len(one) <= self._longest]


def collate(batch: Sequence[Example], loss_on: LossOn, is_encoder_decoder: bool) -> dict[str, torch.Tensor]:
    """A padded batch: ``input_ids``, ``attention_mask`` and ``labels``, int64[B, P] each, padded on the right."""
    if is_encoder_decoder:
        inputs = [one.prompt for one in batch]
        labels = [one.answer for one in batch]
    else:
        inputs = [[*one.prompt, *one.answer] for one in batch]
        hidden = [0 if loss_on == "all" and not one.is_lesson else len(one.prompt) for one in batch]
        labels = [[_IGNORED] * n + ids[n:] for n, ids in zip(hidden, inputs, strict=True)]
    return {
        "input_ids": _padded(inputs, 0),
        "attention_mask": _padded([[1] * len(ids) for ids in inputs], 0),
        "labels": _padded(labels, _IGNORED),
    }


def _padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    parts = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=filler)

"""What a native model is taught to write: an answer per item and task, and the places of a batch it is asked at.

Which places are drawn is a function of (seed, epoch, batch) alone, so a resumed run draws the same. It knows no
model, no tokenizer and no titles: answers are token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from genrec.native_config import NativeConfig
from genrec.text_branch import Branches, Named
from index.errors import TrainingError
from index.types import Int64Array, IntArray

NAMED_ITEMS = 768
"""Events of a batch whose items are asked for the words of their titles; not tuned."""


class Answers:
    """The token ids of every item's answer to one task; none where an item has no answer.

    Args:
        ids: N of them, by catalog row, the terminator included.
    """

    def __init__(self, ids: Sequence[Sequence[int]]) -> None:
        self.length: Int64Array = np.array([len(one) for one in ids], np.int64)  # [N]
        self._start = np.cumsum(self.length) - self.length
        self.flat: Int64Array = np.fromiter((t for one in ids for t in one), np.int64, int(self.length.sum()))

    def padded(self, rows: IntArray, width: int) -> Int64Array:
        """int64[T, width]: the answers of catalog rows, right-padded with -1."""
        column = np.arange(width)
        inside = column < self.length[rows][:, None]
        return np.where(inside, self.flat[np.where(inside, self._start[rows][:, None] + column, 0)], -1)


@dataclass(frozen=True, slots=True)
class TextTask:
    """One thing to write, and how often it is asked for."""

    mark: int  # the token that asks for it
    answers: Answers
    weight: float  # its share among the tasks


@dataclass(frozen=True, slots=True)
class TextCorpus:
    """All that is to be written."""

    tasks: Sequence[TextTask]

    def arrays(self) -> list[IntArray]:
        """What decides the course of a run."""
        about = [np.array([task.mark, round(1e6 * task.weight)]) for task in self.tasks]
        return about + [array for task in self.tasks for array in (task.answers.length, task.answers.flat)]

    def named(self, rows: Int64Array, rng: np.random.Generator, count: int = NAMED_ITEMS) -> Named | None:
        """At most ``count`` items of a batch of histories int64[B, P], with the words of the first task's answers but
        for their terminators; None where no item drawn has any."""
        item = np.unique(rng.choice(rows[rows >= 0], count))
        answers = self.tasks[0].answers
        length = answers.length[item] - 1
        item, length = item[length > 0], length[length > 0]
        if not len(item):
            return None
        padded = answers.padded(item, int(length.max()))
        words = np.where(np.arange(padded.shape[1]) < length[:, None], padded, -1)
        return Named(torch.from_numpy(item), torch.from_numpy(words))

    def draw(self, rows: Int64Array, count: int, rng: np.random.Generator) -> Branches | None:
        """At most ``count`` branches at random events of a batch of histories int64[B, P]; None where no item
        drawn has an answer."""
        user, place = np.nonzero(rows >= 0)
        chosen = rng.integers(0, len(user), count)
        user, place = user[chosen], place[chosen]
        share = np.array([task.weight for task in self.tasks])
        kind = rng.choice(len(self.tasks), count, p=share / share.sum())
        known = place + 1  # a branch stands behind the item before the one it is about
        length = np.zeros(count, np.int64)
        item = rows[user, place]
        for number, task in enumerate(self.tasks):
            mine = kind == number
            length[mine] = task.answers.length[item[mine]]
        kept = length > 0
        if not kept.any():
            return None
        user, known, kind, item = user[kept], known[kept], kind[kept], item[kept]
        width = int(length[kept].max())
        answer = np.empty((len(user), width), np.int64)
        for number, task in enumerate(self.tasks):
            mine = kind == number
            answer[mine] = task.answers.padded(item[mine], width)
        mark = np.array([task.mark for task in self.tasks])[kind]
        return Branches(*(torch.from_numpy(one) for one in (user, known, mark, item, answer)))


def check_corpus(corpus: TextCorpus | None, items: int, config: NativeConfig) -> None:
    """Refuse a corpus that is not about the catalog or does not fit the model.

    Raises:
        TrainingError: there is one and the model writes no text, or none and it does; answers are not one per
            item, longer than the model's branches, of other token ids, or all empty.
    """
    if (corpus is None) != (config.text_size == 0):
        raise TrainingError(
            f"expected texts for a model with a text vocabulary and none for another, got "
            f"{'none' if corpus is None else 'some'} for {config.text_size} tokens; correct the model config"
        )
    for task in corpus.tasks if corpus is not None else ():
        answers = task.answers
        if len(answers.length) != items:
            raise TrainingError(
                f"expected an answer for each of {items} items, got {len(answers.length)}; "
                "make the answers from the index's catalog"
            )
        if not len(answers.flat):
            raise TrainingError("expected something to write, got empty answers; check the catalog's titles")
        if int(answers.length.max()) > config.max_text:
            raise TrainingError(
                f"expected answers of at most {config.max_text} tokens, got {int(answers.length.max())}; "
                "raise max_text"
            )
        if int(answers.flat.min()) < 0 or int(answers.flat.max()) >= config.text_size:
            raise TrainingError(
                f"expected token ids in [0, {config.text_size}), got {int(answers.flat.min())} to "
                f"{int(answers.flat.max())}; use the vocabulary the model was made for"
            )

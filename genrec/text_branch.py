"""Text behind a history: the branch a native model writes, in training, with the history's positions paid once.

A branch is a mark, the token that says what is wanted; a *plan*, the item that is written about, as one position of
its vector; and the words of an answer. It follows some position of a history, sees that position, all before it and
itself, and its positions count on from there. Many branches may follow one history, at the same place or at
different ones, and none sees another.

Which item comes next, the code heads say, and they learn it from every event; a branch learns how it is put into
words. Decoding does the same (:mod:`genrec.decoders.planned_text`): the heads choose codes, their item is fed, words
follow. That both equal one plain sequence is tested.

It knows no codes, no titles and no search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from genrec.native_config import NativeConfig


class TextEnds(nn.Module):
    """Where text enters and leaves the body: one embedding of tokens for both, and the head's bias.

    ``tell`` is for training alone: through it an item's vector says which words its title has, in any order.
    """

    def __init__(self, config: NativeConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.text_size, config.hidden_size)
        self.bias = nn.Parameter(torch.zeros(config.text_size))
        self.tell = nn.Linear(config.hidden_size, config.hidden_size)
        # As long as an item's vector; behind the body's last norm the logits then start at standard normal.
        nn.init.normal_(self.embedding.weight, std=config.hidden_size**-0.5)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits float[..., V] of every text token for the body's output float[..., H]."""
        return nn.functional.linear(hidden, self.embedding.weight, self.bias)


class Trunk(Cache):
    """Keys and values of a batch of histories as the body makes them, one pair per layer, for branches to see."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.keys: list[Tensor] = []  # [B, heads, P, D] per layer
        self.values: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Remember a layer's keys and values; they are all there is to attend to."""
        assert layer_idx == len(self.keys), "a trunk is made by one pass"
        self.keys.append(key_states)
        self.values.append(value_states)
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions before those of the pass: none."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Length and offset of the keys."""
        return query_length, 0


class _Grafted(Cache):
    """A trunk as the past of branches: each sees its own history's keys and values, then its own."""

    def __init__(self, trunk: Trunk, history: Tensor) -> None:
        super().__init__(layers=[])
        self._trunk, self._history = trunk, history

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self._trunk.keys[layer_idx], self._trunk.values[layer_idx]
        return (
            torch.cat([keys[self._history], key_states], 2),
            torch.cat([values[self._history], value_states], 2),
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._trunk.keys[0].shape[2]

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0


LENGTH_GROUPS = 4
"""Measured (128 branches, hidden 128, one thread): 660 ms of CPU a step with one group, 480 with four."""


@dataclass(frozen=True, slots=True)
class Branches:
    """T text branches behind a batch of histories."""

    history: Tensor  # int64[T], which history of the batch
    known: Tensor  # int64[T], positions of it that the branch sees: the start and known - 1 items
    mark: Tensor  # int64[T], the tokens that say what is wanted
    item: Tensor  # int64[T], the catalog rows that are written about
    answer: Tensor  # int64[T, D], words, right-padded with -1; the terminator is part of an answer

    def take(self, which: Tensor) -> Branches:
        """The branches ``which`` (int64[n]), no wider than the longest of them."""
        answer = self.answer[which]
        width = int((answer >= 0).sum(1).max())
        return Branches(
            self.history[which], self.known[which], self.mark[which], self.item[which], answer[:, :width]
        )


@dataclass(frozen=True, slots=True)
class Named:
    """T items and the words of their titles."""

    item: Tensor  # int64[T], catalog rows
    words: Tensor  # int64[T, W], right-padded with -1; one at least of each


class Writer(Protocol):
    """What branches need of a model."""

    @property
    def body(self) -> nn.Module:
        """The layers."""

    @property
    def text(self) -> TextEnds | None:
        """Where text enters and leaves them."""

    def item_vectors(self, rows: Tensor) -> Tensor:
        """Vectors float[B, P, H] of items int64[B, P]."""


def branch_hidden(model: Writer, trunk: Trunk, branches: Branches) -> Tensor:
    """The body's output float[T, D, H] of branches: place d has read the mark, the plan and the first d words."""
    ends, body = model.text, model.body
    assert ends is not None
    marks = ends.embedding(branches.mark)[:, None]
    plans = model.item_vectors(branches.item[:, None])
    words = ends.embedding(branches.answer[:, :-1].clamp(min=0))
    vectors = torch.cat([marks, plans, words], 1)  # [T, 1 + D, H]
    depth = torch.arange(vectors.shape[1], device=vectors.device)
    past = torch.arange(trunk.keys[0].shape[2], device=vectors.device)
    seen = torch.cat(
        [
            (past < branches.known[:, None])[:, None].expand(-1, len(depth), -1),
            (depth <= depth[:, None]).expand(len(vectors), -1, -1),
        ],
        2,
    )  # [T, 1 + D, P + 1 + D]
    mask = torch.zeros(seen.shape, device=vectors.device).masked_fill_(~seen, torch.finfo(torch.float32).min)
    is_training = body.training
    body.eval()
    output: Tensor = body(
        inputs_embeds=vectors,
        position_ids=branches.known[:, None] + depth,
        attention_mask=mask[:, None],
        past_key_values=_Grafted(trunk, branches.history),
        use_cache=True,
    ).last_hidden_state
    body.train(is_training)
    return output[:, 1:]


def branch_loss(model: Writer, trunk: Trunk, branches: Branches) -> Tensor:
    """Mean cross-entropy in nats per word of branches, over the whole text vocabulary.

    Nothing is dropped out in a branch, only in the trunk it sees and in the plan's own vector: what follows in a
    title is to be learned by heart, and drawing masks cost a sixth of a step.

    Branches of similar lengths run together: padded all to the longest, two of five positions would be padding
    (titles of Amazon Beauty).
    """
    assert model.text is not None
    length = (branches.answer >= 0).sum(1)
    total = trunk.keys[0].new_zeros(())
    for group in torch.argsort(length, stable=True).chunk(LENGTH_GROUPS):
        chosen = branches.take(group)
        hidden = branch_hidden(model, trunk, chosen)
        real = chosen.answer >= 0
        total = total + nn.functional.cross_entropy(
            model.text.logits(hidden[real]), chosen.answer[real], reduction="sum"
        )
    return total / length.sum()

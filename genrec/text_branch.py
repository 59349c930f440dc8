"""Text behind a history: the branch a native model writes, in training, with the history's positions paid once.

A branch is a mark, the token that says what is wanted, and the tokens of an answer. It follows some position of a
history, sees that position, all before it and itself, and has positions of its own, the same wherever it stands. Many
branches may follow one history, at the same place or at different ones, and none sees another. Decoding does the same
with beams as a tree (:mod:`genrec.decoders.native_text`); that both equal one plain sequence is tested.

It knows no codes, no titles and no search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from genrec.native_config import NativeConfig


class TextEnds(nn.Module):
    """Where text enters and leaves the body: one embedding of tokens for both, the head's bias, and the intent.

    A branch attends to what the body's layers made of the history, but not to what came out behind the last of
    them, where the next item is known. So its mark is told: the output at the position before it, through a matrix,
    is added to the mark's vector.
    """

    def __init__(self, config: NativeConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.text_size, config.hidden_size)
        self.bias = nn.Parameter(torch.zeros(config.text_size))
        self.intent = nn.Linear(config.hidden_size, config.hidden_size)
        self.first_position = config.text_position
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
        self.output: Tensor | None = (
            None  # [B, P, H] behind the last layer; whoever runs the body keeps it here
        )

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
    answer: Tensor  # int64[T, D], right-padded with -1; the terminator is part of an answer

    def take(self, which: Tensor) -> Branches:
        """The branches ``which`` (int64[n]), no wider than the longest of them."""
        answer = self.answer[which]
        width = int((answer >= 0).sum(1).max())
        return Branches(self.history[which], self.known[which], self.mark[which], answer[:, :width])


def branch_hidden(body: nn.Module, ends: TextEnds, trunk: Trunk, branches: Branches) -> Tensor:
    """The body's output float[T, D, H] of branches: place d has read the mark and the first d answer tokens."""
    assert trunk.output is not None
    fed = torch.cat([branches.mark[:, None], branches.answer[:, :-1].clamp(min=0)], 1)  # [T, D]
    vectors = ends.embedding(fed)
    intent = ends.intent(trunk.output[branches.history, branches.known - 1])
    vectors = torch.cat([vectors[:, :1] + intent[:, None], vectors[:, 1:]], 1)
    depth = torch.arange(fed.shape[1], device=fed.device)
    past = torch.arange(trunk.keys[0].shape[2], device=fed.device)
    seen = torch.cat(
        [
            (past < branches.known[:, None])[:, None].expand(-1, len(depth), -1),
            (depth <= depth[:, None]).expand(len(fed), -1, -1),
        ],
        2,
    )  # [T, D, P + D]
    mask = torch.zeros(seen.shape, device=fed.device).masked_fill_(~seen, torch.finfo(torch.float32).min)
    is_training = body.training
    body.eval()
    output: Tensor = body(
        inputs_embeds=vectors,
        position_ids=(ends.first_position + depth).expand(len(fed), -1),
        attention_mask=mask[:, None],
        past_key_values=_Grafted(trunk, branches.history),
        use_cache=True,
    ).last_hidden_state
    body.train(is_training)
    return output


def branch_loss(body: nn.Module, ends: TextEnds, trunk: Trunk, branches: Branches) -> Tensor:
    """Mean cross-entropy in nats per answer token of branches, over the whole text vocabulary.

    Nothing is dropped out in a branch, only in the trunk it sees: what follows in a title is to be learned by heart,
    and drawing masks cost a sixth of a step.

    Branches of similar lengths run together: padded all to the longest, two of five positions would be padding
    (titles of Amazon Beauty).
    """
    length = (branches.answer >= 0).sum(1)
    total = trunk.keys[0].new_zeros(())
    for group in torch.argsort(length, stable=True).chunk(LENGTH_GROUPS):
        chosen = branches.take(group)
        hidden = branch_hidden(body, ends, trunk, chosen)
        real = chosen.answer >= 0
        total = total + nn.functional.cross_entropy(
            ends.logits(hidden[real]), chosen.answer[real], reduction="sum"
        )
    return total / length.sum()

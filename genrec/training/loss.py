"""What the native model is trained to lower: minus the log-probability of the next item, at every position, and of
what it is to write, at some."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from genrec.native_model import NativeModel
from genrec.text_branch import Branches, Trunk, branch_loss
from genrec.training.siblings import Siblings


def sequence_loss(
    model: NativeModel, rows: Tensor, siblings: Siblings | None = None, trunk: Trunk | None = None
) -> Tensor:
    """Mean cross-entropy in nats per event of histories int64[B, P], right-padded with -1: Σ over levels.

    Position p predicts item p from the start token and the items before it. Without ``siblings`` a level's
    softmax runs over all its codes. With them it runs over the codes the catalog has at that place: the loss
    is then minus the log-probability of the item among all items, exactly as the search scores under
    ``normalize="catalog"``, and a forced code costs neither loss nor time. ``trunk`` keeps the body's keys and
    values, for text branches.
    """
    hidden = model.encode(rows[:, :-1], trunk)  # [B, P, H]
    real = rows >= 0
    hidden, items = hidden[real], rows[real]  # [T, H], [T]
    tokens = model.item_tokens[items]  # [T, L]
    prefix = torch.zeros_like(hidden)
    total = hidden.new_zeros(())
    for level, head in enumerate(model.heads):
        target = tokens[:, level] - model.level_offsets[level]
        if siblings is None:
            total = total + cross_entropy(
                model.code_logits(head(hidden, prefix), level), target, reduction="sum"
            )
        else:
            open_ = torch.nonzero(siblings.count(level, items) > 1)[:, 0]
            logits = model.code_logits(head(hidden[open_], prefix[open_]), level)
            absent = siblings.absent(level, items[open_], logits.shape[1])
            logits = logits.masked_fill(absent, -torch.inf)
            total = total + cross_entropy(logits, target[open_], reduction="sum")
        prefix = prefix + model.code_embedding(tokens[:, level])
    return total / len(items)


def joint_loss(
    model: NativeModel, rows: Tensor, siblings: Siblings | None, branches: Branches | None, text_weight: float
) -> Tensor:
    """:func:`sequence_loss` plus ``text_weight`` times the loss of text branches per token, the trunk run once."""
    if model.text is None or branches is None:
        return sequence_loss(model, rows, siblings)
    trunk = Trunk()
    codes = sequence_loss(model, rows, siblings, trunk)
    return codes + text_weight * branch_loss(model.body, model.text, trunk, branches, model.dropout)

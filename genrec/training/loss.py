"""What the native model is trained to lower: minus the log-probability of the next item, at every position, and of
what it is to write, at some."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from genrec.native_model import PATH_DROPOUT, NativeModel
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
    places = model.item_places[items]  # [T, L + 1]
    if model.training and len(model.paths):
        places = places * (torch.rand(len(places), 1) >= PATH_DROPOUT)
    prefix = torch.zeros_like(hidden)
    total = hidden.new_zeros(())
    for level, head in enumerate(model.heads):
        target = tokens[:, level] - model.level_offsets[level]
        if siblings is None:
            total = total + cross_entropy(
                model.code_logits(head(hidden, prefix), level, places[:, level]), target, reduction="sum"
            )
        else:
            open_ = torch.nonzero(siblings.count(level, items) > 1)[:, 0]
            logits = model.code_logits(head(hidden[open_], prefix[open_]), level, places[open_, level])
            absent = siblings.absent(level, items[open_], logits.shape[1])
            logits = logits.masked_fill(absent, -torch.inf)
            total = total + cross_entropy(logits, target[open_], reduction="sum")
        prefix = prefix + model.code_embedding(tokens[:, level])
    return total / len(items)


def joint_loss(
    model: NativeModel,
    rows: Tensor,
    siblings: Siblings | None,
    branches: Branches | None,
    words: Tensor | None,
    text_weight: float,
) -> Tensor:
    """:func:`sequence_loss` plus ``text_weight`` times that of text, with the trunk run once.

    Text is the loss of branches per token, and half that of ``words`` at every event.
    """
    if model.text is None or branches is None or words is None:
        return sequence_loss(model, rows, siblings)
    trunk = Trunk()
    codes = sequence_loss(model, rows, siblings, trunk)
    text = branch_loss(model.body, model.text, trunk, branches)
    return codes + text_weight * (text + 0.5 * words_loss(model, trunk, rows, words))


def words_loss(model: NativeModel, trunk: Trunk, rows: Tensor, words: Tensor) -> Tensor:
    """Mean cross-entropy in nats of what marks are told against the tokens of the next item's text, in any order.

    Branches are few because they are dear. This asks every position for the next item's words at the price of one
    product, so what a mark is told is learned from all events.

    Args:
        model: one with text.
        trunk: of ``rows[:, :-1]``.
        rows: int64[B, P], right-padded with -1.
        words: int64[T, W] for the T events of ``rows``, right-padded with -1.
    """
    assert model.text is not None
    assert trunk.output is not None
    real = words >= 0
    told = model.text.intent(model.dropout(trunk.output)[rows >= 0])  # [T, H]
    log_p = torch.log_softmax(model.text.logits(told), 1)
    share = real / real.sum(1, keepdim=True).clamp(min=1)
    nats = -(log_p.gather(1, words.clamp(min=0)) * share).sum()
    return nats / real.any(1).sum().clamp(min=1)

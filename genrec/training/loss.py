"""What the native model is trained to lower: minus the log-probability of the next item, at every position, and of
what it is to write of it, at some."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from genrec.dropout import dropped_rows
from genrec.native_model import OWN_DROPOUT, NativeModel
from genrec.text_branch import Branches, Named, Trunk, branch_loss
from genrec.training.siblings import Siblings


def sequence_loss(
    model: NativeModel,
    rows: Tensor,
    siblings: Siblings | None = None,
    trunk: Trunk | None = None,
    targets: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy in nats per event of histories int64[B, P], right-padded with -1: Σ over levels.

    Position p predicts item p of ``targets`` (those of ``rows`` where not given) from the start token and the items
    of ``rows`` before it. Without ``siblings`` a level's
    softmax runs over all its codes. With them it runs over the codes the catalog has at that place: the loss
    is then minus the log-probability of the item among all items, exactly as the search scores under
    ``normalize="catalog"``, and a forced code costs neither loss nor time. ``trunk`` keeps the body's keys and
    values, for text branches.
    """
    hidden = model.encode(rows[:, :-1], trunk)  # [B, P, H]
    real = rows >= 0
    hidden, items = hidden[real], (rows if targets is None else targets)[real]  # [T, H], [T]
    tokens = model.item_tokens[items]  # [T, L]
    places = model.item_places[items]  # [T, L + 1]
    if model.training and len(model.paths):
        places = places * dropped_rows(places, OWN_DROPOUT)
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
    named: Named | None,
    text_weight: float,
    targets: Tensor | None = None,
) -> Tensor:
    """:func:`sequence_loss` plus ``text_weight`` times that of text, with the trunk run once.

    Text is the loss of branches per word, and half that of naming items.
    """
    if model.text is None or branches is None or named is None:
        return sequence_loss(model, rows, siblings, targets=targets)
    trunk = Trunk()
    codes = sequence_loss(model, rows, siblings, trunk, targets)
    text = branch_loss(model, trunk, branches)
    return codes + text_weight * (text + 0.5 * words_loss(model, named))


def words_loss(model: NativeModel, named: Named) -> Tensor:
    """Mean cross-entropy in nats of items' vectors against the words of their titles, in any order.

    Branches are few because they are dear, and each has to learn which words belong to an item and how they follow
    each other. This asks for the first alone, of many items, at the price of one product.
    """
    assert model.text is not None
    real = named.words >= 0
    told = model.text.tell(model.item_vectors(named.item[None])[0])  # [T, H]
    log_p = torch.log_softmax(model.text.logits(told), 1)
    share = real / real.sum(1, keepdim=True)
    return -(log_p.gather(1, named.words.clamp(min=0)) * share).sum() / len(named.item)

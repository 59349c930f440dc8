"""Dropout by bytes: what is kept, how it is scaled, and when nothing is dropped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genrec.dropout import Dropout, dropped, dropped_rows


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5])
def test_a_mask_drops_its_part_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    mask = dropped(torch.empty(300, 333), rate)  # a size that eight does not divide
    assert mask.shape == (300, 333)
    assert (mask == 0).float().mean().item() == pytest.approx(rate, abs=0.005)
    assert mask.mean().item() == pytest.approx(1.0, abs=0.01)
    assert len(mask.unique()) == 2, "one scale for all that is kept"


def test_every_byte_of_a_draw_is_uniform() -> None:
    """Each of the eight drops as often as the others: a draw of 63 bits would leave its last byte below 128."""
    torch.manual_seed(0)
    mask = dropped(torch.empty(100_000, 8), 0.3)
    assert (mask == 0).float().mean(0).tolist() == pytest.approx([0.3] * 8, abs=0.01)


def test_masks_follow_the_seed_and_differ_from_draw_to_draw() -> None:
    torch.manual_seed(1)
    first, second = dropped(torch.empty(64), 0.5), dropped(torch.empty(64), 0.5)
    torch.manual_seed(1)
    assert torch.equal(dropped(torch.empty(64), 0.5), first)
    assert not torch.equal(first, second)


def test_rows_are_dropped_whole_and_not_scaled() -> None:
    torch.manual_seed(0)
    mask = dropped_rows(torch.empty(50, 40, 8), 0.2)
    assert mask.shape == (50, 40, 1)
    assert mask.unique().tolist() == [0.0, 1.0]
    assert mask.mean().item() == pytest.approx(0.8, abs=0.03)
    assert dropped_rows(torch.zeros(5, 3, dtype=torch.int64), 0.2).dtype == torch.int64


def test_the_module_and_the_hook_drop_in_training_alone() -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, requires_grad=True)
    module, layer = Dropout(0.5), nn.Identity()
    layer.register_forward_hook(module.after_module)
    for part in (module, layer):
        part.train()
        dropped_out = part(x)
        assert 300 < int((dropped_out == 0).sum()) < 700
        (gradient,) = torch.autograd.grad(dropped_out.sum(), x)
        assert torch.equal(gradient, dropped_out.detach()), "what is dropped has no gradient"
        part.eval()
        assert torch.equal(part(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)


@pytest.mark.parametrize("rate", [0.001, 0.999])
def test_the_smallest_and_the_largest_rate_still_drop_some_and_keep_some(rate: float) -> None:
    torch.manual_seed(0)
    kept = (dropped(torch.empty(4000), rate) != 0).float().mean().item()
    assert kept == pytest.approx(1 / 256 if rate > 0.5 else 255 / 256, abs=0.005)
    assert dropped(torch.empty(0, 8), rate).shape == (0, 8)

"""Products of chosen pairs against indexing, gradients too."""

from __future__ import annotations

import pytest
import torch

from genrec.edge_products import edge_products


@pytest.mark.parametrize(
    "counts", [[3, 0, 1, 2], [0, 0, 0, 0], [0, 5, 0, 0]], ids=["ragged", "no edge", "one row"]
)
def test_products_and_gradients_equal_those_of_indexing(counts: list[int]) -> None:
    torch.manual_seed(0)
    a = torch.randn(4, 5, requires_grad=True)
    b = torch.randn(7, 5, requires_grad=True)  # rows 5 and 6 are never asked for
    count, column = torch.tensor(counts), torch.tensor([4, 0, 4, 1, 4, 2])[: sum(counts)]
    weight = torch.randn(sum(counts))
    row = torch.repeat_interleave(count)
    ours, theirs = edge_products(a, b, count, column), (a[row] * b[column]).sum(1)
    torch.testing.assert_close(ours, theirs)
    expected = torch.autograd.grad((theirs * weight).sum(), (a, b))
    for ours_, theirs_ in zip(torch.autograd.grad((ours * weight).sum(), (a, b)), expected, strict=True):
        torch.testing.assert_close(ours_, theirs_)

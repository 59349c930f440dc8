"""Dot products of chosen pairs of rows of two matrices, and their gradients, without a copy of the rows.

Written with indexing, ``(a[row] * b[column]).sum(1)``, one such product of a training step copied 40,000 rows four
times. Measured, one thread, 38,000 pairs of width 128: 58 ms forward and back so, 8 ms here. It knows no model.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def edge_products(a: Tensor, b: Tensor, count: Tensor, column: Tensor) -> Tensor:
    """float[E]: the product of ``b[column[e]]`` with the row of ``a`` that edge e belongs to.

    Args:
        a: float[R, H].
        b: float[M, H].
        count: int64[R], edges of each row of ``a``; the edges stand row by row.
        column: int64[E], rows of ``b``, E the sum of ``count``.
    """
    return _EdgeProducts.apply(a, b, count, column)  # type: ignore[no-any-return,no-untyped-call]


class _EdgeProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, count: Tensor, column: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, count, column)
        first = torch.cat([count.new_zeros(1), count.cumsum(0)])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            nothing = a.new_zeros(len(column))
            pairs = torch.sparse_csr_tensor(first, column, nothing, (len(a), len(b)), check_invariants=False)
        products: Tensor = torch.sparse.sampled_addmm(pairs, a, b.T, beta=0.0).values()
        return products

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None, None]:
        a, b, count, column = ctx.saved_tensors
        weight = gradients[0].contiguous()
        of_a = embedding_bag(column, b, count.cumsum(0) - count, mode="sum", per_sample_weights=weight)
        in_order, order = torch.sort(column)
        first = torch.searchsorted(in_order, torch.arange(len(b), device=b.device))
        row = torch.repeat_interleave(count)[order]
        of_b = embedding_bag(row, a, first, mode="sum", per_sample_weights=weight[order])
        return of_a, of_b, None, None

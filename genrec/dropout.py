"""Dropout whose masks are drawn as bytes.

The stock one draws a float for every number: 16 to 21 % of a training step of the native model (Beauty and
MovieLens-1M). A byte is enough to decide with: eight come of one 64-bit draw. Measured, one thread of a busy machine,
[1536, 256]: 7.5 ms to draw a stock mask, 2.1 ms here. Attention keeps the stock one, in torch. It knows no model.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

BYTE = 256
"""A rate is rounded to a 256th, one at least and 255 at most; what is kept is scaled by the rounded one, so that
means stay as they are."""


def dropped(like: Tensor, rate: float) -> Tensor:
    """A random mask of the shape and type of ``like``: 0 for about ``rate`` of it, 1 / (1 - rate) elsewhere.

    Args:
        like: float[...].
        rate: in (0, 1).
    """
    return _kept(like.shape, rate, like).mul_(BYTE / (BYTE - _bytes_of(rate)))


def dropped_rows(like: Tensor, rate: float) -> Tensor:
    """[..., 1] for ``like`` [..., H], of its type: 0 for about ``rate`` of the rows, 1 elsewhere; not scaled."""
    return _kept((*like.shape[:-1], 1), rate, like)


def _bytes_of(rate: float) -> int:
    """How many of the 256 values of a byte mean: drop."""
    return min(max(round(rate * BYTE), 1), BYTE - 1)


def _kept(shape: tuple[int, ...], rate: float, like: Tensor) -> Tensor:
    count = math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64, device=like.device)
    drawn = words.random_(-(2**63), None).view(torch.uint8)[:count].view(shape)  # all 64 bits
    return (drawn >= _bytes_of(rate)).to(like.dtype)


class Dropout(nn.Module):
    """As ``torch.nn.Dropout``, by :func:`dropped`.

    Args:
        rate: part of numbers that is dropped, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``x`` in evaluation mode, ``x`` under a new mask in training."""
        return x * dropped(x, self.rate) if self.training and self.rate else x

    def after_module(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """As a forward hook: what ``module`` gives, dropped out while that module trains."""
        return output * dropped(output, self.rate) if module.training and self.rate else output

from __future__ import annotations

import numpy as np
import pytest
import torch

from genrec.decoders.output_head import OutputHead
from index.types import Float32Array


def by_definition(weight: torch.Tensor, bias: torch.Tensor | None, hidden: torch.Tensor) -> Float32Array:
    logits = hidden.double() @ weight.double().T + (0 if bias is None else bias.double())
    return logits.exp().sum(1).log().float().numpy()


@pytest.fixture
def always_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.decoders.output_head._PACKED_FROM", 0)


@pytest.mark.usefixtures("always_packed")
@pytest.mark.parametrize("rows", [1, 20, 130])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_packed_head_normalises_as_by_definition(rows: int, with_bias: bool) -> None:
    torch.manual_seed(0)
    weight, hidden = torch.randn(301, 24), torch.randn(rows, 24)
    bias = torch.randn(301) if with_bias else None
    head = OutputHead(weight, bias)
    with torch.inference_mode():
        got = head.log_normalizer(hidden)
    assert head._packed is not None
    np.testing.assert_allclose(got, by_definition(weight, bias, hidden), atol=1e-5)


@pytest.mark.usefixtures("always_packed")
def test_a_head_that_is_trained_on_is_packed_anew() -> None:
    """A decoder may evaluate a model between two steps of its training; the copy must not lag behind."""
    torch.manual_seed(0)
    weight, hidden = torch.nn.Parameter(torch.randn(50, 8)), torch.randn(3, 8)
    head = OutputHead(weight.detach(), None)
    with torch.inference_mode():
        head.log_normalizer(hidden)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    weight.sum().backward()
    optimizer.step()
    with torch.inference_mode():
        got = head.log_normalizer(hidden)
    np.testing.assert_allclose(got, by_definition(weight.detach(), None, hidden), atol=1e-5)


def test_small_heads_and_half_precision_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight, hidden = torch.randn(50, 8), torch.randn(3, 8)
    small = OutputHead(weight, None)
    small.log_normalizer(hidden)
    monkeypatch.setattr("genrec.decoders.output_head._PACKED_FROM", 0)
    half = OutputHead(weight.bfloat16(), None)
    got = half.log_normalizer(hidden.bfloat16())
    assert small._packed is None
    assert half._packed is None
    np.testing.assert_allclose(got, by_definition(weight, None, hidden), atol=0.1)


@pytest.mark.usefixtures("always_packed")
def test_weights_made_under_inference_mode_can_be_packed() -> None:
    with torch.inference_mode():
        weight, hidden = torch.randn(50, 8), torch.randn(3, 8)
        got = OutputHead(weight, None).log_normalizer(hidden)
        np.testing.assert_allclose(got, by_definition(weight, None, hidden), atol=1e-5)

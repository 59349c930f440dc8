"""Paired bootstrap: intervals that hold what they should, and what pairing is for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from genrec.evaluation.paired import paired_differences
from index.errors import RequestError


def test_the_interval_is_that_of_the_mean_difference() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(4000), rng.random(4000)
    said = paired_differences(ours, {"theirs": theirs})["theirs"]
    assert said.mean == pytest.approx((ours - theirs).mean())
    width = 2 * 1.96 * (ours - theirs).std() / math.sqrt(4000)
    assert said.high - said.low == pytest.approx(width, rel=0.1)
    assert said.low < said.mean < said.high
    assert said.cases == 4000


def test_what_is_hard_for_both_cancels_out() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random(300)  # a case's own difficulty: a hundred times what sets the systems apart
    said = paired_differences(hard + 0.01, {"lower": hard, "same": hard + 0.01, "higher": hard + 0.02})
    assert said["lower"].is_better
    assert not said["lower"].is_worse
    assert (said["same"].low, said["same"].high) == (0.0, 0.0)
    assert not said["same"].is_better
    assert not said["same"].is_worse
    assert said["higher"].is_worse


def test_chance_is_found_significant_about_one_time_in_twenty() -> None:
    rng = np.random.default_rng(2)
    found = [
        paired_differences(
            (rng.random(200) < 0.1).astype(float),
            {"twin": (rng.random(200) < 0.1).astype(float)},
            resamples=200,
            seed=seed,
        )["twin"]
        for seed in range(60)
    ]
    wrong = sum(one.is_better or one.is_worse for one in found)
    assert 0 < wrong <= 10


def test_all_systems_share_the_resamples_and_a_seed_repeats() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.random(50), rng.random(50)
    together = paired_differences(ours, {"a": theirs, "b": theirs})
    alone = paired_differences(ours, {"a": theirs})["a"]
    for one in (together["b"], alone):
        assert (one.mean, one.low, one.high) == pytest.approx(
            (together["a"].mean, together["a"].low, together["a"].high)
        )
    assert paired_differences(ours, {"a": theirs}, seed=1)["a"].low != pytest.approx(alone.low)
    assert paired_differences(ours, {}) == {}


@pytest.mark.parametrize(("differing", "enough"), [(1, False), (4, False), (5, False), (6, True), (40, True)])
def test_a_handful_of_cases_is_no_verdict(differing: int, enough: bool) -> None:
    """Four cases of 2,000, all ours, were "better": their interval ends above 0, as no sign test would let it."""
    ours, none = np.zeros(2000), np.zeros(2000)
    ours[:differing] = 1.0
    said = paired_differences(ours, {"none": none})["none"]
    assert (said.differing, said.is_better, said.is_worse) == (differing, enough, False)
    said = paired_differences(none, {"ours": ours})["ours"]
    assert (said.differing, said.is_better, said.is_worse) == (differing, False, enough)


def test_a_single_case_is_no_verdict() -> None:
    said = paired_differences(np.ones(1), {"none": np.zeros(1)})["none"]
    assert said.low == 1.0
    assert not said.is_better


def test_rounding_is_no_difference() -> None:
    said = paired_differences(np.full(20, 0.1 + 0.2), {"same": np.full(20, 0.3)})["same"]
    assert said.differing == 0
    assert not said.is_better


def test_bad_input_is_refused() -> None:
    ten = np.zeros(10)
    with pytest.raises(RequestError, match="C >= 1"):
        paired_differences(np.zeros(0), {})
    with pytest.raises(RequestError, match=r"per case of 'a' as of ours, \[10\], got \[9\]"):
        paired_differences(ten, {"a": np.zeros(9)})
    with pytest.raises(RequestError, match="at least 2 resamples"):
        paired_differences(ten, {"a": ten}, resamples=1)

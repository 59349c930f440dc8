"""Calibration: by hand, against scikit-learn's calibration curve, and on outcomes drawn from the probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from genrec.evaluation.calibration import calibration, list_calibration
from index.errors import RequestError


def test_by_hand() -> None:
    said = calibration(np.array([0.1, 0.1, 0.5, 0.5]), np.array([False, True, True, True]), bins=2)
    assert [(one.count, one.predicted, one.observed) for one in said.bins] == [(2, 0.1, 0.5), (2, 0.5, 1.0)]
    assert said.error == pytest.approx((0.4 + 0.5) / 2)
    assert (said.bins[0].low, said.bins[0].high) == (0.1, 0.1)


def test_equal_probabilities_share_a_bin() -> None:
    said = calibration(np.full(6, 0.5), np.array([True, False] * 3), bins=4)
    assert [(one.count, one.observed) for one in said.bins] == [(6, 0.5)]
    assert said.error == 0.0


def test_bins_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.beta(0.3, 5, 3999)  # so many that no edge of a bin falls on a value
    came_true = rng.random(3999) < probabilities**1.3
    said = calibration(probabilities, came_true, bins=15)
    observed, predicted = calibration_curve(came_true, probabilities, n_bins=15, strategy="quantile")
    np.testing.assert_allclose([one.observed for one in said.bins], observed)
    np.testing.assert_allclose([one.predicted for one in said.bins], predicted)
    assert sum(one.count for one in said.bins) == 3999
    counts = np.array([one.count for one in said.bins])
    assert said.error == pytest.approx(float(counts @ np.abs(observed - predicted)) / 3999)


def test_outcomes_drawn_from_the_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.beta(0.3, 5, 50_000)
    honest = calibration(probabilities, rng.random(50_000) < probabilities).error
    boasting = calibration(np.minimum(2 * probabilities, 1.0), rng.random(50_000) < probabilities).error
    assert honest < 0.005
    assert boasting == pytest.approx(probabilities.mean(), rel=0.15)


def test_of_lists() -> None:
    ranked = np.array([[4, 7, -1], [7, 4, 2], [-1, -1, -1]])
    shares = np.array([[0.5, 0.25, 0.0], [0.625, 0.25, 0.125], [0.0, 0.0, 0.0]])
    said = list_calibration(ranked, shares, np.array([4, 2, 1]))
    assert said is not None
    assert sum(one.count for one in said.items.bins) == 5  # padding is no prediction
    by_share = {one.low: one.observed for one in said.items.bins if one.count == 1}
    assert by_share[0.5] == 1.0
    assert by_share[0.625] == 0.0
    assert [(one.predicted, one.observed) for one in said.lists.bins] == [(0.0, 0.0), (0.75, 1.0), (1.0, 1.0)]
    assert said.lists.error == pytest.approx(0.25 / 3)
    assert list_calibration(np.full((2, 3), -1), np.zeros((2, 3)), np.array([0, 1])) is None


def test_only_ten_places_count() -> None:
    ranked = np.arange(12)[None]
    said = list_calibration(ranked, np.full((1, 12), 0.05), np.array([11]))
    assert said is not None
    assert said.lists.bins[0].predicted == pytest.approx(0.5)
    assert said.lists.bins[0].observed == 0.0  # the target stands on the twelfth place


@pytest.mark.parametrize(
    ("probabilities", "came_true", "bins", "message"),
    [
        ([], [], 15, "n >= 1"),
        ([0.5], [True, False], 15, r"\[1\] and \[2\]"),
        ([0.5, 1.2], [True, False], 15, "0.5 to 1.2"),
        ([0.5, -0.1], [True, False], 15, "-0.1 to 0.5"),
        ([0.5, float("nan")], [True, False], 15, "nan"),
        ([0.5], [True], 0, "at least one bin"),
    ],
)
def test_bad_input_is_refused(probabilities, came_true, bins, message) -> None:
    with pytest.raises(RequestError, match=message):
        calibration(np.array(probabilities, np.float64), np.array(came_true, np.bool_), bins)

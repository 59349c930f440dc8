"""Plots of how good a recommender is, each an SVG text: reliability, and quality against training time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genrec.bench.plot_style import (
    BLUE,
    GREEN,
    ORANGE,
    PAPER,
    PURPLE,
    QUIET,
    RED,
    SKY,
    as_svg,
    canvas,
    label_ends,
    plain_log,
    plotting,
)
from genrec.evaluation.calibration import Calibration, ListCalibration

_SERIES = (BLUE, GREEN, PURPLE, ORANGE, RED, SKY)


def reliability(system: str, said: ListCalibration, cases: int) -> str:
    """Predicted probability against the observed share, of items and of whole lists; the diagonal is perfect.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    with plotting():
        figure, axes = canvas(
            "What probabilities are worth",
            f"{system}, first ten of {cases:,} lists; each point holds as many predictions as the next; "
            f"ECE {said.items.error:.4f} of items, {said.lists.error:.4f} of lists",
            "predicted probability",
            "share that came true",
        )
        kinds: tuple[tuple[str, str, Calibration], ...] = (
            ("items", BLUE, said.items),
            ("lists", ORANGE, said.lists),
        )
        # Below the rarest thing that happened a bin can say no more than "never": the axes end there, and bins within
        # them in which nothing came true stand at the foot, hollow.
        happened = [found.observed for _, _, one in kinds for found in one.bins if found.observed]
        low = min(happened, default=0.1) / 2
        high = min(
            1.0, 1.6 * max(max(found.predicted, found.observed) for _, _, one in kinds for found in one.bins)
        )
        high = max(high, 2 * low)
        for axis in ("x", "y"):
            plain_log(axes, axis, base=(1,) if high > 300 * low else (1, 3))
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.plot([low, high], [low, high], color=QUIET, linewidth=1, linestyle=(0, (5, 3)))
        ends = [(high, high, "perfect", QUIET)]
        for name, colour, one in kinds:
            bins = [found for found in one.bins if found.predicted >= low]
            if not bins:
                continue
            predicted = [found.predicted for found in bins]
            observed = [max(found.observed, low) for found in bins]
            axes.plot(predicted, observed, color=colour, linewidth=1.8)
            for x, y, found in zip(predicted, observed, bins, strict=True):
                fill = colour if found.observed else PAPER
                axes.plot(x, y, "o", color=colour, markersize=5, markerfacecolor=fill, clip_on=False)
            axes.annotate(
                name, (predicted[-1], observed[-1]), xytext=(-8, 8), textcoords="offset points", ha="right",
                color=colour, fontsize=8.5, fontweight="bold",
            )  # fmt: skip
        label_ends(axes, ends)
        return as_svg(figure, f"Predicted probabilities of {system} against the share that came true")


@dataclass(frozen=True, slots=True)
class Curve:
    """Validation over one training run."""

    minutes: Sequence[float]
    values: Sequence[float]


def quality_by_minutes(
    title: str, metric: str, cases: str, trained: Mapping[str, Sequence[Curve]], free: Mapping[str, float]
) -> str:
    """Validation quality against training time; one line a seed, training-free systems as levels.

    Args:
        title: the data set.
        metric: what is drawn.
        cases: how many validation cases, in words.
        trained: by system, the curve of each seed.
        free: by system without training, its figure.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    with plotting():
        figure, axes = canvas(
            f"Quality by training time: {title}",
            f"{metric} on {cases} validation cases, a line a seed; dashed: no training",
            "minutes of training",
            metric,
            labels_need=0.2,
        )
        ends = []
        last = max((x for curves in trained.values() for one in curves for x in one.minutes), default=1.0)
        for colour, (name, curves) in zip(_SERIES, trained.items(), strict=False):
            for one in curves:
                axes.plot(one.minutes, one.values, color=colour, linewidth=1.4)
            if curves and curves[0].minutes:
                ends.append((curves[0].minutes[-1], curves[0].values[-1], name, colour))
        for name, value in free.items():
            axes.axhline(value, color=QUIET, linewidth=1, linestyle=(0, (5, 3)))
            ends.append((last, value, name, QUIET))
        axes.set_xlim(0, last * 1.02)
        axes.set_ylim(0)
        label_ends(axes, ends)
        return as_svg(figure, f"{metric} on validation against minutes of training on {title}")

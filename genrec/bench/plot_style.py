"""How plots look: one palette, labels at the lines, text that stays text, light and dark in one file.

A plot brings its own background, so it can be read on any page; where the reader prefers dark, a style sheet inside
the SVG turns its colours (programs that know no style sheets show it light). Colours follow Okabe and Ito (2008):
people with any colour vision can tell them apart. matplotlib is imported by whoever draws, never by importing this.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from index.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER, INK, QUIET, GRID = "#ffffff", "#1f2328", "#59636e", "#e3e7eb"
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072b2", "#c77800", "#00845f", "#c74a00", "#a8538a", "#56a5d8"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY)
_DARK = {
    PAPER: "#0d1117",
    INK: "#e6edf3",
    QUIET: "#9aa4af",
    GRID: "#2a313a",
    BLUE: "#4fa8e0",
    ORANGE: "#e69f00",
    GREEN: "#2bb88f",
    RED: "#f0803c",
    PURPLE: "#d68fbb",
    SKY: "#8cc8ee",
}
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, 'DejaVu Sans', sans-serif"
_WIDTH, _HEIGHT = 7.4, 4.3  # inches
LABEL_GAP = 0.058  # of the axes' height, between two labels at line ends
_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: small files, found by search, read aloud
    "svg.hashsalt": "genrec",  # the same figures make the same bytes
    "path.simplify": True,
    "font.family": "DejaVu Sans",  # comes with matplotlib; browsers show a narrower one, so what fits here fits there
    "font.size": 9,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": QUIET,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
}


@contextmanager
def plotting() -> Iterator[None]:
    """matplotlib with this style, without a window system, for the duration of a block.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="bench", purpose="Drawing plots")
    with matplotlib.rc_context(_SETTINGS):
        yield


def canvas(title: str, subtitle: str, x: str, y: str, *, labels_need: float = 0.16) -> tuple[Figure, Axes]:
    """Axes with a title, what was measured below it, and room for labels on the right (share of the width)."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.085, 0.135, 0.885 - labels_need, 0.625))
    figure.text(0.022, 0.945, title, fontsize=13, fontweight="bold", va="center")
    figure.text(0.022, 0.885, subtitle, fontsize=8.5, color=QUIET, va="center")
    figure.text(0.022, 0.805, y, fontsize=8.5, color=QUIET, va="center")  # level, where it is read at once
    axes.set_xlabel(x, fontsize=8.5)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", length=3, color=QUIET)
    return figure, axes


def plain_log(axes: Axes, which: str, *, base: Sequence[float] = (1, 2, 5)) -> None:
    """A logarithmic axis with plain numbers on it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=list(base)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _place: short(value)))


def short(value: float) -> str:
    """A number as people write it: 12,101 as 12,101, a million as 1M, .25 as 0.25."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit and value % (unit / 10) == 0:
            return f"{value / unit:g}{letter}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, falling: bool = False) -> None:
    """Labels right of where lines end, moved apart where they would meet: (x, y, text, colour) each.

    Lines that fall end beside each other: then all but the last have their label on the left, where nothing is.
    """
    to_share = axes.transData + axes.transAxes.inverted()
    places = sorted((float(to_share.transform((x, y))[1]), x, text, colour) for x, y, text, colour in ends)
    heights = spread([one[0] for one in places], LABEL_GAP)
    for height, (_, x, text, colour) in zip(heights, places, strict=True):
        left = falling and x < max(end[0] for end in ends)
        place = float(to_share.transform((x, axes.get_ylim()[0]))[0])
        axes.annotate(
            text, (place, height), xycoords="axes fraction", xytext=(-7 if left else 7, 0),
            textcoords="offset points", color=colour, fontsize=8.5, fontweight="bold", va="center",
            ha="right" if left else "left", annotation_clip=False,
        )  # fmt: skip


def width_of(text: str, size: float) -> float:
    """Share of a canvas's width that a text of so many points takes, in matplotlib's own font."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=size).get_extents().width) / (72 * _WIDTH)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved apart until neighbours are ``gap`` from each other, as little as may be.

    Groups of labels that touch move as one, around the mean of where they wanted to be.
    """
    groups: list[tuple[float, int]] = []  # middle, members
    for height in heights:
        middle, members = height, 1
        while groups and middle - groups[-1][0] < gap * (members + groups[-1][1]) / 2 - 1e-12:
            other, count = groups.pop()
            middle = (middle * members + other * count) / (members + count)
            members += count
        groups.append((middle, members))
    return [
        middle + gap * (place - (members - 1) / 2) for middle, members in groups for place in range(members)
    ]


def as_svg(figure: Figure, alternative: str) -> str:
    """The figure as SVG text that adapts to light and dark; ``alternative`` says in words what it shows."""
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    text = text[text.index("<svg") :].replace("'DejaVu Sans'", _FONTS)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    head = f"<title>{escape(alternative)}</title>\n <style>{_style_sheet()}</style>\n"
    text = text.replace("<svg ", '<svg role="img" ', 1)
    end = text.index(">") + 1
    return text[:end] + "\n " + head + text[end:]


def _style_sheet() -> str:
    rules = [
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in _DARK.items()
        for kind in ("fill", "stroke")
    ]
    return "@media (prefers-color-scheme: dark){" + "".join(rules) + "}"

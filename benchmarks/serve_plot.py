"""The picture of the serving benchmark: latency against offered rate, both systems, and the limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_COLOURS = {"peer": "#888888", "genrec": "#1f77b4", "catalog": "#2ca02c"}
_ALIGNED = {"peer": "center", "genrec": "right", "catalog": "left"}  # of the rates on top, so that none meet
_NAMES = {
    "peer": "Hugging Face generate",
    "genrec": "genrec, vocabulary scores",
    "catalog": "genrec, catalog scores (default)",
}


def plot(report: dict[str, Any], path: Path) -> None:
    """Medians as lines; p99 dashed, the longest answer where the sample is too small for a p99."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: half the bytes
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.6))
    for name, colour in _COLOURS.items():
        trials = [one for one in report["trials"][name] if not one["stopped_early"]]
        if not trials:
            continue
        rates = [one["rate"] for one in trials]
        axis.plot(
            rates,
            [one["latency_ms"]["p50"]["value"] for one in trials],
            "o-",
            color=colour,
            label=_NAMES[name],
        )
        tails = [one["latency_ms"]["p99"] for one in trials]
        shown = [
            one["longest_ms"] if tail is None else tail["value"]
            for one, tail in zip(trials, tails, strict=True)
        ]
        axis.plot(rates, shown, "^--", color=colour, alpha=0.6)
        best = report["goodput_per_second"][name]
        if best is not None:
            axis.axvline(best, color=colour, linewidth=0.8, alpha=0.5)
            axis.annotate(
                f"{best:.3g}/s", (best, 1), xycoords=("data", "axes fraction"), color=colour, ha=_ALIGNED[name],
                va="bottom", fontsize=8,
            )  # fmt: skip
    axis.axhline(report["slo_ms"], color="#d62728", linewidth=1)
    axis.annotate(
        f"limit {report['slo_ms']:.0f} ms (3 × the peer's unloaded p50)", (0.01, report["slo_ms"]),
        xycoords=("axes fraction", "data"), color="#d62728", va="bottom", fontsize=8,
    )  # fmt: skip
    axis.set(
        xlabel="offered requests a second (Poisson, one core for the model)",
        ylabel="latency from the planned moment, ms",
        xscale="log",
        yscale="log",
    )
    axis.grid(alpha=0.3, which="both")
    axis.plot([], [], "o-", color="black", label="median")
    axis.plot([], [], "^--", color="black", alpha=0.6, label="p99 (the longest where n < 1,000)")
    axis.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)

"""The report of the quality benchmark: kept parts in, one table of all systems out, as JSON, Markdown and a plot.

A figure over seeds is a mean with its sample standard deviation. Systems are compared with ``genrec`` on the same
cases: per-case values are averaged over seeds first, then resampled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.quality_curve import SELECTED
from benchmarks.quality_data import DataSet
from benchmarks.quality_parts import GENREC, INDEXED, TRAINED, Asked, files_of
from genrec.bench.machine import machine_line
from genrec.bench.quality_plots import Curve, quality_by_minutes
from genrec.bench.report import markdown_table
from genrec.evaluation.metrics import ndcg, recall
from genrec.evaluation.paired import paired_differences
from index.types import BoolArray, Float64Array

METRICS = {"recall@10": recall, "ndcg@10": ndcg}
ACCURACY = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
BEYOND = ("coverage", "gini@10", "novelty@10", "distance@10", "ece@10", "list_ece@10")
HARD = ("sparse_recall@10", "sparse_ndcg@10", "cold_recall@10", "cold_ndcg@10")


@dataclass(frozen=True)
class Part:
    """One kept part."""

    record: dict[str, Any]
    lists: dict[str, np.ndarray]  # by row, [C, 10]
    target: np.ndarray
    segments: dict[str, BoolArray]


def read_parts(asked: Asked, jobs: Sequence[tuple[str, int]]) -> list[Part]:
    """The parts of systems with their seeds, in this order, those that are there."""
    found = []
    for system, seed in jobs:
        record, lists = files_of(asked, system, seed)
        if not record.is_file() or not lists.is_file():
            continue
        with np.load(lists, allow_pickle=False) as arrays:
            found.append(
                Part(
                    json.loads(record.read_text("utf-8")),
                    {name[5:]: arrays[name] for name in arrays.files if name.startswith("list:")},
                    arrays["target"],
                    {name: arrays[name] for name in ("sparse", "cold")},
                )
            )
    return found


def other_questions(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which parts were asked something else than the first, each with what differs."""
    first = records[0]["asked"]
    found = []
    for record in records:
        asked = record["asked"]
        names = [name for name in {**first, **asked} if first.get(name) != asked.get(name)]
        if names:
            found.append(f"{record['system']}, seed {record['seed']} with other {' and '.join(names)}")
    return found


def report_of(
    asked: Asked,
    about: DataSet,
    items: int,
    parts: Sequence[Part],
    indexes: Sequence[Mapping[str, Any]],
    machine: Any,
) -> dict[str, Any]:
    """Everything, as JSON values."""
    rows: dict[str, list[Part]] = {}
    for part in parts:
        for name in part.record["systems"]:
            rows.setdefault(name, []).append(part)
    first = parts[0].record
    return {
        "dataset": about.name,
        "title": about.title,
        "note": about.note,
        "minutes": asked.minutes if asked.steps is None else None,
        "steps": asked.steps,
        "threads": asked.threads,
        "split": about.split,
        "part": asked.part,
        "items": items,
        "cases": first["cases"],
        "sparse_users": first["sparse_users"],
        "cold_targets": first["cold_targets"],
        "systems": {
            name: _figures([one.record["systems"][name] for one in some]) for name, some in rows.items()
        },
        "costs": {name: _costs(name, [one.record for one in some], indexes) for name, some in rows.items()},
        "against": _against(rows),
        "published": about.published,
        "curves": _curves(parts),
        "calibration": {
            name: one
            for part in parts
            for name, one in part.record["calibration"].items()
            if part.record["seed"] == 0
        },
        "facts": {f"{one.record['system']}-{one.record['seed']}": one.record["facts"] for one in parts},
        "machine": machine,
    }


def _figures(found: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    return {
        name: _spread([one[name] for one in found if name in one])
        for name in dict.fromkeys(name for one in found for name in one)
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None of a single seed), and how many seeds."""
    return {
        "mean": float(np.mean(values)),
        "spread": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "seeds": len(values),
    }


def _costs(
    name: str, records: Sequence[Mapping[str, Any]], indexes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Means over seeds. ``from_raw_seconds`` counts the index where a system needs it.

    ``after_seconds`` are those of ``train_seconds`` that came after the budget: choosing on validation, saving.
    """
    shared = [one["seconds"]["train"] for one in indexes] if records[0]["system"] in INDEXED else []
    train = float(np.mean([one["seconds"]["train"] for one in records]))
    own_index = [one["seconds"]["index"] for one in records if "index" in one["seconds"]]
    index = float(np.mean(own_index or shared or [0.0]))
    after = float(np.mean([one["seconds"].get("after", 0.0) for one in records]))
    return {
        "train_seconds": round(train, 1),
        "after_seconds": round(after, 1),
        "index_seconds": round(index, 1),
        "from_raw_seconds": round(index + train, 1),
        "rank_seconds": round(float(np.mean([one["rank_seconds"][name] for one in records])), 1),
        "cpu_seconds": round(float(np.mean([one["cpu_seconds"] for one in records])), 1),
        "peak_mb": max(one["peak_mb"] for one in records),
        "parameters": records[0]["parameters"],
        "steps": [one["steps"] for one in records],
        "resumed": sum(one["resumed"] for one in records),
        "other_cores": round(float(np.mean([one["company"]["other_cores"] or 0.0 for one in records])), 2),
    }


def _against(rows: Mapping[str, Sequence[Part]]) -> dict[str, Any]:
    """genrec less every other row: all cases, sparse users, cold targets; per metric."""
    if GENREC not in rows:
        return {}
    some = rows[GENREC][0]
    segments: dict[str, BoolArray] = {"all": np.ones(len(some.target), np.bool_), **some.segments}
    found: dict[str, Any] = {}
    for segment, inside in segments.items():
        if not inside.any():
            continue
        for metric in METRICS:
            values = {name: _per_case(parts, name, metric, some)[inside] for name, parts in rows.items()}
            ours = values.pop(GENREC)
            for name, one in paired_differences(ours, values).items():
                verdict = "better" if one.is_better else "worse" if one.is_worse else "even"
                found.setdefault(segment, {}).setdefault(name, {})[metric] = {
                    **asdict(one),
                    "genrec_is": verdict,
                }
    return found


def _per_case(parts: Sequence[Part], name: str, metric: str, like: Part) -> Float64Array:
    """float64[C]: the mean over seeds."""
    for one in parts:
        assert np.array_equal(one.target, like.target), "parts of other cases"
    return np.mean([METRICS[metric](one.lists[name], one.target, 10) for one in parts], axis=0)


def _curves(parts: Sequence[Part]) -> dict[str, list[list[tuple[float, float]]]]:
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    for part in parts:
        for name, points in part.record["curves"].items():
            curves.setdefault(name, []).append(points)
    return curves


def plot(report: Mapping[str, Any]) -> str:
    """Validation against minutes; systems that do not train are levels."""
    trained = {
        name: [Curve([x for x, _ in one], [y for _, y in one]) for one in curves if one]
        for name, curves in report["curves"].items()
        if any(x > 0 for one in curves for x, _ in one)
    }
    free = {
        name: curves[0][0][1]
        for name, curves in report["curves"].items()
        if name not in trained and curves[0]
    }
    return quality_by_minutes(report["title"], SELECTED, "at most 2,500", trained, free)


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    budget = f"{report['minutes']:g} minutes" if report["minutes"] else f"{report['steps']} steps"
    what = f"{report['cases']:,} {report['part']} cases, {report['split']}, ranking over {report['items']:,} items"
    costs = report["costs"]
    parts = [
        f"# Quality: {report['title']}\n",
        f"{what}; trained systems: {budget}, {report['threads']} threads, {_seeds(report)} "
        f"(mean ± standard deviation). {report['note']}\n",
        machine_line(report["machine"]) + "\n",
        _table(report, ACCURACY),
        "\n## Published, same protocol\n",
        markdown_table(
            ("system", *ACCURACY, "source"),
            [
                (one["system"], *(f"{one[name]:.4f}" if name in one else "–" for name in ACCURACY), one["source"])
                for one in report["published"]
            ],
        )
        if report["published"]
        else "None known.",
        "\n## What it took (means)\n",
        markdown_table(
            ("system", *("from raw, s", "index, s", "train, s", "of it after, s", "rank, s"),
             *("CPU, s", "peak MB", "parameters", "steps", "others", "resumed")),
            [
                (
                    name, one["from_raw_seconds"], one["index_seconds"], one["train_seconds"], one["after_seconds"],
                    one["rank_seconds"], one["cpu_seconds"], f"{one['peak_mb']:,}", f"{one['parameters']:,}",
                    _steps(one["steps"]), one["other_cores"], one["resumed"],
                )
                for name, one in costs.items()
            ],
        ),
        "\nThe budget is of optimisation, validation within it included. `of it after` came behind its end: choosing "
        "on validation how a bundle is asked (normalisation, history prior), and saving. `genrec-model` and "
        "`history-prior` are what the run of `genrec` made, asked one by one: but for ranking their costs are its. "
        "`resumed` counts runs that went on after a kill: their seconds hold what was lost with it, their peak is of "
        "the last part.\n",
        "\n`CPU` and `peak MB` are of the process that trained and ranked, libraries included, without the index; "
        "`others` is how many cores other work had meanwhile: above .1, times are too long.\n",
        "## Beyond accuracy\n",
        _table(report, BEYOND),
        f"\n## {report['sparse_users']:,} sparse users (at most 5 training events), "
        f"{report['cold_targets']:,} cold targets\n",
        _table(report, HARD),
        "\n## genrec less each row, 95 % intervals by paired bootstrap over cases\n",
        "A verdict needs an interval that leaves out 0, and six cases or more that differ. Intervals are over "
        "cases: they ignore the variance over training seeds.\n",
        *(_differences(segment, found) for segment, found in report["against"].items()),
        "\n![Quality by training time](quality.svg)\n",
    ]  # fmt: skip
    return "\n".join(parts)


def _seeds(report: Mapping[str, Any]) -> str:
    """How many, and which trained systems have fewer."""
    every = {name: one["recall@10"]["seeds"] for name, one in report["systems"].items()}
    most, count = max(every.values()), {name: every[name] for name in TRAINED if name in every}
    said = [f"{seeds} of {name}" for name, seeds in count.items() if seeds < most]
    return f"{most} seed{'s' * (most > 1)}" + (f", but {', '.join(said)}" if said else "")


def _steps(steps: Sequence[int]) -> str:
    return "–" if not any(steps) else ", ".join(f"{one:,}" for one in steps)


def _table(report: Mapping[str, Any], columns: Sequence[str]) -> str:
    rows = [
        (name, *(_cell(figures.get(column)) for column in columns))
        for name, figures in report["systems"].items()
    ]
    return markdown_table(("system", *columns), rows)


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    spread = "" if figure["spread"] is None else f" ± {figure['spread']:.4f}"
    return f"{figure['mean']:.4f}{spread}"


def _differences(segment: str, found: Mapping[str, Any]) -> str:
    cases = next(iter(next(iter(found.values())).values()))["cases"]
    rows = []
    for name, by_metric in found.items():
        cells = [
            f"{one['mean']:+.4f} ({one['low']:+.4f} .. {one['high']:+.4f}) {one['genrec_is']}, "
            f"{one['differing']:,} differ"
            for one in by_metric.values()
        ]
        rows.append((name, *cells))
    return f"\n{segment}: {cases:,} cases\n\n" + markdown_table(("less", *METRICS), rows) + "\n"

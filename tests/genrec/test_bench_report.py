"""Reports as directories: text, plots and the moment they appear."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.bench import plot_style
from genrec.bench.plots import plots
from genrec.bench.report_files import MARKDOWN, REPORT, check_report_place, read_json, write_report
from genrec.bench.report_text import report_markdown
from index.errors import MissingDependencyError, RequestError

SVG = "{http://www.w3.org/2000/svg}"
PHASES = ("prefill", "model", "head", "search", "rest")


def summary(value: float, count: int = 200) -> dict[str, Any]:
    return {
        "count": count, "mean": value, "median": value, "median_95": [0.9 * value, 1.1 * value], "p95": 2 * value,
        "p95_95": [1.9 * value, None],
    }  # fmt: skip


def scenario(name: str, beam: int, cost: float, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "beam": beam, "history_items": None, "where": None, "items": None, "items_from": None,
        "items_allowed": None, "exact": False, "wall_ms": summary(cost), "cpu_ms": summary(cost),
        "phases": {phase: {"wall_ms": summary(cost / 5), "cpu_ms": summary(cost / 5)} for phase in PHASES},
        "model_calls": 3.0, "expansions": 40.0, "certified_share": 0.999999, "samples": {"wall_ms": [], "cpu_ms": []},
        **more,
    }  # fmt: skip


def trial(rate: float, latency: float, sustained: bool, **more: Any) -> dict[str, Any]:
    waits = latency * np.random.default_rng(0).lognormal(sigma=0.3, size=1000)
    return {
        "name": f"poisson, {rate:g} a second", "loop": "poisson", "planned_rate": rate,
        "requests": 1000, "sent": 1000,
        "answered": 1000, "shed": 0, "timed_out": 0, "failed": 0, "slo_ms": 100.0, "within": 0.995,
        "achieved_rate": rate, "sustained": sustained, "server_cpu_ms": 4.0,
        "latency_ms": {
            name: None if name == "p99.9" else {"value": factor * latency, "low": latency, "high": 3 * latency}
            for name, factor in (("p50", 1), ("p90", 1.5), ("p95", 1.7), ("p99", 2), ("p99.9", 0))
        },
        "answers": {"items_returned": 10_000, "validity": 1.0, "recall": None, "errors": {}},
        "samples": {"wall_ms": waits.tolist()},
        **more,
    }  # fmt: skip


def toy_report() -> dict[str, Any]:
    beams = [scenario(f"beam {beam}", beam, 2 + beam / 10) for beam in (10, 20, 50)]
    sizes = [scenario(f"{n:,} items", 50, 5.0, items=n, items_from="here") for n in (1000, 12_101, 1_000_000)]
    company = {"seconds": 60.0, "own_cores": 1.0, "other_cores": 0.01, "steal": 0.0, "crowded": False}
    return {
        "benchmark": "report", "name": "toys <&>", "command": "genrec bench report toys", "seed": 0, "threads": 1,
        "manifest_sha256": "ab" * 32, "histories": "200 users", "no_recall": None, "company": company,
        "machine": {"cpu": "Xeon", "cores": 2, "load_average": 0.2},
        "decode": {
            "k": 10, "items": 12_101, "normalize": "catalog", "base": "beam 50", "requests": 200, "company": company,
            "scenarios": [*beams, scenario("history 20", 50, 7), scenario("filter 1 %", 50, 8),
                          scenario("exact", 50, 99, exact=True), *sizes],
        },
        "offline": {
            "k": 10, "beam": 50, "threads": 1, "users": 640,
            "batches": [{"batch": n, "users_per_second": 40.0 * n, "users_per_second_95": [38.0 * n, 42.0 * n],
                         "cpu_ms": 2.0, "peak_mb": 3.0} for n in (1, 8, 32)],
        },
        "recall": {
            "k": 10,
            "beams": [{"beam": beam, "cases": 4000, "recall@10": recall, "recall@10_95": [0.05, 0.09],
                       "ndcg@10": 0.04, "widest_finds_more_95": [0.0, 0.002]}
                      for beam, recall in ((10, 0.069), (20, 0.070), (50, 0.071))],
        },
        "serve": {
            "k": 10, "slo_ms": 100.0, "arrival": "poisson", "server": "one worker", "cold_ms": 40.0,
            "goodput": 120.0, "company": company,
            "not_sustained": 150.0,
            "trials": [trial(40, 10, True), trial(120, 30, True), trial(150, 200, False),
                       trial(300, 900, False, answered=700, shed=300)],
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return plots(toy_report())


def words(svg: str) -> str:
    return " | ".join("".join(one.itertext()) for one in ElementTree.fromstring(svg).iter(f"{SVG}text"))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("latency-by-rate", ["p50", "p95", "p99", "limit 100 ms", "goodput 120 a second", "30 % refused",
                             "1,000 requests a point"]),
        ("latency-tail", ["40 a second", "120 a second", "300 a second", "limit 100 ms", "1 %  p99"]),
        ("latency-by-beam", ["median", "p95", "median CPU", "10", "20", "50", "12,101 items"]),
        ("recall-by-latency", ["beam 10", "beam 50", "recall@10", "4,000 held-out items"]),
        ("phases", ["read the history", "trie, filter, top-k", "filter 1 %", "history 20", "8.0"]),
        ("catalog-size", ["whole request", "trie, filter, top-k", "this catalog", "1k", "1M"]),
        ("throughput-by-batch", ["1,280", "640 users a point", "32"]),
    ],
)  # fmt: skip
def test_plots_are_small_svg_and_say_what_they_show(drawn, name, labels):
    svg = drawn[f"{name}.svg"]
    said = words(svg)
    for label in labels:
        assert re.sub(r"\s+", " ", label) in re.sub(r"\s+", " ", said)
    root = ElementTree.fromstring(svg)
    assert root.find(f"{SVG}title").text
    assert root.get("role") == "img"
    assert len(svg) < 60_000
    assert "prefers-color-scheme: dark" in svg
    assert "nan" not in svg.lower()


def test_every_plot_is_drawn_and_the_same_figures_make_the_same_bytes(drawn):
    assert len(drawn) == 7
    assert plots(toy_report()) == drawn


def test_colours_have_a_dark_twin_that_can_be_read():
    """WCAG's contrast, 3:1 for graphics and 4.5:1 for text, on both backgrounds."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    def contrast(one: str, other: str) -> float:
        high, low = sorted((light(one), light(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    dark = plot_style._DARK
    for colour in (*plot_style.SERIES, plot_style.RED):
        least = (
            2.5 if colour == plot_style.SKY else 3.0
        )  # an area beside others, never a line or a text of its own
        assert contrast(colour, plot_style.PAPER) >= least
        assert contrast(dark[colour], dark[plot_style.PAPER]) >= 3.0
    for colour in (plot_style.INK, plot_style.QUIET):
        assert contrast(colour, plot_style.PAPER) >= 4.5
        assert contrast(dark[colour], dark[plot_style.PAPER]) >= 4.5


def test_a_report_without_a_part_has_no_plot_of_it():
    report = toy_report()
    for part in ("serve", "recall", "offline"):
        report[part] = None
    assert set(plots(report)) == {"latency-by-beam.svg", "phases.svg", "catalog-size.svg"}
    assert plots({**report, "decode": None}) == {}
    closed = {**toy_report()["serve"], "arrival": "closed", "goodput": None}
    closed["trials"] = [
        {**one, "planned_rate": None, "loop": "closed, 4 in flight"} for one in closed["trials"]
    ]
    only = plots({"serve": closed})
    assert set(only) == {"latency-tail.svg"}
    assert "closed loop (closed, 4 in flight): not what users meet" in words(only["latency-tail.svg"])


def test_without_matplotlib_it_is_said_what_to_install():
    with (
        mock.patch.dict(sys.modules, {"matplotlib": None}),
        pytest.raises(MissingDependencyError, match=r"genrec\[bench\]"),
    ):
        plots(toy_report())


@given(st.lists(st.floats(0, 1), max_size=12).map(sorted), st.floats(0.01, 0.2))
def test_labels_move_apart_and_keep_their_order(heights, gap):
    moved = plot_style.spread(heights, gap)
    assert len(moved) == len(heights)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(moved))
    assert sum(moved) == pytest.approx(sum(heights), abs=1e-9)
    if all(b - a >= gap for a, b in pairwise(heights)):
        assert moved == pytest.approx(heights)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e6, "1M"),
        (1500, "1.5k"),
        (1520, "1,520"),
        (1e5, "100k"),
        (0.25, "0.25"),
        (12101, "12,101"),
        (5, "5"),
    ],
)
def test_numbers_on_axes_are_short(value, text):
    assert plot_style.short(value) == text


def test_the_text_says_what_was_found_and_refuses_what_the_sample_cannot_say(drawn):
    text = report_markdown(toy_report(), drawn)
    assert "**120 requests a second** with 99 % of them within 100 ms (at 150 it does not)" in text
    assert "Others were at work" not in text
    shared = toy_report()
    shared["serve"]["company"] = {**shared["company"], "crowded": True}
    assert "Others were at work on the machine meanwhile" in report_markdown(shared, drawn)
    assert "Of 40,000 items returned 100 % are in the catalog." in text
    assert "p99.9 10,000" in text
    assert "99.99 %" in text  # a share that is nearly all is not all
    assert "| exact |" in text
    for name in drawn:
        assert f"]({name})" in text
    fewer = report_markdown(
        {**toy_report(), "serve": None, "recall": None, "no_recall": "no interactions"}, []
    )
    assert "Recall was not measured: no interactions." in fewer
    assert ".svg" not in fewer
    assert "## Served" not in fewer


def test_a_report_appears_whole_and_replaces_only_reports(tmp_path):
    place = tmp_path / "report"
    write_report(place, {REPORT: '{"benchmark": "report"}\n', MARKDOWN: "one", "old.svg": "x"})
    write_report(place, {REPORT: '{"benchmark": "report", "n": 2}\n', MARKDOWN: "two"})
    assert sorted(one.name for one in place.iterdir()) == [REPORT, MARKDOWN]
    assert read_json(place)["n"] == 2
    assert [one.name for one in tmp_path.iterdir()] == ["report"]
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").write_text("years of work")
    with pytest.raises(RequestError, match="to be free or an earlier report"):
        write_report(foreign, {REPORT: "{}"})
    assert (foreign / "chapter.tex").read_text() == "years of work"
    with pytest.raises(RequestError, match=r"got the file .*chapter\.tex"):
        check_report_place(foreign / "chapter.tex" / "no" / "where")
    write_report(tmp_path / "reports" / "movies", {REPORT: "{}"})  # as README says it in a fresh directory
    assert (tmp_path / "reports" / "movies" / REPORT).is_file()


@pytest.mark.parametrize("falls_at", ["writing", "renaming"])
def test_a_report_that_fails_leaves_the_old_one(tmp_path, falls_at):
    place = tmp_path / "report"
    write_report(place, {REPORT: '{"benchmark": "report", "n": 1}'})
    what = "genrec.bench.report_files.replace_file" if falls_at == "writing" else "pathlib.Path.rename"
    rename = Path.rename
    calls = []

    def full(self: Path, *rest: Any) -> None:
        calls.append(self)
        if falls_at == "writing" or len(calls) == 2:  # the old one has made way, the new one cannot come
            raise OSError("no space left on device")
        rename(self, *rest)

    with mock.patch(what, full), pytest.raises(OSError, match="no space"):
        write_report(place, {REPORT: '{"benchmark": "report", "n": 2}'})
    assert read_json(place)["n"] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "expected a report in"),
        ("{", "expected JSON"),
        ("[1]", "got other JSON"),
        ('{"a": 1}', "got other JSON"),
    ],
)
def test_what_is_no_report_is_said(tmp_path, text, says):
    file = tmp_path / "x.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RequestError, match=says):
        read_json(file)


def test_the_last_line_of_what_a_command_printed_is_its_report(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('a table\nof words\n{"benchmark": "decode"}\n')
    assert read_json(file) == {"benchmark": "decode"}

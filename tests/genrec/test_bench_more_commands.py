"""``genrec bench offline | serve | report | redraw | compare`` as a user runs them. No speed is asserted."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.genrec.bench_toys import genrec, random_bundle, write_interactions
from tests.genrec.slow_server import slow_server
from tests.toy import ITEMS

QUICK_REPORT = (
    "--users", 3, "--beams", "10,12", "--sizes", "20,60", "--recall-cases", 20, "--no-serve", "--no-exact",
    "--batches", "1,4", "--quiet",
)  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return random_bundle(tmp_path_factory.mktemp("bench") / "toy")


@pytest.fixture(scope="module")
def interactions(tmp_path_factory) -> Path:
    return write_interactions(tmp_path_factory.mktemp("users") / "sequences.txt")


@contextmanager
def api() -> Iterator[str]:
    """Something that answers like ``genrec serve``, in a thread of its own: the items a toy goes on to."""
    started, ended = threading.Event(), threading.Event()
    address: list[str] = []

    def say(asked: dict[str, Any]) -> dict[str, Any]:
        last = int(asked["history"][-1][1:])
        items = [{"item_id": f"i{(last + 4 * step) % ITEMS}"} for step in range(1, asked["num_results"] + 1)]
        return {"delay": 0.0, "status": 200, "body": json.dumps({"items": items}).encode()}

    async def run() -> None:
        async with slow_server(say=say) as server:
            address.append(server.url.split("/v1/")[0])
            started.set()
            while not ended.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert started.wait(20)
        yield address[0]
    finally:
        ended.set()
        thread.join(20)


def test_offline_counts_users_and_batches(bundle, interactions, tmp_path):
    target = tmp_path / "offline.json"
    shown, _ = genrec(
        "bench", "offline", bundle, "--interactions", interactions, "--batches", "1,4", "--groups", 2, "--quiet",
        "--json", target,
    )  # fmt: skip
    report = json.loads(target.read_text())
    assert report["benchmark"] == "offline"
    assert [one["batch"] for one in report["batches"]] == [1, 4]
    assert report["users"] == 8
    assert "8 of 120 held-out cases" in shown
    assert str(tmp_path) not in target.read_text()  # a report is shown to others


def test_a_server_elsewhere_is_asked_and_its_answers_looked_at(bundle, interactions):
    with api() as address:
        printed, _ = genrec(
            "bench", "serve", address, "--bundle", bundle, "--interactions", interactions, "--rates", "150,80",
            "--requests", 30, "-k", 2, "--slo-ms", 20000, "--json", "-",
        )  # fmt: skip
        report = json.loads(printed)
        assert [one["planned_rate"] for one in report["trials"]] == [80, 150]
        assert report["goodput"] == 150
        assert {one["answers"]["validity"] for one in report["trials"]} == {1.0}
        # A toy's user always goes on four items further: what the server says first is what came next.
        assert {one["answers"]["recall"] for one in report["trials"]} == {1.0}
        shown, _ = genrec(
            "bench", "serve", f"{address}/v1/recommendations", "--bundle", bundle, "--concurrency", 2, "--requests",
            20, "--quiet",
        )  # fmt: skip
    assert "CLOSED LOOP" in shown
    assert "goodput" not in shown
    assert "no recall: no interactions were given" in shown


def test_a_report_is_one_directory_made_by_one_command(bundle, interactions, tmp_path):
    place = tmp_path / "report"
    shown, _ = genrec(
        "bench", "report", bundle, "--interactions", interactions, "--out", place, *QUICK_REPORT
    )
    files = sorted(one.name for one in place.iterdir())
    assert {"report.json", "report.md", "latency-by-beam.svg", "catalog-size.svg"} <= set(files)
    assert f"{len(files) - 2} plots" in shown
    report = json.loads((place / "report.json").read_text())
    names = [one["name"] for one in report["decode"]["scenarios"]]
    assert {"beam 10", "beam 12", "20 items", f"{ITEMS} items", "60 items"} <= set(names)
    assert [one["beam"] for one in report["recall"]["beams"]] == [10, 12]
    assert report["recall"]["beams"][0]["cases"] == 20
    text = (place / "report.md").read_text()
    assert "genrec bench report toy --interactions sequences.txt" in text
    everything = text + (place / "report.json").read_text()
    assert str(tmp_path) not in everything
    assert not re.search(r'"i[0-9]+"', everything)  # no item of the catalog, no user
    before = (place / "phases.svg").read_text()
    (place / "phases.svg").write_text("gone")
    genrec("bench", "redraw", place)
    assert (place / "phases.svg").read_text() == before
    compared, _ = genrec("bench", "compare", place, place / "report.json")
    assert "no difference shown" in compared
    assert "faster" not in compared


def test_two_runs_are_compared(bundle, tmp_path):
    common = (
        "bench",
        "decode",
        bundle,
        "--users",
        8,
        "--beams",
        "12",
        "--prompts",
        "",
        "--filters",
        "",
        "--quiet",
    )
    for name in ("first", "second"):
        genrec(*common, "--no-exact", "--json", tmp_path / f"{name}.json")
    printed, _ = genrec("bench", "compare", tmp_path / "first.json", tmp_path / "second.json", "--json", "-")
    (part,) = json.loads(printed)["parts"]
    assert part["pairing"] == "pairs"
    assert [(one["name"], one["clock"]) for one in part["rows"]] == [
        (name, clock) for name in ("beam 10", "beam 12") for clock in ("wall_ms", "cpu_ms")
    ]
    genrec(*common, "--no-exact", "-k", 4, "--json", tmp_path / "other.json")
    _, said = genrec("bench", "compare", tmp_path / "first.json", tmp_path / "other.json", check=1)
    assert "differ in k 10 and 4" in said


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["offline", "BUNDLE", "--batches", "0"], 2, "expected whole numbers above 0"),
        (["offline", "BUNDLE", "--batches", ""], 1, "above 0"),
        (["serve", "http://127.0.0.1:1"], 2, "expected the bundle that is served there"),
        (["serve", "http://127.0.0.1:1", "--bundle", "BUNDLE"], 1, "start it first"),
        (["serve", "https://127.0.0.1:1", "--bundle", "BUNDLE"], 1, "expected an address like http"),
        (["serve", "BUNDLE", "--rates", "0"], 2, "expected rates above 0"),
        (["serve", "BUNDLE", "--rates", "5", "--concurrency", "2"], 1, "got both"),
        (["serve", "BUNDLE", "--slo-ms", "0"], 1, "a limit above 0"),
        (["serve", "BUNDLE", "--arrival", "weibull"], 2, "weibull"),
        (["report", "BUNDLE"], 2, "--out"),
        (["compare", "nowhere.json", "nowhere.json"], 1, "expected a report in nowhere.json"),
        (["redraw", "BUNDLE"], 1, "expected a report in"),
    ],
)  # fmt: skip
def test_wrong_use_is_explained(bundle, arguments, code, message):
    _, said = genrec("bench", *(bundle if one == "BUNDLE" else one for one in arguments), check=code)
    assert message in re.sub(r"[│\s]+", " ", said)
    assert "Traceback" not in said


@pytest.mark.parametrize("verb", ["offline", "serve", "report", "redraw", "compare"])
def test_every_command_has_help_with_an_example(verb):
    shown = genrec("bench", verb, "--help")[0]
    assert f"Example: genrec bench {verb} " in shown


@pytest.mark.slow
def test_a_bundle_is_served_for_the_test_and_its_server_ended(bundle, interactions):
    printed, _ = genrec(
        "bench",
        "serve",
        bundle,
        "--interactions",
        interactions,
        "--requests",
        60,
        "--slo-ms",
        5000,
        "--json",
        "-",
    )
    report = json.loads(printed)
    assert len(report["trials"]) >= 7
    assert {one["answers"]["validity"] for one in report["trials"]} <= {1.0, None}
    assert all(one["server_cpu_ms"] > 0 for one in report["trials"])
    assert report["trials"][0]["answers"]["models"][0].startswith("toy@")

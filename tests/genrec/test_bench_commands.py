"""``genrec bench decode`` and ``genrec bench constraint`` as a user runs them. No speed is asserted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from genrec.bench.decode import PHASES, DecodeSettings, measure_decode
from genrec.bench.request_histories import random_items
from genrec.tasks import TaskDefaults
from index.artifact import open_artifact
from index.maintenance import remove_items
from tests.fake_decoder import FakeDecoder
from tests.genrec.bench_toys import genrec, random_bundle, write_interactions
from tests.toy import ITEMS, toy_index

ROOT = Path(__file__).resolve().parents[2]
QUICK_DECODE = ("--users", 6, "--beams", "3,12", "--prompts", "4", "--filters", "50,5", "--quiet")
QUICK_STEP = ("--rows", "4", "--rounds", 2, "--filters", "50", "--quiet")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return random_bundle(tmp_path_factory.mktemp("bench") / "toy")


@pytest.fixture(scope="module")
def interactions(tmp_path_factory) -> Path:
    return write_interactions(tmp_path_factory.mktemp("users") / "sequences.txt")


@pytest.fixture(scope="module")
def decoded(bundle) -> dict[str, Any]:
    return json.loads(genrec("bench", "decode", bundle, *QUICK_DECODE, "--json", "-")[0])


def by_name(report: Mapping[str, Any]) -> dict[str, Any]:
    return {one["name"]: one for one in report["scenarios"]}


def test_a_decode_report_says_what_was_measured_on_what(decoded, bundle):
    assert decoded["benchmark"] == "decode"
    assert decoded["manifest_sha256"] == open_artifact(bundle).content_hash
    assert (decoded["seed"], decoded["threads"], decoded["items"]) == (0, 1, ITEMS)
    assert (decoded["requests"], decoded["requests_planned"]) == (6, 6)
    assert decoded["base"] == "beam 10"  # the bundle's 7 is below k
    assert "random items" in decoded["histories"]
    assert decoded["machine"]["cores"] >= 1
    names = ["beam 10", "beam 12", "history 4", "filter 50 %", "filter 5 %", "exact"]
    assert list(by_name(decoded)) == names


def test_phases_add_up_to_the_whole(decoded):
    for one in decoded["scenarios"]:
        for clock in ("wall_ms", "cpu_ms"):
            parts = sum(phase[clock]["mean"] for phase in one["phases"].values())
            assert parts == pytest.approx(one[clock]["mean"], abs=1e-4)  # five roundings to 1e-5
        assert list(one["phases"]) == list(PHASES)
        assert all(phase["wall_ms"]["mean"] > 0 for phase in one["phases"].values())
        assert one["wall_ms"]["count"] == 6
        assert one["wall_ms"]["p95"] is None


def test_counts_are_those_of_the_search(decoded):
    rows = by_name(decoded)
    assert rows["exact"]["certified_share"] == 1.0
    assert rows["exact"]["exact"]
    assert rows["filter 50 %"]["items_allowed"] == ITEMS // 2
    assert rows["filter 5 %"]["items_allowed"] == 2
    assert rows["filter 5 %"]["items_found"] <= 2
    assert rows["filter 50 %"]["items_found"] <= 10
    assert rows["history 4"]["history_items"] == 4
    assert rows["beam 10"]["items_found"] == 10
    for one in decoded["scenarios"]:
        assert one["model_calls"] >= 1
        assert one["expansions_max"] >= one["expansions"] >= 1
        assert 0 <= one["certified_share"] <= 1
        assert one["state_kb"] > 0


def test_the_same_seed_asks_the_same(bundle):
    def counts(seed: int) -> list[tuple[float, ...]]:
        report = json.loads(
            genrec("bench", "decode", bundle, *QUICK_DECODE, "--seed", seed, "--json", "-")[0]
        )
        return [(one["expansions"], one["certified_share"], one["state_kb"]) for one in report["scenarios"]]

    assert counts(3) == counts(3)
    assert counts(3) != counts(4)


def test_a_p95_comes_with_two_hundred_requests_and_is_refused_below(bundle, interactions, tmp_path):
    few = ("--beams", "10", "--prompts", "", "--filters", "", "--no-exact", "--quiet")
    refused, _ = genrec("bench", "decode", bundle, *few, "--users", 199)
    assert "no p95: it needs 200 requests (10 beyond it), got 199" in refused
    target = tmp_path / "decode.json"
    shown, _ = genrec(
        "bench", "decode", bundle, *few, "--users", 200, "--histories", interactions, "--json", target
    )
    assert "no p95" not in shown
    assert "200 users of 120 in the file, drawn with repetition" in shown
    (only,) = json.loads(target.read_text())["scenarios"]
    assert only["wall_ms"]["p95"] >= only["wall_ms"]["median"]
    assert only["wall_ms"]["median_95"][0] <= only["wall_ms"]["median"] <= only["wall_ms"]["median_95"][1]


def test_time_that_is_up_ends_the_measuring_with_a_whole_round(bundle):
    done, _ = genrec("bench", "decode", bundle, *QUICK_DECODE, "--seconds", 0, "--json", "-")
    report = json.loads(done)
    assert (report["requests"], report["requests_planned"]) == (1, 6)
    assert {one["wall_ms"]["count"] for one in report["scenarios"]} == {1}


def test_the_table_is_for_people(bundle):
    shown, _ = genrec("bench", "decode", bundle, *QUICK_DECODE, "--where", 'genre == "horror"')
    assert "Where the time goes" in shown
    assert "filter --where" in shown
    assert "a beam below k is raised to k = 10" in shown
    assert open_artifact(bundle).content_hash[:16] in shown
    assert "seed 0" in shown


def test_removed_items_are_in_no_answer_and_no_filter():
    index = remove_items(toy_index(), [f"i{row}" for row in range(30)])
    histories = random_items(ITEMS, 4, np.random.default_rng(0))
    settings = DecodeSettings(beams=(), lengths=(), kept=(0.5, 1.0), k=ITEMS)
    report = measure_decode(index, FakeDecoder(sum(index.level_sizes)), TaskDefaults(), histories, settings)
    plain, half, whole, exact = report.results
    assert half.scenario.items_allowed == 5
    assert whole.scenario.items_allowed == 10
    left = np.mean([10 - len(set(rows.tolist()) & set(range(30, 40))) for rows in histories.rows])
    assert plain.mean("found") == whole.mean("found") == exact.mean("found") == left
    assert half.mean("found") <= 5


def test_a_constraint_report_races_what_is_installed(bundle, tmp_path):
    target = tmp_path / "constraint.json"
    where = 'genre == "horror"'
    shown, _ = genrec("bench", "constraint", bundle, *QUICK_STEP, "--where", where, "--json", target)
    report = json.loads(target.read_text())
    assert report["manifest_sha256"] == open_artifact(bundle).content_hash
    walk = report["walks"]["4"]
    ours = walk["engines"][report["ours"]]
    assert ours["ratio_to_ours"]["median"] == 1.0
    assert max(walk["rows"]) <= 4
    edges, steps = sum(walk["edges"]), len(walk["edges"])
    for name, engine in walk["engines"].items():
        assert len(engine["steps"]) == steps
        # the cost per edge is that per step in other words, up to rounding
        assert engine["ns_per_edge"] == pytest.approx(engine["us_per_step"] * 1e3 * steps / edges, rel=1e-2)
        assert name in shown
    assert "hf dict" in walk["engines"] or "hf dict" in report["left_out"]
    random, expression = report["filters"]
    assert (random["items_allowed"], expression["items_allowed"]) == (ITEMS // 2, ITEMS // 4)
    assert expression["prepare_ms"]["count"] == 30
    assert set(expression["overhead"]) == {"4"}
    assert open_artifact(bundle).content_hash[:16] in shown


def test_the_constraint_is_measured_over_an_index_without_a_model_or_torch(tmp_path):
    toy_index().save(tmp_path / "toy.index")
    code = "import sys; from genrec.cli.main import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    options = [str(one) for one in (*QUICK_STEP, "--no-peers", "--json", "-")]
    done = subprocess.run(
        [sys.executable, "-c", code, "bench", "constraint", tmp_path / "toy.index", *options],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    printed, torch_is_loaded = done.stdout.splitlines()
    report = json.loads(printed)
    assert set(report["left_out"]) >= {"hf dict", "hf marisa"}
    assert not [name for name in report["walks"]["4"]["engines"] if name.startswith("hf")]
    assert (done.stderr, torch_is_loaded) == ("", "False")


def test_what_is_not_installed_is_left_out_and_said(bundle):
    with (
        mock.patch("genrec.bench.step_peers.find_spec", return_value=None),
        mock.patch.dict(sys.modules, {"genrec.kernels.numba_step": None}),
    ):
        shown, _ = genrec("bench", "constraint", bundle, *QUICK_STEP)
    assert "hf dict did not run: not installed; pip install 'genrec[train]'" in shown
    assert "genrec numba did not run: not installed; pip install 'genrec[fast]'" in shown
    assert re.search(r"genrec numpy +\d", shown)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["decode", "BUNDLE", "--beams", "five"], 2, "expected whole numbers above 0"),
        (["decode", "BUNDLE", "--beams", "0"], 2, "expected whole numbers above 0"),
        (["decode", "BUNDLE", "--prompts", "-5"], 2, "expected whole numbers above 0"),
        (["decode", "BUNDLE", "--filters", "0"], 2, "expected percentages above 0"),
        (["decode", "BUNDLE", "--filters", "nan"], 2, "expected percentages above 0"),
        (["decode", "BUNDLE", "--filters", "101"], 2, "expected percentages above 0"),
        (["decode", "BUNDLE", "--sizes", "many"], 2, "expected whole numbers above 0"),
        (["decode", "BUNDLE", "--sizes", "100000"], 1, "codes enough for 100,000 items"),
        (["decode", "BUNDLE", "--users", "0"], 2, "--users"),
        (["decode", "BUNDLE", "-k", "0"], 2, "--k"),
        (["decode", "BUNDLE", "--json", "nowhere/x.json"], 2, "a directory that exists"),
        (["decode", "BUNDLE", "--where", "colour == 'red'"], 1, "got 'colour'"),
        (["decode", "BUNDLE", "--histories", "nowhere.csv"], 1, "nowhere.csv"),
        (["decode", "nowhere"], 1, "has no manifest.json"),
        (["decode"], 2, "Missing argument"),
        (["constraint", "BUNDLE", "--rows", "x"], 2, "expected whole numbers above 0"),
        (["constraint", "BUNDLE", "--rows", ""], 2, "expected at least one number"),
        (["constraint", "BUNDLE", "--where", "colour == 'red'"], 1, "got 'colour'"),
        (["constraint", "nowhere"], 1, "has no manifest.json"),
    ],
)
def test_wrong_use_is_explained(bundle, arguments, code, message):
    _, said = genrec("bench", *(bundle if one == "BUNDLE" else one for one in arguments), check=code)
    assert message in re.sub(r"[│\s]+", " ", said)
    assert "Traceback" not in said


@pytest.mark.parametrize("verb", ["decode", "constraint"])
def test_every_command_has_help_with_an_example(verb):
    shown = genrec("bench", verb, "--help")[0]
    assert f"Example: genrec bench {verb} " in shown


@pytest.mark.slow
def test_both_commands_run_from_an_installed_wheel(bundle, tmp_path):
    """A checkout has benchmarks/ and tests/ beside the packages; a user has the wheel only.

    The wheel is built with the hatchling of this environment and its dependencies come from it: no network.
    """
    pytest.importorskip("hatchling")
    build = "from hatchling.build import build_wheel; print(build_wheel(__import__('sys').argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wheel = tmp_path / done.stdout.split()[-1]
    venv.create(tmp_path / "user", with_pip=True)
    python = tmp_path / "user" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    site = next((tmp_path / "user").glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(str(Path(np.__file__).parents[1]) + "\n")
    for command in (["decode", bundle, *QUICK_DECODE], ["constraint", bundle, *QUICK_STEP]):
        arguments = [str(one) for one in command]
        done = subprocess.run(
            [python.with_name("genrec"), "bench", *arguments, "--json", "-"],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["items"] == ITEMS
    where = subprocess.run(
        [python, "-c", "import genrec.bench; print(genrec.bench.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(site)

"""Comparing two reports: ratios against a slow bootstrap, what is refused, and what is called a difference."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from genrec.bench.bootstrap import block_draws
from genrec.bench.compare import compare, holm, ratio_of_medians
from index.errors import RequestError

MACHINE = {"cpu": "Xeon", "cores": 2, "memory_gb": 24, "system": "Linux", "load_average": 0.3, "numpy": "2.4"}


def decode(rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "benchmark": "decode",
        "machine": MACHINE,
        "threads": 1,
        "seed": 0,
        "name": "toy",
        "manifest_sha256": "ab" * 32,
        "decoder": "OnnxNativeDecoder",
        "k": 10,
        "items": 40,
        "normalize": "catalog",
        "histories": "50 users",
        "requests": len(next(iter(rows.values()))),
        "company": {"crowded": False, "other_cores": 0.0, "steal": 0.0},
        "scenarios": [
            {"name": name, "samples": {"cpu_ms": [round(float(one), 4) for one in values]}}
            for name, values in rows.items()
        ],
        **more,
    }


def slow_bootstrap(first, second, draw) -> tuple[float, float]:
    """Resample by resample, in plain loops."""
    ratios = []
    for number in range(4000):
        ours, theirs = draw(number)
        ratios.append(np.median([second[i] for i in theirs]) / np.median([first[i] for i in ours]))
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def test_intervals_of_unpaired_runs_are_those_of_a_slow_bootstrap():
    rng = np.random.default_rng(1)
    first, second = rng.lognormal(size=60), 1.3 * rng.lognormal(size=80)
    other = np.random.default_rng(5)
    slow = slow_bootstrap(first, second, lambda _: (other.integers(0, 60, 60), other.integers(0, 80, 80)))
    drawn, ratio = ratio_of_medians(first, second, "apart")
    assert ratio == np.median(second) / np.median(first)
    assert np.quantile(drawn, (0.025, 0.975)) == pytest.approx(slow, rel=0.06)


def test_paired_runs_are_resampled_in_pairs_and_know_more():
    """Every user takes 10 % longer; users differ a hundredfold. Apart, that drowns; in pairs it is plain."""
    rng = np.random.default_rng(1)
    first = rng.lognormal(sigma=2, size=200)
    second = 1.1 * first
    paired, _ = ratio_of_medians(first, second, "pairs")
    apart, _ = ratio_of_medians(first, second, "apart")
    assert paired == pytest.approx(1.1)
    assert apart.std() > 0.1
    slow_rng = np.random.default_rng(2)

    def same(_number: int):
        places = slow_rng.integers(0, 200, 200)
        return places, places

    low, high = slow_bootstrap(first, second, same)
    assert (low, high) == (pytest.approx(1.1), pytest.approx(1.1))


def test_blocks_are_neighbours_of_a_ring():
    drawn = block_draws(10, seed=0, resamples=50)
    assert drawn.shape == (50, 10)
    for row in drawn.tolist():
        for start in range(0, 10, 4):  # blocks of ceil(sqrt(10))
            block = row[start : start + 4]
            assert [(one - block[0]) % 10 for one in block] == list(range(len(block)))


def test_the_same_run_twice_shows_no_difference():
    rng = np.random.default_rng(0)
    report = decode({"beam 10": rng.lognormal(size=100), "beam 50": rng.lognormal(size=100)})
    found = compare(report, report)
    assert found.pairing == "pairs"
    assert [(one.ratio, one.significant, one.verdict) for one in found.rows] == [
        (1.0, False, "no difference shown")
    ] * 2
    assert found.flags == ()


def test_equal_systems_are_seldom_called_different_even_over_many_rows():
    """Twelve rows each: without a correction nearly half of these comparisons would cry wolf."""
    wolves = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        first, second = (
            decode({f"row {n}": rng.lognormal(sigma=0.3, size=60) for n in range(12)}, seed=s) for s in (0, 1)
        )
        found = compare(first, second)
        assert found.pairing == "apart"  # another seed, other users
        wolves += any(one.significant for one in found.rows)
    assert wolves <= 3  # of 12, each by chance in one of twenty; four come up twice in a thousand


def test_a_slower_and_a_faster_row_are_told_apart():
    rng = np.random.default_rng(0)
    base = rng.lognormal(sigma=0.2, size=200)
    first = decode({"same": base, "slower": base, "faster": base, "gone": base})
    noise = rng.lognormal(sigma=0.02, size=200)
    second = decode(
        {"same": base * noise, "slower": 1.2 * base * noise, "faster": 0.7 * base * noise, "new": base}
    )
    found = compare(first, second)
    rows = {one.name: one for one in found.rows}
    assert [rows[name].verdict for name in ("same", "slower", "faster")] == [
        "no difference shown",
        "slower",
        "faster",
    ]
    assert rows["slower"].low < 1.2 < rows["slower"].high
    assert (found.only_first, found.only_second) == (("gone",), ("new",))
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert told["rows"][1]["verdict"] == "slower"


def test_holm_by_hand():
    # Sorted .001 .012 .03 .04 against .0125 .0167 .025 .05: the third stands, and so do all behind it.
    assert holm([0.04, 0.001, 0.03, 0.012]) == [False, True, False, True]
    assert holm([]) == []
    assert holm([0.05]) == [True]
    assert holm([0.051]) == [False]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"benchmark": "serve"}, "two reports of one benchmark"),
        ({"k": 20}, "differ in k 10 and 20"),
        ({"items": 41}, "differ in items 40 and 41"),
        ({"normalize": "vocabulary"}, "differ in normalize 'catalog' and 'vocabulary'"),
        ({"histories": "random"}, "differ in histories"),
    ],
)
def test_different_questions_are_refused(change, says):
    first = decode({"beam 10": np.ones(20)})
    with pytest.raises(RequestError, match=says):
        compare(first, {**first, **change})


def test_reports_without_a_common_row_are_refused_and_rates_are_proposed():
    with pytest.raises(RequestError, match="rows in common, got 'a' and 'b'"):
        compare(decode({"a": np.ones(5)}), decode({"b": np.ones(5)}))
    serve = {
        **decode({"x": np.ones(5)}), "benchmark": "serve", "beam": None, "slo_ms": 100, "arrival": "poisson",
        "trials": [{"name": "poisson, 10 a second", "planned_rate": 10.0, "samples": {"wall_ms": [1.0]}}],
    }  # fmt: skip
    other = {
        **serve,
        "trials": [{**serve["trials"][0], "name": "poisson, 12 a second", "planned_rate": 12.0}],
    }
    with pytest.raises(RequestError, match=r"measure the second with --rates 10$"):
        compare(serve, other)
    assert compare(serve, serve).pairing == "blocks"


def test_what_else_differs_is_flagged():
    first = decode({"beam 10": np.ones(20)})
    second = decode(
        {"beam 10": np.ones(20)},
        machine={**MACHINE, "cpu": "Ryzen", "numpy": "2.5", "load_average": 9.0},
        manifest_sha256="cd" * 32,
        threads=2,
        company={"crowded": True, "other_cores": 1.5, "steal": 0.02},
    )
    flags = " | ".join(compare(first, second).flags)
    for said in (
        "different hardware: cpu Xeon and Ryzen",
        "different software: numpy 2.4 and 2.5",
        "different manifest_sha256: abababababababab and cdcdcdcdcdcdcdcd",
        "different threads: 1 and 2",
        "the second shared its machine (others used 1.50 cores, steal 2.0 %)",
    ):
        assert said in flags
    assert "load_average" not in flags

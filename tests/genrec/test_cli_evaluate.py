"""``genrec evaluate`` over the modes of a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genrec.cli.main import app
from genrec.tasks import QueryDefaults, TaskDefaults
from tests.genrec.test_bundle_text import save
from tests.toy import toy_histories, toy_index
from tests.toy_text import toy_text

TASKS = {
    "semantic_id": TaskDefaults(beam=5),
    "title": TaskDefaults(beam=4),
    "query": QueryDefaults(beam=4, queries=2),
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("evaluate")
    index, histories = toy_index(), toy_histories()
    save(directory / "bundle", index, toy_text(index), TASKS)
    lines = []
    for user, name in enumerate(histories.user_ids):
        rows = histories.items[histories.offsets[user] : histories.offsets[user + 1]]
        lines.append(" ".join([name, *(f"i{row}" for row in rows)]))
    (directory / "sequences.txt").write_text("\n".join(lines) + "\n")
    return directory


def run(toys: Path, *arguments: str):
    events = str(toys / "sequences.txt")
    bundle = str(toys / "bundle")
    return CliRunner().invoke(
        app, ["evaluate", bundle, "--interactions", events, "--users", "4", "-q", *arguments]
    )


def test_all_modes_and_their_variants_as_json(toys: Path):
    done = run(toys, "--variants", "--json", "--beam", "4", "--labels", "genre,year")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert list(said["systems"])[:10] == [
        "genrec", "genrec-title", "genrec-query", "genrec-title-vocabulary", "genrec-title-length-normalised",
        "genrec-title-unconstrained", "genrec-query-1", "genrec-query-one-by-one", "genrec-query-catalog_ngrams",
        "popularity",
    ]  # fmt: skip
    assert said["users"] == 4
    assert said["labels"] == ["genre", "year"]
    assert {name: one["beam"] for name, one in said["modes"].items()} == {
        "semantic_id": 4,
        "title": 4,
        "query": 4,
    }
    for figures in said["systems"].values():
        assert {"recall@40", "diversity@40", "coverage@40"} <= figures.keys()
    assert said["systems"]["genrec-title"]["validity"] == 1.0
    assert said["systems"]["genrec-title-unconstrained"]["validity"] < 1.0


def test_chosen_modes_as_tables(toys: Path):
    done = run(toys, "--mode", "title, query", "--no-baselines")
    assert done.exit_code == 0, done.output
    systems = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("genrec")]
    assert systems == ["genrec-title", "genrec-query"] * 4 + ["genrec-title:", "genrec-query:"]
    assert "genrec-title: catalog normalisation, beam 4" in done.stdout
    assert "genrec-query: 2 queries, free, beam 4" in done.stdout
    assert "labels are the values of genre" in done.stdout
    assert "(at most 5 training events), 0 cold targets" in done.stdout


def test_reliability_is_drawn_and_told(toys: Path, tmp_path: Path):
    plot = tmp_path / "plots" / "reliability.svg"
    done = run(toys, "--mode", "semantic_id", "--no-baselines", "--json", "--reliability-plot", str(plot))
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["calibration"]["genrec"]["items"]["error"] == said["systems"]["genrec"]["ece@10"]
    assert {"gini@10", "novelty@10", "distance@10", "sparse_ndcg@10"} <= said["systems"]["genrec"].keys()
    assert said["cold_targets"] == 0
    drawn = plot.read_text()
    assert drawn.startswith("<svg")
    assert "share that came true" in drawn


def test_no_probabilities_no_reliability(toys: Path, tmp_path: Path):
    done = run(toys, "--mode", "query", "--no-baselines", "--reliability-plot", str(tmp_path / "plot.svg"))
    assert done.exit_code == 1
    assert "expected a system that gives probabilities" in str(done.exception)


def test_a_mode_the_bundle_does_not_have_is_refused(toys: Path):
    done = run(toys, "--mode", "song")
    assert done.exit_code == 1
    assert "got 'song'" in str(done.exception)

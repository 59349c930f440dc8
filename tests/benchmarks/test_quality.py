"""The quality benchmark from end to end on toys: every system, every shape of data, killed and gone on with."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from benchmarks import quality, quality_parts
from benchmarks.quality_curve import Curve
from benchmarks.quality_parts import Asked, files_of
from benchmarks.quality_report import read_parts, report_of
from genrec.evaluation.metrics import ndcg
from tests.benchmarks.quality_files import write_movielens, write_rows, write_sequences
from tests.genrec.test_finetune import config_file

ROWS = [
    "genrec", "popularity", "bm25-last", "text-last", "cooccurrence", "cooccurrence+text", "sasrec-ce", "tiger",
]  # fmt: skip


def rows(said: dict[str, Any]) -> list[str]:
    """The systems of a report, but for the model and its prior one by one: they have rows where there is a prior."""
    return [name for name in said["systems"] if name not in ("genrec-model", "history-prior")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    write_sequences(directory / "amazon_beauty_2014")
    write_movielens(directory / "movielens_latest_small")
    write_rows(directory / "minionerec_industrial")
    config_file(directory, num_layers=1)
    return directory


class Ran:
    """The benchmark with its parts in this process, and which of them ran."""

    def __init__(self, directory: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self.data, self.capsys = directory, data, capsys
        self.parts: list[tuple[str, int]] = []
        self.fails: str | None = None

    def part(self, command: list[str], **_: object) -> mock.Mock:
        request = json.loads(command[3])
        if request["system"] == self.fails:
            return mock.Mock(returncode=9, stderr="killed; ")
        self.parts.append((request["system"], request["seed"]))
        with mock.patch.object(sys, "argv", ["part", command[3]]):
            quality_parts.main()
        return mock.Mock(returncode=0)

    def __call__(self, dataset: str, *more: str) -> dict:
        arguments = [
            "quality",
            dataset,
            "--data",
            str(self.data),
            "--steps",
            "2",
            "--threads",
            "1",
            "--seeds",
            "1",
        ]
        arguments += ["--text-encoder", "tfidf", "--tiger-base", str(self.data / "t5.json"), "--quiet"]
        arguments += ["--work", str(self.directory / "work"), "--out", str(self.directory / "out"), *more]
        with mock.patch.object(sys, "argv", arguments), mock.patch("subprocess.run", self.part):
            quality.main()
        said: dict = json.loads(self.capsys.readouterr().out.splitlines()[-1])
        return said


@pytest.fixture
def run(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> Ran:
    return Ran(tmp_path, data, capsys)


def test_every_system_in_one_table(run: Ran) -> None:
    said = run("beauty")
    assert rows(said) == ROWS
    assert (said["dataset"], said["minutes"], said["cases"]) == ("beauty", None, 60)
    for figures in said["systems"].values():
        assert {"recall@10", "ndcg@10", "gini@10", "novelty@10", "sparse_recall@10"} <= figures.keys()
        assert figures["recall@10"]["seeds"] == 1
        assert figures["recall@10"]["spread"] is None
    assert "ece@10" not in said["systems"]["popularity"]
    assert said["costs"]["sasrec-ce"]["parameters"] > 0
    assert said["costs"]["popularity"]["parameters"] == 0
    assert {"genrec-model", "history-prior"} <= set(said["systems"]), "what the engine is made of, one by one"
    cost = said["costs"]["genrec"]
    assert 0 < cost["after_seconds"] < cost["train_seconds"], (
        "choosing on validation comes after, and is counted"
    )
    assert not any(one["resumed"] for one in said["costs"].values())
    assert set(said["against"]["all"]) == set(said["systems"]) - {"genrec"}
    found = said["against"]["all"]["sasrec-ce"]["recall@10"]
    assert (
        found["genrec_is"] == "better"
    )  # both trained two steps, and its prior has counted the planted chain
    assert found["low"] > 0

    out = run.directory / "out" / "beauty"
    text = (out / "report.md").read_text()
    for word in (
        "TIGER, table 1",
        "genrec less each row",
        "quality.svg",
        "0 cold targets",
        "| sasrec-ce |",
        "of it after, s",
        "ignore the variance over training seeds",
        "| history-prior |",
    ):
        assert word in text
    ElementTree.fromstring((out / "quality.svg").read_text())
    assert json.loads((out / "report.json").read_text())["systems"] == said["systems"]


@pytest.mark.parametrize(
    ("dataset", "split"), [("movielens-small", "leave-one-out"), ("industrial", "temporal")]
)
def test_other_shapes_of_data(run: Ran, dataset: str, split: str) -> None:
    said = run(dataset, "--systems", "genrec,cooccurrence,sasrec-ce", "--part", "validation")
    assert rows(said) == ["genrec", "cooccurrence", "sasrec-ce"]
    report = json.loads((run.directory / "out" / dataset / "report.json").read_text())
    assert (report["split"], report["part"]) == (split, "validation")
    assert said["systems"]["cooccurrence"]["recall@10"]["mean"] > 0.9


def test_a_killed_run_goes_on_and_another_question_starts_anew(run: Ran) -> None:
    systems = ("--systems", "genrec,popularity,sasrec-ce")
    run.fails = "sasrec-ce"
    with pytest.raises(
        SystemExit, match=r"killed; sasrec-ce, seed 0 failed \(exit code 9\).*goes on from there"
    ):
        run("beauty", *systems)
    assert run.parts == [("index", 0), ("popularity", 0), ("genrec", 0)]
    run.fails = None
    whole = run("beauty", *systems)
    assert run.parts[3:] == [("sasrec-ce", 0)]
    assert run("beauty", *systems)["systems"] == whole["systems"]
    assert len(run.parts) == 4
    assert run("beauty", *systems, "--users", "20")["cases"] == 20
    assert len(run.parts) == 8
    run("beauty", *systems, "--users", "20", "--fresh")
    assert len(run.parts) == 12


def test_what_is_another_question_is_moved_aside(run: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit while a benchmark was killed deleted what had trained for hours, without a word."""
    run("beauty", "--systems", "popularity")
    work = run.directory / "work" / "beauty" / "2steps-test-1threads"
    first = (work / "popularity-0.json").read_text()
    (work / "genrec-0.checkpoint.safetensors").write_text("of hours")
    monkeypatch.setattr(quality_parts, "code_fingerprint", lambda: "changed")
    run("beauty", "--systems", "popularity")
    assert run.parts == [("index", 0), ("popularity", 0)] * 2
    assert (work / "popularity-0.json.stale").read_text() == first
    assert (work / "popularity-0.json").read_text() != first
    assert (work / "index-0.stale").is_dir()
    assert (work / "genrec-0.checkpoint.safetensors").read_text() == "of hours", "nobody asked for genrec"
    asked = Asked("beauty", run.data, work, 27.0, steps=2, threads=1)
    quality.move_stale(asked, "genrec", 0, "data")
    said = run.capsys.readouterr().err
    assert "moved aside" in said
    assert "genrec-0.checkpoint.safetensors.stale" in said
    assert (work / "genrec-0.checkpoint.safetensors.stale").read_text() == "of hours"

    monkeypatch.setattr(quality_parts, "code_fingerprint", lambda: "changed again")
    run("beauty", "--systems", "popularity")
    assert json.loads((work / "popularity-0.json.stale").read_text())["asked"]["code"] == "changed"
    assert not list(work.glob("*.stale.stale"))


def test_code_that_changes_while_a_part_runs_is_not_filed_under_either(
    run: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code was hashed after training: figures of old code stood under the new, and counted as done."""
    free = quality_parts._free

    def edited(*arguments: Any) -> Any:
        monkeypatch.setattr(quality_parts, "code_fingerprint", lambda: "edited meanwhile")
        return free(*arguments)

    monkeypatch.setattr(quality_parts, "_free", edited)
    with pytest.raises(
        SystemExit, match=r"the code that popularity, seed 0 began with.*not kept; run the same"
    ):
        run("beauty", "--systems", "popularity")
    work = run.directory / "work" / "beauty" / "2steps-test-1threads"
    assert (work / "index-0.json").is_file()
    assert not (work / "popularity-0.json").exists()
    assert not (work / "popularity-0.npz").exists()


def test_parts_of_different_questions_are_not_reported_side_by_side(
    run: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index was of one commit, the rows of two others: one table held them all."""
    codes = iter(range(100))
    monkeypatch.setattr(quality_parts, "run_part", changing(quality_parts.run_part, codes, monkeypatch))
    with pytest.raises(
        SystemExit, match=r"same as index, seed 0, got popularity, seed 0 with other code; text-last"
    ):
        run("beauty", "--systems", "popularity,text-last")
    assert not (run.directory / "out" / "beauty" / "report.json").exists()


def changing(run_part: Any, codes: Iterator[int], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every part begins with other code."""

    def run(asked: Asked, system: str, seed: int) -> None:
        code = f"commit {next(codes)}"
        monkeypatch.setattr(quality_parts, "code_fingerprint", lambda: code)
        run_part(asked, system, seed)

    return run


def test_the_code_of_figures_is_that_of_the_parts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How SASRec was asked could change, and its kept figures still counted."""
    monkeypatch.setattr(quality_parts, "ROOT", tmp_path)
    names = [
        "genrec/a.py",
        "index/deep/b.py",
        *(f"benchmarks/quality_{one}.py" for one in ("curve", "data", "parts")),
    ]
    for name in (*names, "benchmarks/quality_report.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = {quality_parts.code_fingerprint()}
    for name in names:
        (tmp_path / name).write_text("changed")
        found.add(quality_parts.code_fingerprint())
    assert len(found) == 6
    (tmp_path / "benchmarks/quality_report.py").write_text("a report is made anew each time")
    assert quality_parts.code_fingerprint() in found


def test_threads_and_cases_have_places_of_their_own(run: Ran) -> None:
    """A look at 20 users threw the parts of all users away."""
    run("beauty", "--systems", "popularity")
    run("beauty", "--systems", "popularity", "--users", "20")
    run("beauty", "--systems", "popularity", "--threads", "2")
    run("beauty", "--systems", "popularity")
    assert run.parts == [("index", 0), ("popularity", 0)] * 3
    places = {path.name for path in (run.directory / "work" / "beauty").iterdir()}
    assert places == {"2steps-test-1threads", "2steps-test-1threads-20users", "2steps-test-2threads"}


def test_a_resumed_part_tells_what_went_before_the_kill(run: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row had the seconds and the validations of its last process alone."""
    from genrec.training import pretrain, train_bundle

    settings = pretrain.TrainSettings
    monkeypatch.setattr(
        pretrain, "TrainSettings", lambda **given: settings(**given, checkpoint_every=1, validations=4)
    )
    call = Curve.__call__

    def killed(self: Curve, at: Any) -> None:
        call(self, at)
        if at.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Curve, "__call__", killed)
    arguments = ("--systems", "genrec", "--steps", "4")
    with pytest.raises(KeyboardInterrupt):
        run("beauty", *arguments)
    monkeypatch.setattr(Curve, "__call__", call)
    work = run.directory / "work" / "beauty" / "4steps-test-1threads"
    assert train_bundle.checkpoint_path(work / "genrec-0").is_file()
    spent = json.loads((work / "genrec-0.spent").read_text())
    assert [step for step, _, _ in spent["points"]] == [1, 2, 3]
    assert spent["cpu"] > 0
    lost = [4, 9.0, 0.5]  # a validation behind the checkpoint: its step is taken again
    spent |= {"wall": 7000.0, "cpu": 6000.0, "points": [*spent["points"], lost]}
    (work / "genrec-0.spent").write_text(json.dumps(spent))
    said = run("beauty", *arguments)
    cost = said["costs"]["genrec"]
    assert 7000 < cost["train_seconds"] < 7600
    assert 6000 < cost["cpu_seconds"] < 6600
    assert cost["resumed"] == 1
    record = json.loads((work / "genrec-0.json").read_text())
    points = record["curves"]["genrec"]
    assert len(points) == 4
    assert points[:3] == [point[1:] for point in spent["points"][:3]]
    assert points[3] != lost[1:]
    assert not (work / "genrec-0.spent").exists()


def test_seeds_become_a_mean_with_a_spread(run: Ran, data: Path) -> None:
    said = run("beauty", "--systems", "genrec,popularity,sasrec-ce", "--seeds", "2")
    assert run.parts == [
        ("index", 0), ("index", 1), ("popularity", 0), ("genrec", 0), ("genrec", 1), ("sasrec-ce", 0),
        ("sasrec-ce", 1),
    ]  # fmt: skip
    work = run.directory / "work" / "beauty" / "2steps-test-1threads"
    each = [json.loads((work / f"genrec-{seed}.json").read_text())["systems"]["genrec"] for seed in (0, 1)]
    found = said["systems"]["genrec"]["ndcg@10"]
    assert found["mean"] == pytest.approx(np.mean([one["ndcg@10"] for one in each]))
    assert found["spread"] == pytest.approx(np.std([one["ndcg@10"] for one in each], ddof=1))
    assert said["systems"]["popularity"]["ndcg@10"]["seeds"] == 1

    asked = Asked("beauty", data, work, 27.0, steps=2, threads=1)
    parts = read_parts(asked, [("genrec", 0), ("genrec", 1), ("popularity", 0), ("popularity", 1)])
    means = [ndcg(one.lists["genrec"], one.target, 10) for one in parts[:2]]
    difference = np.mean(means, axis=0) - ndcg(parts[2].lists["popularity"], parts[2].target, 10)
    report = report_of(asked, quality.DATA_SETS["beauty"], 40, parts, [], {})
    assert report["against"]["all"]["popularity"]["ndcg@10"]["mean"] == pytest.approx(difference.mean())
    assert files_of(asked, "genrec", 1)[0].is_file()

    fewer = run("beauty", "--systems", "genrec,popularity,sasrec-ce", "--seeds", "2", "--peer-seeds", "1")
    assert len(run.parts) == 7, "all is kept, and the second seed of the peer left out of the report"
    assert fewer["systems"]["sasrec-ce"]["ndcg@10"]["seeds"] == 1
    assert fewer["systems"]["genrec"] == said["systems"]["genrec"]
    report_file = next(run.directory.rglob("report.md"))
    assert "2 seeds, but 1 of sasrec-ce (mean" in report_file.read_text("utf-8")


def test_peers_may_have_fewer_seeds() -> None:
    order = quality.jobs(["genrec", "popularity", "sasrec-ce", "tiger"], 3, 1)
    assert order[:4] == [("index", 0), ("index", 1), ("index", 2), ("popularity", 0)]
    assert order[4:] == [("genrec", 0), ("genrec", 1), ("genrec", 2), ("sasrec-ce", 0), ("tiger", 0)]


def test_more_seeds_of_peers_than_of_genrec_are_refused(run: Ran) -> None:
    with pytest.raises(SystemExit):
        run("beauty", "--seeds", "1", "--peer-seeds", "2")
    assert "no more of peers, got --seeds 1 --peer-seeds 2" in run.capsys.readouterr().err


def test_unknown_systems_are_refused(run: Ran) -> None:
    with pytest.raises(SystemExit):
        run("beauty", "--systems", "genrec,oracle")
    assert "got ['oracle']" in run.capsys.readouterr().err

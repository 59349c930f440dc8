"""The quality benchmark from end to end on toys: every system, every shape of data, killed and gone on with."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from benchmarks import quality, quality_parts
from benchmarks.quality_parts import Asked, files_of
from benchmarks.quality_report import read_parts, report_of
from genrec.evaluation.metrics import ndcg
from tests.benchmarks.quality_files import write_movielens, write_rows, write_sequences
from tests.genrec.test_finetune import config_file

ROWS = [
    "genrec", "popularity", "bm25-last", "text-last", "cooccurrence", "cooccurrence+text", "sasrec-ce", "tiger",
]  # fmt: skip


def rows(said: dict[str, Any]) -> list[str]:
    """The systems of a report, but for the model without its prior: it has a row where it has a prior."""
    return [name for name in said["systems"] if name != "genrec-model"]


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
    assert set(said["against"]["all"]) == set(said["systems"]) - {"genrec"}
    found = said["against"]["all"]["sasrec-ce"]["recall@10"]
    assert (
        found["genrec_is"] == "better"
    )  # both trained two steps, and its prior has counted the planted chain
    assert found["low"] > 0

    out = run.directory / "out" / "beauty"
    text = (out / "report.md").read_text()
    for word in ("TIGER, table 1", "genrec less each row", "quality.svg", "0 cold targets", "| sasrec-ce |"):
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


def test_other_code_is_another_question(run: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    run("beauty", "--systems", "popularity")
    monkeypatch.setattr(quality_parts, "code_fingerprint", lambda: "changed")
    run("beauty", "--systems", "popularity")
    assert run.parts == [("index", 0), ("popularity", 0)] * 2


def test_seeds_become_a_mean_with_a_spread(run: Ran, data: Path) -> None:
    said = run("beauty", "--systems", "genrec,popularity,sasrec-ce", "--seeds", "2")
    assert run.parts == [
        ("index", 0), ("index", 1), ("popularity", 0), ("genrec", 0), ("genrec", 1), ("sasrec-ce", 0),
        ("sasrec-ce", 1),
    ]  # fmt: skip
    work = run.directory / "work" / "beauty" / "2steps-test"
    each = [json.loads((work / f"genrec-{seed}.json").read_text())["systems"]["genrec"] for seed in (0, 1)]
    found = said["systems"]["genrec"]["ndcg@10"]
    assert found["mean"] == pytest.approx(np.mean([one["ndcg@10"] for one in each]))
    assert found["spread"] == pytest.approx(np.std([one["ndcg@10"] for one in each], ddof=1))
    assert said["systems"]["popularity"]["ndcg@10"]["seeds"] == 1

    asked = Asked("beauty", data, work, 27.0, steps=2, threads=1)
    parts = read_parts(asked, ["genrec", "popularity"], 2)
    means = [ndcg(one.lists["genrec"], one.target, 10) for one in parts[:2]]
    difference = np.mean(means, axis=0) - ndcg(parts[2].lists["popularity"], parts[2].target, 10)
    report = report_of(asked, quality.DATA_SETS["beauty"], 40, parts, [], {})
    assert report["against"]["all"]["popularity"]["ndcg@10"]["mean"] == pytest.approx(difference.mean())
    assert files_of(asked, "genrec", 1)[0].is_file()


def test_unknown_systems_are_refused(run: Ran) -> None:
    with pytest.raises(SystemExit):
        run("beauty", "--systems", "genrec,oracle")
    assert "got ['oracle']" in run.capsys.readouterr().err

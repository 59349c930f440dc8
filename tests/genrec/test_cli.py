"""The commands as a user runs them, on a catalog of forty items."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from genrec.bundle import load_bundle
from genrec.cli.main import main
from genrec.training.pretrain import TrainProgress
from tests.toy import ITEMS, toy_catalog, toy_histories

SMALL = ("--text-encoder", "tfidf", "--levels", "2", "--codebook-size", "8")
TINY_MODEL = ("--hidden-size", "16", "--layers", "1")


@dataclass
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


def genrec(*arguments: object, check: int = 0) -> Done:
    """Run the command line in this process; only the killed training needs one of its own."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        mock.patch.object(sys, "argv", ["genrec", *map(str, arguments)]),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert (code or 0) == check, err.getvalue()
    return Done(out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """items.jsonl and interactions.csv."""
    directory = tmp_path_factory.mktemp("toy")
    catalog, histories = toy_catalog(), toy_histories()
    catalog.frame.write_ndjson(directory / "items.jsonl")
    lines = ["user_id,item_id,timestamp"]
    for user in range(len(histories)):
        for place, row in enumerate(histories.events(user)):
            lines.append(f"{histories.user_ids[user]},{catalog.item_ids[row]},{1_000_000 + place}")
    (directory / "interactions.csv").write_text("\n".join(lines) + "\n")
    return directory


@pytest.fixture(scope="module")
def index(files) -> Path:
    genrec("index", "build", files / "items.jsonl", "--interactions", files / "interactions.csv", *SMALL,
           "--out", files / "toy.index")  # fmt: skip
    return files / "toy.index"


def train_command(index: Path, files: Path, out: Path, *more: object) -> list[object]:
    return ["train", "--index", index, "--interactions", files / "interactions.csv", "--out", out,
            *TINY_MODEL, "--threads", 1, *more]  # fmt: skip


@pytest.fixture(scope="module")
def bundle(files, index) -> Path:
    genrec(*train_command(index, files, files / "toy", "--steps", 120, "--learning-rate", 0.01))
    return files / "toy"


def test_the_whole_path_recommends_what_comes_next(bundle, files):
    """Users walk from item i to i + 4: a trained model must know."""
    answer = json.loads(genrec("recommend", bundle, "--history", "i0,i4,i8", "-k", 3, "--json").stdout)
    assert answer["items"][0]["item_id"] == "i12"
    assert len(answer["items"]) == 3
    result = json.loads(
        genrec("evaluate", bundle, "--interactions", files / "interactions.csv", "--json").stdout
    )
    assert result["users"] == 120
    assert result["split"] == "leave-one-out"
    assert result["systems"]["genrec"]["validity"] == 1.0
    assert result["systems"]["genrec"]["recall@10"] > result["systems"]["popularity"]["recall@10"]
    assert {"popularity", "bm25-last", "bm25-last5", "cooccurrence", "cooccurrence+text"} <= set(
        result["systems"]
    )


def test_tables_are_for_people(bundle):
    shown = genrec("recommend", bundle, "--history", "i0,i4,nobody").stdout
    assert "The river comedy" in shown
    assert "certified in their place" in shown
    filtered = genrec("recommend", bundle, "--history", "i0", "--where", 'genre == "horror"').stdout
    assert "horror" in filtered
    assert "western" not in filtered


def test_what_went_unused_is_said_on_standard_error(bundle):
    done = genrec("recommend", bundle, "--history", "i0,nobody", "--json")
    assert json.loads(done.stdout)["unknown_ids"] == ["nobody"]
    assert "nobody" in genrec("recommend", bundle, "--history", "i0,nobody").stderr
    assert "empty history" in genrec("recommend", bundle).stderr


def test_inspect_and_verify_look_at_indexes_and_bundles(index, bundle):
    facts = json.loads(genrec("index", "inspect", index, "--item", "i5", "--json").stdout)
    assert facts["items"] == ITEMS
    assert facts["shown"][0]["title"] == "The night drama"
    assert json.loads(genrec("index", "verify", bundle, "--json").stdout)["ok"] is True
    assert genrec("index", "inspect", index, "--item", "nobody", check=1).stdout


def test_text_search_is_set_at_build_and_said_by_inspect(files):
    out = files / "weighted.index"
    genrec("index", "build", files / "items.jsonl", *SMALL, "--bm25-k1", 0.9, "--bm25-b", 0.4,
           "--bm25-weight", "title=3", "--bm25-weight", "genre=1", "--out", out)  # fmt: skip
    facts = json.loads(genrec("index", "inspect", out, "--json").stdout)["settings"]
    assert (facts["bm25_k1"], facts["bm25_b"]) == (0.9, 0.4)
    assert facts["bm25_weights"] == {"title": 3, "genre": 1}
    assert "'title': 3" in genrec("index", "inspect", out).stdout


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["title"], "FIELD=N with a whole N >= 1, such as title=3, got 'title'"),
        (["title=0"], "got 'title=0'"),
        (["title=1.5"], "got 'title=1.5'"),
        (["title=1", "title=2"], "one weight a field, got two of 'title'"),
        (["titel=1"], "expected weights for fields among ['title', 'genre', 'year'], got ['titel']"),
    ],
)
def test_bad_weights_of_text_search_are_named(files, weights, message):
    options = [part for weight in weights for part in ("--bm25-weight", weight)]
    code = 1 if "titel=1" in weights else 2
    done = genrec(
        "index", "build", files / "items.jsonl", *SMALL, *options, "--out", files / "no.index", check=code
    )
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_doctor_and_version_answer():
    assert json.loads(genrec("doctor", "--json").stdout)["cores"] >= 1
    assert genrec("--version").stdout.strip()


@pytest.mark.parametrize(
    "command",
    [[], ["index"], ["index", "build"], ["index", "inspect"], ["index", "verify"], ["train"], ["recommend"],
     ["evaluate"], ["tune"], ["demo"], ["doctor"]],
)  # fmt: skip
def test_every_command_has_help_with_an_example(command):
    done = genrec(*command, "--help")
    assert len(command) == 0 or command == ["index"] or "Example: genrec" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["recommend", "nowhere"], 1, "has no manifest.json; make one with"),
        (["recommend"], 2, "Missing argument"),
        (["index", "build", "nowhere.csv", "--out", "x"], 1, "nowhere.csv"),
        (
            ["train", "--index", "nowhere", "--interactions", "x", "--out", "y"],
            1,
            "expected an index or bundle",
        ),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_errors_are_messages_and_exit_codes(tmp_path, arguments, code, message):
    done = genrec(*arguments, check=code)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_use_of_a_real_bundle_is_explained(bundle, index, files):
    assert "single" not in genrec("recommend", bundle, "--history", "i0", "-k", 0, check=2).stderr
    assert "got 'colour'" in genrec("recommend", bundle, "--where", "colour == 'red'", check=1).stderr
    both = genrec(*train_command(index, files, files / "x", "--steps", 1, "--minutes", 1), check=1)
    assert "expected one budget, got --minutes 1 and --steps 1" in both.stderr
    assert "kind 'bundle', got kind 'index'" in genrec("recommend", index, check=1).stderr


def test_evaluating_what_was_trained_on_is_refused(files):
    everything = files / "everything.index"
    genrec("index", "build", files / "items.jsonl", "--interactions", files / "interactions.csv", *SMALL,
           "--holdout", "none", "--out", everything)  # fmt: skip
    genrec(*train_command(everything, files, files / "everything", "--steps", 2))
    done = genrec("evaluate", files / "everything", "--interactions", files / "interactions.csv", check=1)
    assert "trained on 120 of 120" in done.stderr


def test_bad_rows_fail_by_default_and_are_skipped_on_request(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title\na,Alien\na,Again\nb,Brazil\n")
    refused = genrec("index", "build", tmp_path / "items.csv", "--out", tmp_path / "x", check=1)
    assert "line 3" in refused.stderr
    assert not (tmp_path / "x").exists()
    skipped = genrec("index", "build", tmp_path / "items.csv", "--out", tmp_path / "x", "--on-error", "skip",
                     "--text-encoder", "tfidf", "--json")  # fmt: skip
    assert json.loads(skipped.stdout)["items"] == 2
    assert "line 3" in skipped.stderr


def test_training_too_short_to_learn_says_so(files, index):
    done = genrec(*train_command(index, files, files / "short", "--steps", 2, "--resume"))
    assert "only 2 training steps" in done.stderr
    assert "no checkpoint in" in done.stderr


def test_an_interrupted_training_says_how_to_go_on(files, index):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with mock.patch("genrec.training.train_bundle.train_native", interrupt):
        done = genrec(*train_command(index, files, files / "stopped", "--steps", 2), check=130)
    assert "interrupted before the first checkpoint" in done.stderr
    (files / "stopped.checkpoint.safetensors").touch()
    with mock.patch("genrec.training.train_bundle.train_native", interrupt):
        done = genrec(*train_command(index, files, files / "stopped", "--steps", 2), check=130)
    assert "with --resume goes on" in done.stderr


def test_resuming_with_another_setting_names_it(files, index):
    def stop_at_12(_: object, at: TrainProgress) -> None:
        if at.step == 12:
            raise KeyboardInterrupt

    out, command = files / "changed", ["--steps", 20, "--checkpoint-every", 5]
    with mock.patch("genrec.cli.train._Report.step", stop_at_12):
        genrec(*train_command(index, files, out, *command, "--learning-rate", 0.01), check=130)
    done = genrec(*train_command(index, files, out, *command, "--learning-rate", 0.02, "--resume"), check=1)
    assert (
        "changed.checkpoint.safetensors began with, got learning_rate 0.02 where it has 0.01;" in done.stderr
    )
    genrec(*train_command(index, files, out, *command, "--learning-rate", 0.01, "--resume"))


def test_a_sequence_file_is_read_for_what_it_is(files):
    """The command passes a column mapping with nothing in it, which once made every file a table."""
    histories = toy_histories()
    lines = [
        " ".join([user, *(f"i{row}" for row in histories.events(number))])
        for number, user in enumerate(histories.user_ids)
    ]
    (files / "sequences.txt").write_text("\n".join(lines) + "\n")
    done = genrec("index", "build", files / "items.jsonl", "--interactions", files / "sequences.txt", *SMALL,
                  "--out", files / "sequences.index", "--json")  # fmt: skip
    assert json.loads(done.stdout)["training_events"] == histories.num_events - 2 * len(histories)


def test_the_installed_command_turns_errors_into_messages():
    """The console script once named the typer app itself, so errors came as tracebacks."""
    done = subprocess.run(
        [Path(sys.executable).with_name("genrec"), "recommend", "nowhere"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: expected an index or bundle directory")


def test_a_killed_training_resumes_to_the_same_weights(files, index):
    """Kill after the first checkpoint, resume, and compare with a run that was left alone."""
    command = ["--steps", 150, "--checkpoint-every", 10]
    genrec(*train_command(index, files, files / "whole", *command))
    out = files / "killed"
    arguments = [str(a) for a in train_command(index, files, out, *command)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from genrec.cli.main import main; main()", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    checkpoint = files / "killed.checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not (out / "manifest.json").exists()
    genrec(*train_command(index, files, out, *command, "--resume"))
    assert not checkpoint.exists()
    whole, resumed = (
        load_file(load_bundle(path).artifact.files / "model" / "native_model.safetensors")
        for path in (files / "whole", out)
    )
    assert whole.keys() == resumed.keys()
    for name, weights in whole.items():
        np.testing.assert_array_equal(weights, resumed[name])

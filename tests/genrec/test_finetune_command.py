"""``genrec train --base`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genrec.bundle import load_bundle
from genrec.decoders.onnx_export import export_bundle
from genrec.demo import read_works, simulate_histories, works_path
from genrec.evaluation.protocol import figures, rank_cases
from genrec.recommender import Recommender
from genrec.training.adapters import LoraSettings
from genrec.training.finetune import finetune_bundle
from genrec.training.finetune_settings import FinetuneSettings
from index.build import IndexSettings, build_index
from index.catalog_readers import read_catalog
from index.histories import leave_one_out
from index.history_readers import read_interactions
from tests.genrec.test_cli import Done, genrec
from tests.genrec.test_finetune import config_file
from tests.genrec.tiny_checkpoints import checkpoint
from tests.toy import toy_histories, toy_index


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = toy_index()
    directory = tmp_path_factory.mktemp("command")
    index.save(directory / "toy.index")
    lines = ["user_id,item_id,timestamp"]
    histories = toy_histories(users=40)
    for user in range(len(histories)):
        for place, row in enumerate(histories.events(user)):
            lines.append(f"u{user},{index.catalog.item_ids[row]},{place}")
    (directory / "interactions.csv").write_text("\n".join(lines) + "\n")
    return directory


def train(files: Path, *options: object, check: int = 0) -> Done:
    return genrec("train", "--index", files / "toy.index", "--interactions", files / "interactions.csv",
                  "--out", files / "out", *options, check=check)  # fmt: skip


def test_a_config_becomes_a_bundle_that_answers(files: Path) -> None:
    base = config_file(files, num_layers=1)
    done = train(files, "--base", base, "--steps", 3, "--batch-size", 4, "--validation-users", 4,
                      "--tasks", "semantic_id,title=0.5", "--threads", 1, "--json")  # fmt: skip
    facts = json.loads(done.stdout)
    assert facts["steps"] == 3
    assert set(facts["tasks"]) == {"semantic_id", "title"}
    answer = json.loads(
        genrec("recommend", files / "out", "--history", "i0,i4", "-k", 3, "--mode", "title", "--json").stdout
    )
    assert len(answer["items"]) == 3
    refused = genrec("export", files / "out", check=1)
    assert "EncoderDecoder, which torch runs" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lora",), "--lora together with --base, got no base"),
        (("--epochs", 1, "--form", "prose"), "--form, --epochs together with --base"),
        (("--base", "t5-tiger", "--hidden-size", 64), "--hidden-size without --base"),
        (("--base", "t5-tiger", "--lora-rank", 4), "--lora with --lora-rank"),
        (
            ("--base", "t5-tiger", "--minutes", 1, "--epochs", 2),
            "one budget, got --minutes 1 and --epochs 2",
        ),
        (("--base", "t5-tiger", "--tasks", "title=much"), "NAME or NAME=WEIGHT, got 'title=much'"),
    ],
)
def test_options_that_contradict_each_other(files: Path, options: tuple[object, ...], message: str) -> None:
    stderr = train(files, *options, check=1).stderr
    assert message in " ".join(stderr.split())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_the_demo_catalog_end_to_end_by_lora(family: str, tmp_path: Path) -> None:
    """Some minutes on one thread: every answer of every mode is an item, and the model has learned something."""
    catalog = read_catalog(works_path()).catalog
    interactions = tmp_path / "interactions.csv"
    simulate_histories(read_works(), users=800).write_csv(interactions)
    histories = read_interactions(interactions, catalog).histories
    index = build_index(catalog, histories, IndexSettings(text_encoder="tfidf", levels=2, codebook_size=32))
    base = checkpoint(tmp_path / "base", family, texts=catalog.titles, hidden_size=64)
    settings = FinetuneSettings(
        str(base), lora=LoraSettings(rank=16), steps=400, batch_size=32, learning_rate=5e-3, max_items=8,
        validation_users=100, validations=2, tasks={"semantic_id": 1.0, "title": 1.0},
    )  # fmt: skip
    finetune_bundle(index, histories, tmp_path / "out", settings=settings)
    bundle = load_bundle(tmp_path / "out")
    recommender = Recommender.of_bundle(bundle)
    cases = leave_one_out(histories, "test").take(np.arange(100))
    untrained = 10 / len(catalog)  # recall@10 of a guess
    for mode in ("semantic_id", "title"):
        ranked = rank_cases(recommender, cases, 10, mode=mode, batch=16)  # type: ignore[arg-type]
        found = figures(ranked, cases.target, len(catalog))
        assert found["validity"] == 1.0
        assert found["recall@10"] > 3 * untrained, (mode, found)
    assert export_bundle(tmp_path / "out", checks=1).worst.share < 1e-3

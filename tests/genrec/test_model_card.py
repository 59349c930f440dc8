"""The card in every bundle: what it says, that it is vouched for, and that it follows what changes."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genrec.bundle import changing_bundle, load_bundle, save_changed_index
from genrec.model_card import CARD, card, training_facts
from genrec.native_config import NativeConfig
from genrec.tasks import TaskDefaults
from genrec.training.checkpoint import load_checkpoint, save_checkpoint
from genrec.training.pretrain import TrainProgress, TrainSettings
from genrec.training.train_bundle import checkpoint_path, train_bundle
from index.build import training_part
from index.catalog import Catalog
from index.errors import IndexFormatError
from index.leakage import event_hashes
from index.maintenance import add_items
from tests.genrec.test_bundle_text import save
from tests.toy import toy_catalog, toy_histories, toy_index

MANIFEST: dict[str, Any] = {
    "items": 40,
    "removed": 0,
    "tasks": {"semantic_id": {"normalize": "catalog", "beam": 50}},
    "model": {"family": "native"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    index = toy_index()
    config = NativeConfig(index.level_sizes, hidden_size=16, layers=1, max_items=30)
    out = tmp_path_factory.mktemp("card") / "toy"
    train_bundle(index, toy_histories(), out, settings=TrainSettings(steps=3, seed=11), config=config)
    return out


def text_of(path: Path) -> str:
    bundle = load_bundle(path, verify=True)
    assert bundle.card is not None
    return bundle.card.read_text("utf-8")


def test_a_trained_bundle_says_where_it_comes_from(trained: Path):
    said, manifest = text_of(trained), load_bundle(trained).artifact.manifest
    training = training_part(toy_histories(), "last-two")
    hashes = event_hashes(training, toy_catalog().item_ids)
    assert hashlib.sha256(hashes.tobytes()).hexdigest() in said
    assert toy_catalog().fingerprint() in said
    for line in (
        "| users | 120 |",
        f"| events | {training.num_events:,} |",
        "| items | 40 |",
        "| index: text encoder | tfidf |",
        "| steps | 3 |",
        "| seed | 11 |",
        "| hidden size | 16 |",
        "the last was never looked at",
        "the newest 30 items",
        "genrec recommend BUNDLE",
    ):
        assert line in said, line
    figures = manifest["model"]["validation"]["catalog"]
    assert f"{figures['ndcg@10']:.4f}" in said
    assert said.count("(chosen)") == 1
    assert f"{manifest['model']['parameters']:,} parameters" in said


def test_the_card_is_vouched_for(trained: Path, tmp_path: Path):
    bundle = load_bundle(trained)
    assert CARD in bundle.artifact.manifest["files"]
    assert bundle.card is not None
    honest = bundle.card.read_bytes()
    bundle.card.write_bytes(honest.replace(b"40", b"41"))
    try:
        with pytest.raises(IndexFormatError, match=CARD):
            load_bundle(trained, verify=True)
    finally:
        bundle.card.write_bytes(honest)


def test_it_follows_the_manifest(tmp_path: Path):
    path = tmp_path / "toy"
    save(path, toy_index(), None, {"semantic_id": TaskDefaults(beam=5)})
    assert "a causal language model" in text_of(path)
    assert "exported" not in text_of(path)
    with changing_bundle(load_bundle(path), replacing="onnx") as (_, manifest):
        manifest["export"] = {}
    assert "It has been exported" in text_of(path)

    opened = load_bundle(path)
    frame = pl.DataFrame(
        {"item_id": ["new"], "title": ["The new comedy"], "genre": ["comedy"], "year": [2030]}
    )
    added = add_items(opened.index, Catalog(frame))
    save_changed_index(opened.artifact, added, path)
    assert "| items | 41 |" in text_of(path)


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_parts(tmp_path: Path):
    """A run killed after an hour and gone on from told of the minutes since: in its facts, its card, its result."""
    index, out = toy_index(), tmp_path / "toy"
    asked: dict[str, Any] = {
        "settings": TrainSettings(steps=4, validations=1, checkpoint_every=1),
        "config": NativeConfig(index.level_sizes, hidden_size=16, layers=1, max_items=30),
        "prior_weight": 0.0,
    }

    def kill(at: TrainProgress) -> None:
        if at.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_bundle(index, toy_histories(), out, **asked, progress=kill)
    checkpoint = checkpoint_path(out)
    save_checkpoint(checkpoint, dataclasses.replace(load_checkpoint(checkpoint), seconds=3600.0))
    result = train_bundle(index, toy_histories(), out, **asked, resume=True)
    assert result.steps == 4
    assert 3600 < result.seconds < 3600 + 600
    seconds = load_bundle(out).artifact.manifest["model"]["seconds"]
    assert seconds == round(result.seconds, 1)
    assert f"| seconds, all told | {seconds} |" in text_of(out)


def test_what_is_not_recorded_is_not_said():
    said = card(MANIFEST)
    assert "None: nothing was held out" in said
    assert "Not recorded." in said
    assert "Held out" not in said
    assert "None" not in said.replace("None: nothing", "")


def test_figures_of_every_task_and_the_days_of_the_events():
    figures = {"recall@10": 0.25, "ndcg@10": 0.125}
    model = {
        "family": "native",
        "holdout": "none",
        "validation": {"catalog": figures, "vocabulary": figures},
        "title_validation": {"vocabulary": figures},
        "training_time": ["2001-02-03", "2004-05-06"],
    }
    tasks = {"semantic_id": {"normalize": "catalog"}, "title": {"normalize": "vocabulary"}}
    said = card({**MANIFEST, "model": model, "tasks": tasks})
    assert "| semantic_id | catalog (chosen) | – | – | 0.2500 | 0.1250 | – |" in said
    assert "| title | vocabulary (chosen) | – | – | 0.2500 | 0.1250 | – |" in said
    assert "| semantic_id | vocabulary | " in said
    assert "2001-02-03 to 2004-05-06" in said
    assert "no honest figures" in said


@pytest.mark.parametrize(
    ("tasks", "whose"),
    [
        ({"semantic_id": {}}, "are the model's;"),
        ({"semantic_id": {"prior_weight": 0.0}}, "are the model's;"),
        ({"semantic_id": {"prior_weight": 0.9}}, "are the model's, mixed with the history prior;"),
        (
            {"semantic_id": {"prior_weight": 0.9}, "title": {}},
            "are the model's, mixed with the history prior where it answers by semantic_id;",
        ),
    ],
)
def test_probabilities_are_said_to_be_whose_they_are(tasks: dict[str, Any], whose: str):
    """A bundle that mixes a prior in by nine parts of ten said of its probabilities that they are the model's."""
    assert f"- Probabilities {whose}" in card({**MANIFEST, "tasks": tasks})


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ({}, "less often.\n"),
        ({"history_prior": {"unseen_boost": 1.0}}, "less often.\n"),
        (
            {"history_prior": {"unseen_boost": 1.5}},
            "less often, though the prior takes what their texts say 1.5 times.\n",
        ),
    ],
)
def test_a_boost_of_new_items_is_said(prior: dict[str, Any], said: str):
    tasks = {"semantic_id": {"prior_weight": 0.9}}
    assert f"expect them to be found {said}" in card({**MANIFEST, "tasks": tasks, **prior})


def test_training_facts_count_what_was_learned_from():
    training = training_part(toy_histories(5), "last-two")
    times = np.concatenate([86_400.0 * np.arange(n) for n in training.lengths])
    hashes = event_hashes(training, toy_catalog().item_ids)
    facts = training_facts(dataclasses.replace(training, timestamps=times), hashes)
    assert facts["training_users"] == 5
    assert facts["training_events"] == training.num_events
    assert facts["training_time"][0] == "1970-01-01"
    assert facts["training_time"][1] == f"1970-01-{int(training.lengths.max()):02}"
    other = training_facts(training_part(toy_histories(5, seed=1), "last-two"), hashes[:-1])
    assert other["events_sha256"] != facts["events_sha256"]
    assert "training_time" not in other

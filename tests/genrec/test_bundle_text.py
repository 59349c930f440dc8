"""A bundle whose model writes titles: saved, opened, and its catalog changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec.bundle import load_bundle, save_bundle, save_changed_index
from genrec.bundle_text import TEXT, BundleText
from genrec.recommender import Recommender
from genrec.speech import SpeechForm
from genrec.tasks import TaskDefaults
from genrec.vocabulary import TextVocabulary
from index.artifact import writing_artifact
from index.catalog import Catalog
from index.errors import IndexFormatError, RequestError
from index.item_index import ItemIndex
from index.maintenance import add_items, compact, remove_items
from tests.genrec import tiny_models
from tests.genrec.onnx_models import FORM
from tests.toy import toy_index
from tests.toy_text import toy_text

TASKS = {"title": TaskDefaults(beam=5), "semantic_id": TaskDefaults(beam=5)}


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return toy_index()


@pytest.fixture(scope="module")
def text(index: ItemIndex) -> BundleText:
    return toy_text(index)


@pytest.fixture
def bundle(tmp_path: Path, index: ItemIndex, text: BundleText) -> Path:
    """A causal model whose codes stand behind its text vocabulary."""
    save(tmp_path / "toy", index, text)
    return tmp_path / "toy"


def save(path: Path, index: ItemIndex, text: BundleText | None, tasks=TASKS) -> None:
    offset = 300
    model = tiny_models.qwen3(vocab_size=offset + sum(index.level_sizes))
    facts = {"token_offset": offset, "history": FORM.to_dict()}
    save_bundle(
        path,
        index,
        model.save_pretrained,
        family="causal_lm",
        tasks=tasks,
        trained_events=np.zeros(0, np.uint64),
        facts=facts,
        text=text,
    )


def titles_of(path: Path) -> list[str]:
    """The title of every row as its path says it."""
    text = load_bundle(path).text
    assert text is not None
    paths = [text.titles.path(int(rank)) for rank in text.titles.rank_of_item]
    return [text.vocabulary.text(one) for one in paths]


def test_it_comes_back(bundle: Path, index: ItemIndex, text: BundleText):
    loaded = load_bundle(bundle, verify=True)
    assert loaded.modes == ["semantic_id", "title"]
    assert loaded.text is not None
    assert loaded.text.vocabulary.content_hash == text.vocabulary.content_hash
    assert loaded.text.form == text.form
    assert titles_of(bundle) == index.catalog.titles


def test_every_task_is_answered_by_one_model_in_memory(bundle: Path):
    decoders = load_bundle(bundle).decoders("torch")
    assert list(decoders) == ["semantic_id", "title"]
    assert decoders["semantic_id"].model is decoders["title"].model
    assert [decoders[name].token_offset for name in decoders] == [300, 0]
    recommender = Recommender.load(bundle, "torch", modes=["title"])
    assert list(recommender.modes) == ["title"]
    with pytest.raises(RequestError, match=r"trained for \(title, semantic_id\), got 'query'"):
        Recommender.load(bundle, "torch", modes=["query"])


def test_a_model_may_speak_text_alone(tmp_path: Path, index: ItemIndex):
    vocabulary = TextVocabulary.train(index.catalog.titles, 300)
    prose = BundleText.of(index, vocabulary, SpeechForm("prose", max_tokens=60))
    save(tmp_path / "prose", index, prose, {"title": TaskDefaults(beam=5)})
    recommender = Recommender.load(tmp_path / "prose", "torch")
    answer = recommender.recommend(["i3", "i5"], k=4, exact=True)
    assert answer.mode == "title"
    assert answer.certified == len(answer.items) == 4


def test_added_items_get_title_paths_and_removed_ones_lose_them(bundle: Path, index: ItemIndex):
    fields = index.catalog.frame.columns
    new = pl.DataFrame({"item_id": ["n1"], "title": ["The quiet ocean"], "genre": ["drama"], "year": [2030]})
    path = bundle
    opened = load_bundle(path)
    save_changed_index(opened.artifact, add_items(opened.index, Catalog(new.select(fields))), path)
    assert titles_of(path) == [*index.catalog.titles, "The quiet ocean"]
    found = Recommender.load(path, "torch").recommend([], mode="title", include=["n1"])
    assert [item.generated for item in found.items] == ["The quiet ocean"]

    opened = load_bundle(path, verify=True)
    save_changed_index(opened.artifact, remove_items(opened.index, ["i0", "i7"]), path)
    assert len(titles_of(path)) == 41
    assert not Recommender.load(path, "torch").recommend([], mode="title", include=["i0"]).items

    opened = load_bundle(path, verify=True)
    save_changed_index(opened.artifact, compact(opened.index), path)
    left = [title for row, title in enumerate(index.catalog.titles) if row not in (0, 7)]
    assert titles_of(path) == [*left, "The quiet ocean"]
    assert load_bundle(path, verify=True).text.vocabulary.content_hash == opened.text.vocabulary.content_hash


def test_another_vocabulary_than_the_models_is_refused(bundle: Path, index: ItemIndex):
    artifact = load_bundle(bundle).artifact
    entries = artifact.entries
    other = TextVocabulary.train(index.catalog.titles, 290)
    copy = bundle.with_name("copy")
    with writing_artifact(copy, "bundle", entries) as files:
        for part in artifact.files.iterdir():
            if part.name != "vocabulary":
                (files / part.name).symlink_to(part)
        (files / "vocabulary").mkdir()
        other.save(files / "vocabulary")
    with pytest.raises(IndexFormatError, match="its tokens would mean other words"):
        load_bundle(copy)
    entries[TEXT]["vocabulary"] = other.content_hash  # the titles are fine with it, the model is not
    with writing_artifact(copy, "bundle", entries) as files:
        for part in artifact.files.iterdir():
            if part.name != "vocabulary":
                (files / part.name).symlink_to(part)
        (files / "vocabulary").mkdir()
        other.save(files / "vocabulary")
    with pytest.raises(IndexFormatError, match="its tokens would mean other words"):
        load_bundle(copy)


def test_text_tasks_need_a_vocabulary(tmp_path: Path, index: ItemIndex):
    save(tmp_path / "mute", index, None)
    with pytest.raises(IndexFormatError, match="expected a vocabulary for the tasks title"):
        load_bundle(tmp_path / "mute")
    save(tmp_path / "mute", index, None, {"title_of_code": TaskDefaults()})
    with pytest.raises(IndexFormatError, match="expected a task that answers requests"):
        load_bundle(tmp_path / "mute")


def test_the_manifest_says_what_the_model_speaks(bundle: Path, text: BundleText):
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["model"]["vocabulary"] == manifest["text"]["vocabulary"] == text.vocabulary.content_hash
    assert manifest["text"]["form"] == {"kind": "compact", "max_items": 20, "max_tokens": 512}

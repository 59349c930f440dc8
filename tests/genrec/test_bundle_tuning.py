"""Query mode of a saved bundle is tuned on what it keeps for validation, and asked with what was chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec.bundle import load_bundle, save_bundle
from genrec.evaluation import query_tuning
from genrec.evaluation.bundle_tuning import tune_bundle, tune_prior
from genrec.modes import QueryMode
from genrec.query_search import CatalogQuerySearch
from genrec.recommender import Recommender
from genrec.tasks import QueryDefaults, TaskDefaults
from index.errors import HistoryError, LeakageError, RequestError
from index.histories import Histories
from index.item_index import ItemIndex
from index.leakage import event_hashes
from tests.genrec import tiny_models
from tests.genrec.onnx_models import FORM
from tests.genrec.test_cli import genrec
from tests.toy import toy_histories, toy_index
from tests.toy_text import toy_text

USERS = 20
ASKED = QueryDefaults(beam=3, queries=2, constraint="catalog_ngrams")


@pytest.fixture(autouse=True)
def few_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_tuning, "USERS", USERS)


@pytest.fixture(scope="module")
def histories() -> Histories:
    return toy_histories()


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return toy_index()


def save(path: Path, index: ItemIndex, trained: Histories | None = None, query: bool = True) -> Path:
    """A model of random weights that writes queries."""
    offset = 300
    model = tiny_models.qwen3(vocab_size=offset + sum(index.level_sizes))
    nothing = np.zeros(0, np.uint64)
    save_bundle(
        path,
        index,
        model.save_pretrained,
        family="causal_lm",
        tasks={"semantic_id": TaskDefaults(beam=5), **({"query": ASKED} if query else {})},
        trained_events=nothing if trained is None else event_hashes(trained, index.catalog.item_ids),
        facts={"token_offset": offset, "history": FORM.to_dict()},
        text=toy_text(index),
    )
    return path


def test_what_was_chosen_is_kept_and_used(tmp_path, index, histories) -> None:
    bundle = load_bundle(save(tmp_path / "toy", index))
    tuned = tune_bundle(bundle, histories)
    assert tuned.users == USERS
    assert tuned.recall == max(one.recall for one in tuned.tried if one.context == tuned.context)
    again = load_bundle(tmp_path / "toy", verify=True)
    assert again.tasks["query"] == replace(ASKED, k1=tuned.k1, b=tuned.b, context=tuned.context)
    assert again.tasks["semantic_id"] == bundle.tasks["semantic_id"]
    assert again.artifact.manifest["bm25_tuning"]["users"] == USERS
    mode = Recommender.of_bundle(again).modes["query"]
    assert isinstance(mode, QueryMode)
    assert isinstance(mode.search, CatalogQuerySearch)
    assert (mode.search.bm25.settings.k1, mode.search.bm25.settings.b) == (tuned.k1, tuned.b)
    assert again.index.bm25.settings.k1 == 1.2  # the index itself stays as it was built
    assert tune_bundle(again, histories) == tuned


def test_what_cannot_be_tuned_says_why(tmp_path, index, histories) -> None:
    with pytest.raises(RequestError, match="whose model writes queries, got one for semantic_id"):
        tune_bundle(load_bundle(save(tmp_path / "codes", index, query=False)), histories)
    everything = load_bundle(save(tmp_path / "everything", index, trained=histories))
    with pytest.raises(LeakageError, match="trained on 120 of 120"):
        tune_bundle(everything, histories)
    production = toy_index(holdout="none")
    with pytest.raises(HistoryError, match="built with --holdout none"):
        tune_bundle(load_bundle(save(tmp_path / "production", production)), histories)


def test_the_command_shows_what_was_tried(tmp_path, index, histories) -> None:
    bundle = save(tmp_path / "toy", index)
    lines = ["user_id,item_id,timestamp"]
    for user in range(len(histories)):
        for place, row in enumerate(histories.events(user)):
            lines.append(f"{histories.user_ids[user]},i{row},{1_000_000 + place}")
    (tmp_path / "interactions.csv").write_text("\n".join(lines) + "\n")
    shown = genrec("tune", bundle, "--interactions", tmp_path / "interactions.csv").stdout
    assert "recall@40 of 20 validation cases" in shown
    assert "written into" in shown
    facts = json.loads(
        genrec("tune", bundle, "--interactions", tmp_path / "interactions.csv", "--json").stdout
    )
    assert load_bundle(bundle).tasks["query"].k1 == facts["k1"]  # type: ignore[attr-defined]


def test_a_bundle_without_a_prior_gets_one_that_is_used(tmp_path, index, histories) -> None:
    bundle = load_bundle(save(tmp_path / "toy", index, query=False))
    assert bundle.prior is None
    alone = Recommender.of_bundle(bundle)
    chosen = tune_prior(bundle, histories)
    again = load_bundle(tmp_path / "toy", verify=True)
    assert again.prior is not None
    assert again.prior.settings == chosen.settings
    assert again.prior.words is not None
    codes = again.tasks["semantic_id"]
    assert codes == replace(bundle.tasks["semantic_id"], prior_weight=chosen.weight)
    assert chosen.weight > 0  # the model is random, and the toys' histories are not
    assert again.artifact.manifest["model"]["prior_validation"]["ndcg@10"] == pytest.approx(
        chosen.ndcg, abs=1e-6
    )
    asked = Recommender.of_bundle(again)
    assert asked.recommend(["i1", "i7"]) != alone.recommend(["i1", "i7"])
    assert asked.recommend(["i1", "i7"], prior="none").items == alone.recommend(["i1", "i7"]).items
    assert tune_prior(again, histories) == chosen  # the prior in the bundle has no say


def test_the_command_makes_a_prior(tmp_path, index, histories) -> None:
    path = save(tmp_path / "toy", index, query=False)
    lines = [
        " ".join([histories.user_ids[user], *(f"i{row}" for row in histories.events(user))])
        for user in range(len(histories))
    ]
    (tmp_path / "histories.txt").write_text("\n".join(lines))
    said = genrec("tune", path, "--interactions", tmp_path / "histories.txt", "--prior", "--json", "-q")
    found = json.loads(said.stdout)
    assert 0 < found["weight"] < 1
    assert set(found["settings"]) == {"recency", "text_weight", "power", "word_weight", "unseen_boost"}
    assert load_bundle(path).tasks["semantic_id"].prior_weight == found["weight"]

"""``genrec index add | remove | compact`` as a user runs them, on an index and on a bundle."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import pytest
import torch

from genrec.bundle import load_bundle, save_bundle, save_changed_index
from genrec.cli.main import main
from genrec.native_model import NativeConfig, NativeModel
from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from index.artifact import open_artifact
from index.errors import IndexFormatError
from index.item_index import SEMANTIC_ID, index_of, load_index
from index.maintenance import remove_items
from tests.toy import ITEMS, toy_catalog, toy_index

EVENTS = np.arange(3, dtype=np.uint64)


def genrec(*arguments: object, check: int = 0) -> tuple[str, str]:
    """What a command prints on standard output and on standard error."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    argv = ["genrec", *map(str, arguments)]
    with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "argv", argv):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert (code or 0) == check, err.getvalue()
    return out.getvalue(), err.getvalue()


def answer(*arguments: object) -> dict[str, object]:
    return json.loads(genrec(*arguments, "--json")[0])


@pytest.fixture
def index(tmp_path) -> Path:
    toy_index().save(tmp_path / "toy.index")
    return tmp_path / "toy.index"


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle whose model has random weights: what it prefers is nobody's business here."""
    built = toy_index()
    torch.manual_seed(0)
    model = NativeModel(NativeConfig(built.level_sizes, hidden_size=16, layers=1, heads=2), built.codes)
    save_bundle(
        tmp_path / "toy",
        built,
        model.save,
        family="native",
        tasks={SEMANTIC_ID: TaskDefaults(beam=7)},
        trained_events=EVENTS,
        facts={"steps": 12},
    )
    return tmp_path / "toy"


def items_file(tmp_path: Path, ids: Sequence[str] = ("n1", "n2")) -> Path:
    file = tmp_path / "new.csv"
    lines = [f"{one},The zebra comedy,comedy,2030" for one in ids]
    file.write_text("\n".join(["item_id,title,genre,year", *lines]) + "\n")
    return file


def ranked(bundle: Path, *history: str) -> dict[str, float]:
    found = Recommender.load(bundle, verify=True).recommend(list(history), k=100, exclude_seen=False).items
    return {item.item_id: item.score for item in found}


def test_a_bundle_recommends_what_was_added_and_nothing_that_was_removed(bundle, tmp_path):
    said = answer("index", "add", bundle, items_file(tmp_path))
    assert (said["added"], said["items"], said["removed_waiting"], said["kind"]) == (2, 42, 0, "bundle")
    before = ranked(bundle, "i1", "n1")
    assert {"n1", "n2"} <= set(before)
    assert answer("recommend", bundle, "--history", "i1,n1")["unknown_ids"] == []

    said = answer("index", "remove", bundle, "--item", "i3", "--item", "n2")
    assert (said["removed"], said["items"], said["removed_waiting"]) == (2, 40, 2)
    after = ranked(bundle, "i1", "n1")
    assert after == {one: score for one, score in before.items() if one not in ("i3", "n2")}
    assert answer("recommend", bundle, "--history", "i3")["unknown_ids"] == []  # still readable as history

    said = answer("index", "compact", bundle)
    assert (said["dropped"], said["items"], said["removed_waiting"]) == (2, 40, 0)
    assert said["changes"] == {"generation": 3, "added": 2, "removed": 2, "dropped": 2}
    assert set(ranked(bundle, "i1", "n1")) == set(after)
    assert answer("recommend", bundle, "--history", "i3")["unknown_ids"] == ["i3"]


def test_the_model_of_a_bundle_stays_as_it_is(bundle, tmp_path):
    old = open_artifact(bundle)
    answer("index", "add", bundle, items_file(tmp_path))
    answer("index", "remove", bundle, "--item", "i3")
    answer("index", "compact", bundle)
    new = open_artifact(bundle, verify=True)
    for name, entry in old.manifest["files"].items():
        if name.startswith("model/"):
            assert new.manifest["files"][name] == entry
    assert (new.manifest["model"], new.manifest["tasks"]) == (old.manifest["model"], old.manifest["tasks"])
    assert set(EVENTS.tolist()) <= set(load_bundle(bundle).trained_events().tolist())


def test_what_was_added_scores_as_in_a_model_made_for_it(bundle, tmp_path):
    """Beside the frozen weights the model needs nothing of a new item but its codes."""
    answer("index", "add", bundle, items_file(tmp_path))
    opened = load_bundle(bundle)
    fresh = NativeModel.load(opened.artifact.files / "model", opened.index.codes)
    old = NativeModel.load(opened.artifact.files / "model", opened.index.codes[:ITEMS])
    rows = torch.tensor([[3, 5, 1]])
    assert torch.equal(fresh.encode(rows), old.encode(rows))
    assert len(fresh.item_tokens) == ITEMS + 2


def test_an_index_goes_to_another_directory_on_request(index, tmp_path):
    before = open_artifact(index).content_hash
    genrec("index", "remove", index, "--item", "i3", "--out", tmp_path / "less.index")
    assert open_artifact(index).content_hash == before
    assert load_index(tmp_path / "less.index").removed.tolist() == [3]
    genrec("index", "compact", tmp_path / "less.index", "--out", tmp_path / "small.index")
    assert load_index(tmp_path / "less.index").removed.tolist() == [3]
    assert len(load_index(tmp_path / "small.index").catalog) == ITEMS - 1


def test_ids_to_remove_come_from_a_file_too(index, tmp_path):
    (tmp_path / "gone.txt").write_text("i1\n\n  i2 \n", encoding="utf-8")
    assert answer("index", "remove", index, "--ids", tmp_path / "gone.txt", "--item", "i7")["removed"] == 3
    assert load_index(index).removed.tolist() == [1, 2, 7]


def test_ids_to_remove_are_named_on_the_command_line(index):
    assert answer("index", "remove", index, "--id", "i1", "--id", "i2", "--item", "i7")["removed"] == 3
    assert load_index(index).removed.tolist() == [1, 2, 7]


def test_an_item_comes_back_after_its_removal(index, tmp_path):
    codes = load_index(index).codes[3].tolist()
    answer("index", "remove", index, "--item", "i3")
    said = answer("index", "add", index, items_file(tmp_path, ["i3"]))
    assert (said["items"], said["removed_waiting"]) == (ITEMS, 0)
    shown = answer("index", "inspect", index, "--item", "i3")["shown"]
    assert shown == [{"item_id": "i3", "title": "The zebra comedy", "codes": codes, "removed": False}]


def test_compacting_a_whole_index_writes_nothing(index):
    before = open_artifact(index).manifest["generation"]
    assert answer("index", "compact", index)["dropped"] == 0
    said, beside = genrec("index", "compact", index)
    assert said.startswith("Nothing to do: no item of ")
    assert "dropped\n" in said
    assert not beside
    assert open_artifact(index).manifest["generation"] == before


def test_people_are_told_what_happened_and_what_is_next(index, tmp_path):
    assert "Added 2 items" in genrec("index", "add", index, items_file(tmp_path))[0]
    said = genrec("index", "remove", index, "--item", "i3")[0]
    assert "41 items can be recommended; 1 removed and waiting for: genrec index compact" in said
    assert "  removed" in genrec("index", "inspect", index, "--item", "i3")[0]
    said = genrec("index", "compact", index)[0]
    assert "Dropped 1 item in" in said
    assert "wait" not in said


def test_what_an_index_holds_is_told_in_words(index, tmp_path):
    answer("index", "remove", index, "--id", "i3")
    answer("index", "add", index, items_file(tmp_path))
    said, _ = genrec("index", "inspect", index, "--item", "i3", "--item", "nobody", check=1)
    rows = [" ".join(line.split()) for line in said.splitlines()]
    loaded = load_index(index)
    codes = " ".join(str(code) for code in loaded.codes[3].tolist())
    for expected in (
        "items 42",
        "removed, not yet dropped 1",
        "fields genre, year",
        "codes per item 3, of 4 × 4 × 256",
        f"trie {loaded.trie.nodes} nodes, 0.00 MB",
        "text encoder tfidf",
        "holdout last-two",
        "since the build 2 added, 1 removed, 0 dropped in 2 changes",
        f"i3 The river western {codes} removed",
        "nobody not in the catalog",
    ):
        assert expected in rows
    assert not set("[]{}'") & set("".join(rows[1:]))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["add", "INDEX", "TAKEN"], 1, "not in the index, got 'i3'"),
        (["add", "INDEX", "OTHER"], 1, r"without ['genre', 'year'] and with ['colour'] besides"),
        (["add", "INDEX", "TYPES"], 1, "line 2"),
        (["add", "INDEX", "nowhere.csv"], 1, "nowhere.csv"),
        (["remove", "INDEX", "--item", "nobody"], 1, "does not have: 'nobody'"),
        (["remove", "INDEX", "--ids", "nowhere.txt"], 1, "nowhere.txt"),
        (["remove", "INDEX", "--ids", "i1,i2"], 1, "to name items themselves, use --id ID"),
        (["remove", "INDEX", "--ids", "ALL"], 1, "keep at least one item"),
        (["remove", "INDEX"], 2, "--id ID or --ids FILE, got neither"),
        (["compact", "nowhere"], 1, "has no manifest.json"),
    ],
)
def test_errors_are_messages_and_leave_the_index_alone(index, tmp_path, arguments, code, message):
    files = {
        "TAKEN": items_file(tmp_path, ["n1", "i3"]),
        "OTHER": tmp_path / "other.csv",
        "TYPES": tmp_path / "types.csv",
        "ALL": tmp_path / "all.txt",
        "INDEX": index,
    }
    files["OTHER"].write_text("item_id,title,colour\nn1,The zebra,red\n")
    files["TYPES"].write_text("item_id,title,genre,year\nn1,The zebra,comedy,soon\n")
    files["ALL"].write_text("\n".join(toy_catalog().item_ids))
    before = open_artifact(index).content_hash
    _, said = genrec("index", *(files.get(one, one) for one in arguments), check=code)
    assert message in said
    assert "Traceback" not in said
    assert open_artifact(index, verify=True).content_hash == before


@pytest.mark.parametrize("kind", ["index", "bundle"])
def test_a_change_made_meanwhile_is_not_overwritten(request, tmp_path, kind):
    """Two commands at once: the second to finish must not undo the first."""
    path = request.getfixturevalue(kind)
    opened = open_artifact(path)
    mine = remove_items(index_of(opened), ["i4"])
    answer("index", "remove", path, "--item", "i3")
    with pytest.raises(IndexFormatError, match="another process has saved since; run again"):
        save_changed_index(opened, mine, path)
    assert load_index(path, verify=True).removed.tolist() == [3]
    assert len(list(path.glob("files-*"))) == 1


@pytest.mark.parametrize("verb", ["add", "remove", "compact"])
def test_every_command_has_help_with_an_example(verb):
    assert f"Example: genrec index {verb} " in genrec("index", verb, "--help")[0]


def test_fields_of_json_lines_may_come_in_any_order(index, tmp_path):
    frame = pl.DataFrame({"year": [2030], "genre": ["comedy"], "title": ["The zebra"], "item_id": ["n1"]})
    frame.write_ndjson(tmp_path / "new.jsonl")
    assert answer("index", "add", index, tmp_path / "new.jsonl")["items"] == ITEMS + 1

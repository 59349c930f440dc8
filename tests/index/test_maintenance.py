"""Items in and out of an index, against sets of ids and against a trie built from what is left."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.recommender import Recommender
from index.artifact import open_artifact, writing_artifact
from index.build import IndexSettings, build_index
from index.catalog import Catalog
from index.errors import CatalogError, IdentifierError, IndexFormatError
from index.histories import Histories, leave_one_out
from index.item_index import Changes, ItemIndex, load_index
from index.leakage import leaked
from index.maintenance import add_items, compact, read_new_items, remove_items
from index.semantic_ids import level_tokens
from index.trie import build_trie
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.reference import score_all
from tests.toy import ITEMS, toy_catalog, toy_histories, toy_index

FRAME = toy_catalog().frame
IDS = FRAME["item_id"].to_list()
NEW = {"item_id": ["n1", "n2"], "title": ["The zebra comedy", "The zebra drama"],
       "genre": ["comedy", "drama"], "year": [2030, 2031]}  # fmt: skip


def new_items(**changes: list[object]) -> Catalog:
    return Catalog(pl.DataFrame({**NEW, **changes}))


def found(index: ItemIndex, **request: object) -> dict[str, float]:
    """Id to score of everything a search for all items returns."""
    recommender = Recommender(index, FakeDecoder(sum(index.level_sizes)))
    answer = recommender.recommend(request.pop("history", []), k=len(index.catalog) + 5, **request)
    return {item.item_id: item.score for item in answer.items}


def codes_by_id(index: ItemIndex) -> dict[str, tuple[int, ...]]:
    return dict(zip(index.catalog.item_ids, map(tuple, index.codes.tolist()), strict=True))


def assert_same_trie(index: ItemIndex, codes: np.ndarray) -> None:
    expected = build_trie(level_tokens(codes, index.level_sizes))
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(index.trie.arrays()[name], array)
        assert index.trie.arrays()[name].dtype == array.dtype


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return toy_index()


def test_added_items_are_found_at_once(index):
    more = add_items(index, new_items())
    assert set(found(more)) == {*IDS, "n1", "n2"}
    assert set(found(more, where="year >= 2030")) == {"n1", "n2"}
    assert set(found(more, history=["n1"])) == {*IDS, "n2"}
    assert more.bm25.search(["zebra"], 5)[0].rows.tolist() == [ITEMS, ITEMS + 1]
    assert more.catalog.titles[ITEMS:] == NEW["title"]
    assert len(index.catalog) == ITEMS  # the index given is as it was


def test_adding_leaves_every_old_row_and_its_codes_alone(index):
    more = add_items(index, new_items())
    assert more.catalog.item_ids[:ITEMS] == IDS
    np.testing.assert_array_equal(more.codes[:ITEMS], index.codes)
    assert len(np.unique(more.codes, axis=0)) == ITEMS + 2
    np.testing.assert_array_equal(more.vectors.centre, index.vectors.centre)
    assert more.level_sizes == index.level_sizes


def test_new_items_are_coded_by_the_frozen_codebooks(index):
    more = add_items(index, new_items())
    vectors = index.vectors.vectorise(index.encoder.encode(new_items().texts()))
    np.testing.assert_array_equal(more.codes[ITEMS:, :-1], index.codebooks.encode(vectors))
    np.testing.assert_allclose(more.vectors.vectors()[ITEMS:], vectors, atol=1e-6)


@pytest.mark.parametrize("collisions", ["extra", "nearest"])
def test_a_twin_is_told_apart_from_the_item_it_equals(collisions):
    """Same text, so the same vector: only the last code may differ, and must."""
    recipe = IndexSettings(text_encoder="tfidf", collisions=collisions)  # two codes at each of three levels
    three = build_index(Catalog(FRAME.head(3)), None, recipe)
    twin = add_items(three, Catalog(FRAME.head(1).with_columns(item_id=pl.lit("twin"))))
    assert twin.codes[3, :-1].tolist() == twin.codes[0, :-1].tolist()
    assert twin.codes[3, -1] != twin.codes[0, -1]
    assert "twin" in found(twin)


def test_a_path_without_a_free_code_is_refused():
    recipe = IndexSettings(text_encoder="tfidf", levels=1, codebook_size=2, collisions="nearest")
    full = build_index(Catalog(FRAME.head(2)), None, recipe)
    message = r"room for the new items: .*at most 2 items with the codes .*; build the index again"
    with pytest.raises(IdentifierError, match=message):
        add_items(full, new_items())


def test_fields_may_come_in_any_order(index):
    shuffled = Catalog(pl.DataFrame(NEW).select("year", "title", "item_id", "genre"))
    assert add_items(index, shuffled).catalog.frame.equals(add_items(index, new_items()).catalog.frame)


def test_removed_items_are_gone_at_once_and_no_other_score_moves(index):
    gone = ["i3", "i17", "i39"]
    before, less = found(index), remove_items(index, gone)
    after = found(less)
    assert set(after) == set(IDS) - set(gone)
    assert after == {one: score for one, score in before.items() if one not in gone}  # to the last bit
    left = sum(np.exp(score) for score in after.values())
    assert left == pytest.approx(1 - sum(np.exp(before[one]) for one in gone), abs=1e-5)
    assert set(found(index)) == set(IDS)  # the index given is as it was


def test_nothing_a_request_says_brings_a_removed_item_back(index):
    less = remove_items(index, ["i3"])
    assert "i3" not in found(less, where="year == 1983 or year == 1984")
    assert "i3" not in found(less, exclude_seen=False, history=["i3"])
    assert set(found(less, include=["i3", "i4"])) == {"i4"}
    assert found(less, include=["i3"]) == {}
    assert "i3" not in found(less, exact=True)
    assert "i3" not in found(less, synchronize="token")
    assert "i3" not in found(less, exclude=["i3", "i4"])
    assert 3 not in less.bm25.search(["river western"], ITEMS)[0].rows


def test_removing_changes_no_bm25_score_of_the_others(index):
    less = remove_items(index, ["i3"])
    for query in ("river western", "night", "the"):
        one, two = index.bm25.search([query], ITEMS)[0], less.bm25.search([query], ITEMS)[0]
        keep = one.rows != 3
        np.testing.assert_array_equal(one.rows[keep], two.rows)
        np.testing.assert_array_equal(one.scores[keep], two.scores)


def test_a_history_may_name_removed_items_until_they_are_compacted_away(index):
    less = remove_items(index, ["i3"])
    fake = FakeDecoder(sum(index.level_sizes))
    answer = Recommender(less, fake).recommend(["i3", "i5"], k=3)
    assert answer.unknown_ids == ()
    assert answer.items == Recommender(index, fake).recommend(["i3", "i5"], k=3).items
    assert Recommender(compact(less), fake).recommend(["i3", "i5"]).unknown_ids == ("i3",)


def test_compacting_equals_a_build_from_the_remaining_codes(index):
    less = compact(remove_items(add_items(index, new_items()), ["i0", "i21", "n1"]))
    ids = [one for one in [*IDS, "n2"] if one not in ("i0", "i21")]
    assert less.catalog.item_ids == ids
    codes = codes_by_id(add_items(index, new_items()))
    assert_same_trie(less, np.array([codes[one] for one in ids]))
    fake = FakeDecoder(sum(index.level_sizes))
    scores = score_all(fake, fake.prompt_seed(item_prompt()), less.level_tokens.tolist(), "catalog")
    assert found(less) == pytest.approx(dict(zip(ids, scores.tolist(), strict=True)), abs=1e-5)
    rebuilt = type(less.bm25).build(less.catalog.texts())
    for query in ("river comedy", "zebra", "night western"):
        one, two = less.bm25.search([query], 50)[0], rebuilt.search([query], 50)[0]
        np.testing.assert_array_equal(one.rows, two.rows)
        np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(less.vectors.text[-1:], index.encoder.encode(new_items().texts())[1:])


def test_compacting_what_is_whole_is_nothing(index):
    assert compact(index) is index


def test_a_removed_item_comes_back_as_what_it_was(index):
    """Out of stock and in again: the model has learned these codes, so the item keeps them."""
    less = remove_items(index, ["i3", "i4"])
    again = FRAME.filter(pl.col("item_id") == "i3").with_columns(title=pl.lit("The zebra western"))
    back = add_items(less, Catalog(pl.concat([pl.DataFrame(NEW), again])))
    assert set(found(back)) == {*IDS, "n1", "n2"} - {"i4"}
    assert back.catalog.row_of("i3") == 3
    assert back.catalog.titles[3] == "The zebra western"
    assert back.codes[3].tolist() == index.codes[3].tolist()
    assert back.removed.tolist() == [4]
    np.testing.assert_array_equal(back.vectors.text[3:4], index.encoder.encode(Catalog(again).texts()))
    np.testing.assert_array_equal(back.vectors.cooccurrence[:ITEMS], index.vectors.cooccurrence)
    assert set(back.bm25.search(["zebra"], 5)[0].rows.tolist()) == {3, ITEMS, ITEMS + 1}
    only = add_items(less, Catalog(again))
    assert len(only.catalog) == ITEMS
    assert set(found(only)) == set(IDS) - {"i4"}


IDS_OF_A_STEP = st.sets(st.integers(0, 13), min_size=1, max_size=5)
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "compact"]), IDS_OF_A_STEP), min_size=1, max_size=8
)
START = build_index(
    Catalog(FRAME.head(8)), None, IndexSettings(text_encoder="tfidf", levels=2, codebook_size=3)
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_any_sequence_of_changes_is_that_of_sets(steps):
    """The index beside three sets: what may be recommended, what is only known, and the codes given out."""
    current, live, known = START, set(IDS[:8]), codes_by_id(START)
    for action, numbers in steps:
        named = [IDS[n] for n in sorted(numbers)]
        if action == "add":
            named = [one for one in named if one not in live]
            if not named:
                continue
            current = add_items(current, Catalog(FRAME.filter(pl.col("item_id").is_in(named))))
            live |= set(named)
        elif action == "remove":
            named = [one for one in named if one in live]
            if not named or len(named) == len(live):
                continue
            current = remove_items(current, named)
            live -= set(named)
        else:
            current = compact(current)
            known = {one: codes for one, codes in known.items() if one in live}
        codes = codes_by_id(current)
        assert {one: codes[one] for one in known} == known  # nobody's codes ever change
        known = codes
        assert len(set(codes.values())) == len(codes)
        assert set(found(current)) == live
        assert {current.catalog.item_ids[row] for row in current.removed} == set(codes) - live
        assert_same_trie(current, current.codes)
        assert len(current.vectors) == len(current.bm25) == len(current.trie) == len(codes)
        hits = current.bm25.search(["the river night garden letter"], 20)[0].rows
        assert {current.catalog.item_ids[row] for row in hits} == live
        changes = current.changes
        assert len(live) == 8 + changes.added - changes.removed


def test_a_changed_index_comes_back_as_it_was_saved(index, tmp_path):
    changed = remove_items(add_items(index, new_items()), ["i3", "n2"])
    changed.save(tmp_path / "toy.index")
    loaded = load_index(tmp_path / "toy.index", verify=True)
    assert loaded.removed.tolist() == [3, ITEMS + 1]
    assert loaded.changes == changed.changes == Changes(generation=2, added=2, removed=2, dropped=0)
    assert found(loaded) == found(changed)
    manifest = open_artifact(tmp_path / "toy.index").manifest
    assert (manifest["items"], manifest["removed"]) == (ITEMS + 2, 2)
    # What was loaded is memory-mapped: it can be changed and saved over itself.
    compact(loaded).save(tmp_path / "toy.index")
    again = load_index(tmp_path / "toy.index", verify=True)
    assert again.changes == Changes(generation=3, added=2, removed=2, dropped=2)
    assert found(again) == found(compact(changed))


def test_an_index_saved_before_removal_existed_still_opens(index, tmp_path):
    manifest = {k: v for k, v in index.manifest().items() if k not in ("removed", "changes")}
    with writing_artifact(tmp_path / "old.index", "index", manifest) as files:
        index.save_files(files)
        (files / "removed.npy").unlink()
    assert load_index(tmp_path / "old.index").removed.tolist() == []


def test_a_lexicon_comes_with_the_index_and_follows_its_changes(index, tmp_path):
    index.save(tmp_path / "toy.index")
    loaded = load_index(tmp_path / "toy.index", verify=True)
    title = index.catalog.titles[3]
    assert loaded.lexicon is not None
    assert 3 in loaded.titles().rows_of(title)
    gone = remove_items(loaded, ["i3"])
    assert gone.lexicon is loaded.lexicon  # a mask, nothing is made anew
    assert 3 not in gone.titles().rows_of(title)
    more = add_items(gone, new_items())
    more.save(tmp_path / "more.index")
    assert load_index(tmp_path / "more.index").titles().rows_of("the ZEBRA comedy") == [ITEMS]
    small = compact(more)
    assert small.titles().rows_of("the zebra comedy") == [ITEMS - 1]


def test_an_index_saved_before_lexicons_were_still_opens(index, tmp_path):
    with writing_artifact(tmp_path / "old.index", "index", index.manifest()) as files:
        index.save_files(files)
        shutil.rmtree(files / "lexicon")
    old = load_index(tmp_path / "old.index", verify=True)
    assert old.lexicon is None
    assert old.titles().complete("", 50) == index.titles().complete("", 50)


def test_what_was_trained_on_is_known_as_such_after_any_change():
    """Leakage goes by ids: neither new rows nor renumbered ones make a trained event look fresh."""
    histories, ids = toy_histories(), toy_catalog().item_ids
    everything = toy_index(holdout="none")
    changed = compact(remove_items(add_items(everything, new_items()), ["i0", "i9"]))
    rows = changed.catalog.rows_of([ids[row] for row in histories.items])
    user = np.repeat(np.arange(len(histories)), histories.lengths)[rows >= 0]
    offsets = np.searchsorted(user, np.arange(len(histories) + 1))
    still_known = Histories(histories.user_ids, offsets, rows[rows >= 0], None)
    cases = leave_one_out(still_known, "test")
    assert len(cases) > 100
    assert leaked(cases, still_known.user_ids, changed.catalog.item_ids, changed.trained_events).all()
    assert not leaked(
        cases, still_known.user_ids, changed.catalog.item_ids[::-1], changed.trained_events
    ).all()


@pytest.mark.parametrize("rows", [[1, 1], [5, 2], [ITEMS], [-1]])
def test_rows_that_cannot_be_removed_ones_are_refused(index, tmp_path, rows):
    broken = dataclasses.replace(index, removed=np.array(rows, np.int32))
    broken.save(tmp_path / "toy.index")
    with pytest.raises(IndexFormatError, match="ascending rows of 40 items"):
        load_index(tmp_path / "toy.index")


def without(name: str) -> Catalog:
    return Catalog(new_items().frame.drop(name))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (new_items(item_id=["i3", "n2"]), "not in the index, got 'i3'; leave them out"),
        (Catalog(FRAME), "'i0', 'i1', 'i2' and 37 more"),
        (Catalog(new_items().frame.head(0)), "at least one new item"),
        (without("year"), r"without \['year'\] and with \[\] besides"),
        (new_items(colour=["red", "blue"]), r"without \[\] and with \['colour'\] besides"),
        (new_items(year=["2030", "2031"]), "'year' of type Int64 as in the index, got String"),
    ],
)
def test_items_that_do_not_fit_are_refused(index, items, message):
    with pytest.raises(CatalogError, match=message):
        add_items(index, items)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["i1", "nobody", "no one"], "got 2 that it does not have: 'nobody', 'no one'"),
        (["i3", "i4"], "got 'i3', removed already"),
        ([one for one in IDS if one != "i3"], "all 39 remaining ones"),
        ([], "at least one item id"),
        ("i1", "list of at least one item id to remove, got 'i1'"),
    ],
)
def test_ids_that_cannot_be_removed_are_refused(index, ids, message):
    with pytest.raises(CatalogError, match=message):
        remove_items(remove_items(index, ["i3"]), ids)


def test_an_id_given_twice_is_removed_once(index):
    less = remove_items(index, ["i1", "i1"])
    assert less.removed.tolist() == [1]
    assert less.changes.removed == 1


def index_of_lines(tmp_path: Path, lines: str) -> ItemIndex:
    (tmp_path / "items.csv").write_text(lines)
    start = build_index(
        Catalog(FRAME.select("item_id", "title").head(2)), None, IndexSettings(text_encoder="tfidf")
    )
    return dataclasses.replace(start, catalog=read_new_items(tmp_path / "items.csv", start).catalog)


def test_a_short_file_is_read_with_the_types_of_the_index(tmp_path):
    """One line makes "7" a number, 4 a whole one, and nothing a text; the index knows better."""
    old = index_of_lines(tmp_path, "item_id,title,sku,rating,year\na,Alien,x7,3.5,1979\nb,Brazil,y,4,1985\n")
    (tmp_path / "new.csv").write_text("item_id,title,sku,rating,year\nc,Contact,7,4,\n")
    reading = read_new_items(tmp_path / "new.csv", old)
    assert reading.catalog.frame.schema == old.catalog.frame.schema
    assert reading.catalog[0].fields == {"sku": "7", "rating": 4.0, "year": None}
    (tmp_path / "bad.csv").write_text("item_id,title,sku,rating,year\nc,Contact,7,4,\nd,Dune,8,good,1984\n")
    with pytest.raises(CatalogError, match="line 3"):
        read_new_items(tmp_path / "bad.csv", old)

"""Planned texts: the codes of an allowed item, then words, held to what that item is called where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.bundle_text import BundleText
from genrec.grammars.planned import Planned
from genrec.grammars.text import Text
from genrec.queries import QueryRequest
from genrec.query_writers import ModelQueries
from genrec.speech import Speech
from genrec.text_beams import Beams
from genrec.text_samples import Samples
from genrec.text_search import Written, write
from genrec.vocabulary import TextVocabulary
from index.errors import RequestError
from index.item_filter import Allowed
from index.item_index import ItemIndex
from tests.fake_decoder import FakeDecoder, FakeTextDecoder, item_prompt
from tests.toy import ITEMS, toy_index
from tests.toy_text import toy_text


@cache  # no fixtures: hypothesis would show them whole
def the_index() -> ItemIndex:
    return toy_index()


@cache
def the_text() -> BundleText:
    return toy_text(the_index(), plan=True)


def row_of(index: ItemIndex, vocabulary: TextVocabulary, ids: Sequence[int]) -> int | None:
    """The item that a text plans, if its codes are those of one."""
    plan = [token - vocabulary.words for token in ids[: index.codes.shape[1]]]
    rows = [row for row, own in enumerate(index.level_tokens.tolist()) if own == plan]
    return rows[0] if rows else None


def written(text: BundleText, grammar: Planned, method: Beams | Samples, seed: int = 0) -> list[Written]:
    decoder = FakeTextDecoder(text.vocabulary.size, seed)
    [texts] = write(decoder, text.vocabulary, [item_prompt(1, 2)], grammar, method, max_tokens=14)
    return texts


METHODS = st.one_of(st.integers(1, 8).map(Beams), st.integers(0, 99).map(lambda seed: Samples(6, seed)))


@settings(deadline=None, max_examples=40)
@given(
    mask=st.none() | st.lists(st.booleans(), min_size=ITEMS, max_size=ITEMS).map(np.array),
    gone=st.lists(st.integers(0, ITEMS - 1), max_size=5),
    method=METHODS,
    seed=st.integers(0, 99),
)
def test_every_text_plans_an_allowed_item(mask, gone, method, seed) -> None:
    index, text = the_index(), the_text()
    allowed = Allowed.build(mask, np.array(gone, np.int64))
    may = np.ones(ITEMS, bool) if mask is None else mask.copy()
    may[np.array(gone, np.int64)] = False
    grammar = Planned(Text(), index.trie, allowed)
    if not may.any():
        with pytest.raises(RequestError, match="at least one item that may be named"):
            written(text, grammar, method, seed)
        return
    texts = written(text, grammar, method, seed)
    assert texts
    for one in texts:
        row = row_of(index, text.vocabulary, one.ids.tolist())
        assert row is not None
        assert may[index.trie.rank_of_item[row]]
        words = one.ids[index.codes.shape[1] :]
        assert (words < text.vocabulary.words).all()
        assert one.value == text.vocabulary.decoded(words.tolist()).strip()


def test_a_free_plan_may_name_no_item() -> None:
    index, text = the_index(), the_text()
    texts = written(text, Planned(Text()), Samples(40, 1))
    rows = [row_of(index, text.vocabulary, one.ids.tolist()) for one in texts]
    assert None in rows
    offsets = np.concatenate([[0], np.cumsum(index.level_sizes)]) + text.vocabulary.words
    for one in texts:
        for level in range(len(index.level_sizes)):
            assert offsets[level] <= one.ids[level] < offsets[level + 1]
        assert (one.ids[len(index.level_sizes) :] < text.vocabulary.words).all()


@settings(deadline=None, max_examples=30)
@given(
    constraint=st.sampled_from(["free", "catalog_ngrams"]),
    mask=st.none() | st.lists(st.booleans(), min_size=ITEMS, max_size=ITEMS).map(np.array),
    seen=st.lists(st.integers(0, ITEMS - 1), max_size=5, unique=True),
    found=st.lists(st.integers(0, ITEMS - 1), max_size=5, unique=True),
    seed=st.integers(0, 99),
)
def test_held_queries_are_words_of_an_item_that_may_still_be_found(
    constraint, mask, seen, found, seed
) -> None:
    """What the decoder would rather write changes nothing of it: it has no weights."""
    index, text = the_index(), the_text()
    speech = Speech(index, text.form, text.vocabulary)
    writer = ModelQueries(FakeTextDecoder(text.vocabulary.size, seed), speech)
    request = QueryRequest(
        item_prompt(*seen),
        constraint=constraint,
        queries=4,
        beam=4,
        allowed=mask,
        exclude=np.array(seen, np.int64),
    )
    [queries] = writer.write([request], [np.array(found, np.int64)])
    may = np.ones(ITEMS, bool) if mask is None else mask.copy()
    may[np.array([*seen, *found], np.int64)] = False
    if not may.any():
        assert queries == []
    titles = [f" {title.lower()} " for row, title in enumerate(index.catalog.titles) if may[row]]
    if constraint == "catalog_ngrams":
        assert bool(queries) == bool(may.any())
        for query in queries:
            assert any(f" {query.text.lower()} " in title for title in titles)


def test_all_runs_of_a_planned_title_are_found_by_a_wide_beam() -> None:
    """Item 5 is "The night <genre>": its runs with an indexed word, and nothing of any other item."""
    index, text = the_index(), the_text()
    speech = Speech(index, text.form, text.vocabulary)
    writer = ModelQueries(FakeDecoder(text.vocabulary.size), speech)
    mask = np.arange(ITEMS) == 5
    request = QueryRequest(item_prompt(1), constraint="catalog_ngrams", queries=50, beam=50, allowed=mask)
    [queries] = writer.write([request], [np.zeros(0, np.int64)])
    words = index.catalog.titles[5].split()
    runs = {" ".join(words[a:b]) for a in range(len(words)) for b in range(a + 1, len(words) + 1)}
    # Queries of the same terms count once: "The night" says no more than "night".
    assert {query.text for query in queries} <= runs
    assert len(queries) == 3


def test_a_vocabulary_without_plans_is_refused() -> None:
    index = the_index()
    plain = toy_text(index)
    with pytest.raises(RequestError, match="whose answers begin with codes"):
        Planned(Text(), index.trie).compile(plain.vocabulary)


def test_titles_stand_behind_the_codes_of_their_items() -> None:
    index, text = the_index(), the_text()
    levels = index.codes.shape[1]
    for row in range(ITEMS):
        path = text.titles.path(int(text.titles.rank_of_item[row]))
        assert [token - text.vocabulary.words for token in path[:levels]] == index.level_tokens[row].tolist()
        assert path[levels:] == text.vocabulary.answers([index.catalog.titles[row]])[0]
        assert text.vocabulary.text(path) == index.catalog.titles[row]
        assert text.vocabulary.decoded(path[:levels]) == ""

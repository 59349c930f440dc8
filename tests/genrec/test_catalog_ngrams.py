"""Queries held to the catalog's n-grams: whatever the model says, each finds an item that may be found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.grammars.catalog_ngrams import CatalogNgrams, ItemNgrams, catalog_ngrams
from genrec.text_beams import Beams
from genrec.text_samples import Samples
from genrec.text_search import write
from genrec.vocabulary import TextVocabulary
from index.build import IndexSettings, build_index
from index.catalog import Catalog
from index.errors import RequestError
from index.item_filter import Allowed
from index.item_index import ItemIndex
from index.maintenance import remove_items
from index.types import BoolArray
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.fake_vocabulary import FakeVocabulary
from tests.toy import GENRES, WORDS, toy_index

TITLES = [
    "Night Cream, 2 oz",
    "The Nightly",
    "It",
    "Crème de la Crème",
    "",
    "L'Oréal Anti-Aging Night Cream for the Night",
    "The The",
    "東京 物語",
    "-- !",
    "Cream " * 12,
]


def index_of(titles: Sequence[str], about: Sequence[str] = ()) -> ItemIndex:
    rows = range(len(titles))
    columns = {"item_id": [f"i{row}" for row in rows], "title": list(titles)}
    if about:
        columns["about"] = list(about)
    settings = IndexSettings(text_encoder="tfidf", levels=1, codebook_size=2)
    return build_index(Catalog(pl.DataFrame(columns)), None, settings)


def has_hit(index: ItemIndex, query: str, mask: BoolArray | None, seen: Sequence[int]) -> bool:
    [hits] = index.bm25.search([query], 1, [np.array(seen, np.int64)], [mask])
    return len(hits.rows) > 0


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return index_of(TITLES, [f"about {row}" if row % 3 else "" for row in range(len(TITLES))])


@pytest.fixture(scope="module")
def vocabularies() -> list[TextVocabulary]:
    """Almost letters, and almost whole words."""
    return [TextVocabulary.train(TITLES, size) for size in (270, 340)]


@settings(deadline=None, max_examples=150)
@given(
    size=st.integers(0, 1),
    seed=st.integers(0, 10_000),
    mask=st.none() | st.lists(st.booleans(), min_size=10, max_size=10).map(np.array),
    seen=st.lists(st.integers(0, 9), max_size=4),
    method=st.one_of(
        st.integers(1, 6).map(Beams),
        st.integers(1, 2).map(lambda groups: Beams(4, groups=groups, length_penalty=1.0)),
        st.integers(0, 99).map(lambda number: Samples(6, number, temperature=3.0)),
    ),
    normalize=st.sampled_from(["catalog", "vocabulary"]),
)
def test_no_query_is_without_a_hit(index, vocabularies, size, seed, mask, seen, method, normalize) -> None:
    vocabulary = vocabularies[size]
    ngrams = catalog_ngrams(index, vocabulary)
    grammar = CatalogNgrams(ngrams, ngrams.allowed(mask, np.array(seen, np.int64)))
    reachable = [
        row
        for row in range(len(TITLES))
        if row not in (4, 8) and row not in seen and (mask is None or mask[row])
    ] + ([row for row in (4, 8) if row % 3 and row not in seen and (mask is None or mask[row])])
    if not reachable:
        with pytest.raises(RequestError, match="no query to write"):
            grammar.compile(vocabulary)
        return
    decoder = FakeDecoder(vocabulary.size, seed)
    [texts] = write(
        decoder,
        vocabulary,
        [item_prompt(1, 2)],
        grammar,
        method,
        max_tokens=ngrams.trie.longest_path,
        normalize=normalize,
    )
    assert texts
    for text in texts:
        assert text.ids[-1] == vocabulary.end
        assert vocabulary.text(text.ids) == text.value
        assert has_hit(index, text.value, mask, seen), text.value


@pytest.mark.parametrize("size", [0, 1])
def test_the_runs_of_one_item_are_those_of_the_catalog_with_it_alone_allowed(
    index, vocabularies, size
) -> None:
    vocabulary = vocabularies[size]
    ngrams = catalog_ngrams(index, vocabulary)
    for row in range(len(TITLES)):
        mask = np.arange(len(TITLES)) == row
        if ngrams.begin[row] == ngrams.begin[row + 1]:
            with pytest.raises(RequestError, match="no query to write"):
                ItemNgrams(ngrams, row).compile(vocabulary)
            continue
        found = []
        for grammar in (ItemNgrams(ngrams, row), CatalogNgrams(ngrams, ngrams.allowed(mask))):
            [texts] = write(
                FakeDecoder(vocabulary.size),
                vocabulary,
                [item_prompt(1)],
                grammar,
                Beams(200),
                max_tokens=ngrams.trie.longest_path,
                normalize="vocabulary",
            )
            found.append({(one.value, round(one.score, 3)) for one in texts})
        assert found[0] == found[1], TITLES[row]


def test_all_that_can_be_asked_is_found_by_a_wide_beam() -> None:
    index = index_of(["Night Train", "The Night"])
    vocabulary = TextVocabulary.train(index.catalog.titles, 300)
    ngrams = catalog_ngrams(index, vocabulary)
    [texts] = write(
        FakeDecoder(vocabulary.size),
        vocabulary,
        [item_prompt(1)],
        CatalogNgrams(ngrams, Allowed()),
        Beams(50),
        max_tokens=20,
    )
    assert sorted(text.value for text in texts) == ["Night", "Night Train", "The Night", "Train"]
    assert sum(np.exp(text.score) for text in texts) == pytest.approx(1)  # catalog scores: nothing is lost


def test_a_removed_item_gives_no_query() -> None:
    index = remove_items(index_of(["Night Train", "Red Lamp"]), ["i1"])
    vocabulary = TextVocabulary.train(index.catalog.titles, 300)
    ngrams = catalog_ngrams(index, vocabulary)
    assert set(ngrams.row.tolist()) == {0}


def test_words_that_do_not_come_back_are_left_out() -> None:
    """A vocabulary that cannot write a word (here: a letter it lacks becomes another) parts the text there."""

    class Lossy(FakeVocabulary):
        def answers(self, texts: Sequence[str]) -> list[list[int]]:
            return super().answers([f" {text}".lower().replace("z", "s") for text in texts])

    vocabulary = Lossy(pieces=[" red", " lamp", " sofa"])
    ngrams = catalog_ngrams(index_of(["Red Lamp Zofa Lamp"]), vocabulary)
    [texts] = write(
        FakeDecoder(vocabulary.size),
        vocabulary,
        [item_prompt(1)],
        CatalogNgrams(ngrams, Allowed()),
        Beams(50),
        max_tokens=20,
    )
    assert sorted(text.value for text in texts) == ["lamp", "red", "red lamp"]


def test_ngrams_of_another_vocabulary_are_refused(vocabularies) -> None:
    ngrams = catalog_ngrams(toy_index(), TextVocabulary.train(TITLES, 400))
    with pytest.raises(RequestError, match="in the tokens of the model"):
        CatalogNgrams(ngrams, Allowed()).compile(vocabularies[0])


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
def test_two_thousand_sampled_queries_of_random_users(normalize) -> None:
    """Forty items, users with random histories and filters, a model without a clue."""
    index = toy_index()
    vocabulary = TextVocabulary.train(index.catalog.titles, 300)
    ngrams = catalog_ngrams(index, vocabulary)
    rng = np.random.default_rng(0)
    items = len(index.catalog)
    masks = [rng.random(items) < share for share in rng.random(100)]
    seen = [rng.choice(items, 5, replace=False) for _ in masks]
    users = [user for user in range(100) if (masks[user] & ~np.isin(np.arange(items), seen[user])).any()]
    written = write(
        FakeDecoder(vocabulary.size, spread=4.0),
        vocabulary,
        [item_prompt(*seen[user].tolist()) for user in users],
        [CatalogNgrams(ngrams, ngrams.allowed(masks[user], seen[user])) for user in users],
        Samples(20, seed=1),
        max_tokens=ngrams.trie.longest_path,
        normalize=normalize,
    )
    queries = [(user, text.value) for user, texts in zip(users, written, strict=True) for text in texts]
    assert len(queries) > 1500
    hits = index.bm25.search(
        [query for _, query in queries],
        1,
        [seen[user] for user, _ in queries],
        [masks[user] for user, _ in queries],
    )
    assert all(len(one.rows) for one in hits)
    assert {query.split()[-1] for _, query in queries} <= {*WORDS, *GENRES}

"""Texts whose mentions are items, from models that know nothing of items."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoders.base import Prompt, Tokens
from genrec.grammars import Marked, Markup, Schema, Text, Titles
from genrec.text_search import Beams, Samples, Written, write
from genrec.vocabulary import TextVocabulary
from index.errors import RequestError
from index.item_filter import Allowed
from index.trie import TokenTrie, build_trie
from index.types import Float32Array
from tests.fake_decoder import FakeTextDecoder
from tests.fake_vocabulary import FakeVocabulary

# Pieces that hold the opening mark, alone and among other characters, and pieces of the marks themselves.
WORDS = FakeVocabulary("abcde []<>i/", pieces=[" [", "a[", "[b", "x[y", "]", "de", " a", "]["])
TITLES = ["abba", "abb", "cab", "", "dad e", "abba", "bed] a", "e"]
"""Rows 0 and 5 share a title, row 3 has none, and row 6 holds the closing mark."""
NAMED = [0, 1, 2, 4, 5, 6, 7]
TRIE = build_trie(WORDS.answers(TITLES))
PROMPT: Prompt = (Tokens(np.array([1])),)


class RandomModel(FakeTextDecoder):
    """Logits by a few tables, each prefix at one of them: quick enough for thousands of texts."""

    def __init__(self, vocabulary: int, seed: int = 0) -> None:
        super().__init__(vocabulary, seed)
        table = np.random.default_rng(seed).standard_normal((997, vocabulary)) * self.spread
        self._table = table.astype(np.float32)

    def logits_after(self, prompt_seed: int, path: Collection[int]) -> Float32Array:
        return self._table[hash((prompt_seed, *path)) % len(self._table)]


def samples(
    grammar: Markup, count: int, most: int, seed: int = 0, vocabulary: FakeVocabulary = WORDS
) -> list[Written]:
    (found,) = write(
        RandomModel(vocabulary.size, seed),
        vocabulary,
        [PROMPT],
        grammar,
        Samples(count, seed),
        max_tokens=most,
    )
    return found


def check(
    said: Marked, titles: list[str], allowed: Collection[int], opening: str = " [", closing: str = "]"
) -> None:
    """Everything in brackets is a title of the catalog, and the rows are those of the title."""
    bare = opening.strip()
    assert said.text.count(bare) == len(said.mentions)
    place = 0
    for mention in said.mentions:
        assert said.text.index(bare, place) == mention.start - len(bare)
        assert said.text[mention.start : mention.end] == mention.title
        assert said.text[mention.end :].startswith(closing)
        assert mention.rows == tuple(row for row in sorted(allowed) if titles[row] == mention.title)
        assert mention.rows
        place = mention.end


WISHES: list[tuple[list[int], list[int], bool, int]] = [
    (NAMED, [], False, 16),
    (NAMED, [6, 2], False, 30),
    ([1, 4, 7], [], True, 24),
    ([0, 2, 5], [0, 2, 5], True, 18),
]


def test_ten_thousand_texts_of_random_models_name_nothing_off_the_catalog() -> None:
    """Some with filters, some with items that must be named, some that name an item once at most."""
    mentions = 0
    for seed, (rows, must, once, most) in enumerate(
        [
            (NAMED, [], False, 16),
            (NAMED, [6, 2], False, 30),
            ([1, 4, 7], [], True, 24),
            ([0, 2, 5], [0, 2, 5], True, 18),
        ]
    ):
        grammar = Markup(TRIE, Titles.of(TRIE, rows).allowed, must_cite=must, cite_once=once)
        for one in samples(grammar, 2500, most, seed):
            check(one.value, TITLES, rows)
            named = [row for mention in one.value.mentions for row in mention.rows]
            assert set(must) <= set(named)
            assert not once or len(named) == len(set(named))
            assert len(one.ids) <= most
            mentions += len(one.value.mentions)
    assert mentions > 10_000


def test_with_a_tokenizer_of_bytes_whose_pieces_hold_marks_too() -> None:
    titles = ["Amélie", "Dune", "Dune: Part Two", "[REC]", "[REC] 2", "Solaris (1972)"]
    vocabulary = TextVocabulary.train([*titles, "see [a] and [b]", "x[y [["] * 3, 330)
    trie = build_trie(vocabulary.answers(titles))
    assert sum("[" in vocabulary.decoded([token]) for token in range(vocabulary.size)) > 2
    model = RandomModel(vocabulary.size)
    grammar = Markup(trie, must_cite=[3, 0])
    (found,) = write(model, vocabulary, [PROMPT], grammar, Samples(200), max_tokens=60)
    for one in found:
        text, place = one.value.text, 0
        for mention in one.value.mentions:
            assert text.index("[", place) == mention.start - 1
            assert titles[mention.rows[0]] == mention.title == text[mention.start : mention.end]
            assert text[mention.end] == "]"
            place = mention.end + 1
        assert "[" not in text[place:]
        assert {0, 3} <= {row for mention in one.value.mentions for row in mention.rows}


def random_catalog(rng: np.random.Generator) -> tuple[list[str], TokenTrie]:
    titles = ["".join(rng.choice(list("abcde ]"), rng.integers(1, 9))).strip() or "a" for _ in range(12)]
    titles = [" ".join(title.split()) for title in titles]
    return titles, build_trie(WORDS.answers(titles))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_the_tightest_budget_is_enough_and_less_is_refused(seed: int, data: st.DataObject) -> None:
    titles, trie = random_catalog(np.random.default_rng(seed))
    rows = data.draw(st.sets(st.integers(0, 11), min_size=1))
    must = data.draw(st.sets(st.sampled_from(sorted(rows)), max_size=3))
    opening, closing = data.draw(st.sampled_from([(" [", "]"), ("<i>", "</i>"), ("[", " ]")]))
    once = data.draw(st.booleans())
    grammar = Markup(trie, Titles.of(trie, rows).allowed, must, once, opening, closing)
    marks = len(WORDS.literal(opening)) + len(WORDS.literal(closing))
    least = sum(marks + len(WORDS.literal(title)) for title in {titles[row] for row in must})
    for most in (max(1, least), least + 2, least + 9):
        for one in samples(grammar, 4, most, seed):
            check(one.value, titles, rows, opening, closing)
            assert set(must) <= {row for mention in one.value.mentions for row in mention.rows}
            assert len(one.ids) <= most
            names = [mention.title for mention in one.value.mentions]
            assert not once or len(names) == len(set(names))
    if least > 1:
        with pytest.raises(RequestError, match=f"max_tokens of at least {least},"):
            samples(grammar, 1, least - 1)


def test_within_a_schema_the_text_behind_is_kept_out_of_it() -> None:
    form = Schema("a:{story}/{mood}", story=Markup(TRIE, must_cite=[2]), mood=Text())
    vocabulary = FakeVocabulary("abcde []/:", pieces=[" [", "/a", "b/"])
    trie = build_trie(vocabulary.answers(["abba", "abb", "cab"]))
    form = Schema("a:{story}/{mood}", story=Markup(trie, must_cite=[2]), mood=Text())
    for most in (10, 14, 30):
        (found,) = write(
            RandomModel(vocabulary.size), vocabulary, [PROMPT], form, Samples(50), max_tokens=most
        )
        for one in found:
            check(one.value["story"], ["abba", "abb", "cab"], [0, 1, 2])
            assert "/" not in one.value["story"].text
            assert 2 in {row for mention in one.value["story"].mentions for row in mention.rows}


def test_beams_end_with_all_that_must_be_named() -> None:
    must = [1, 7]
    grammar = Markup(TRIE, must_cite=must, cite_once=True)
    (found,) = write(RandomModel(WORDS.size), WORDS, [PROMPT], grammar, Beams(4), max_tokens=14)
    assert len(found) == 4
    for one in found:
        check(one.value, TITLES, NAMED)
        assert {1, 7} <= {row for mention in one.value.mentions for row in mention.rows}


def test_free_text_is_scored_over_the_vocabulary_and_a_mention_over_the_titles() -> None:
    """By definition, token by token: the closing mark stands for the terminator that ends a title in the trie."""
    decoder = FakeTextDecoder(WORDS.size)
    titles = build_trie(WORDS.answers(["abba", "abb", "cab"]))
    (found,) = write(decoder, WORDS, [PROMPT], Markup(titles, must_cite=[1]), Beams(3), max_tokens=8)
    seed = decoder.prompt_seed(PROMPT)

    def worth(ids: list[int], place: int, among: list[int] | None = None) -> float:
        logits = decoder.logits_after(seed, tuple(ids[:place])).astype(np.float64)
        return float(logits[ids[place]] - np.log(np.exp(logits if among is None else logits[among]).sum()))

    for one in found:
        ids = one.ids.tolist()
        inside = ids.index(WORDS.literal(" [")[0]) + 1
        a, b, c, close = (WORDS.literal(text)[0] for text in ("a", "b", "c", "]"))
        name = ids[inside:][: ids[inside:].index(close) + 1]
        expected = [worth(ids, place) for place in range(len(ids))]
        expected[inside : inside + len(name)] = [0.0] * len(name)
        expected[inside] = worth(ids, inside, [a, c])
        if name[0] == a:
            expected[inside + 3] = worth(ids, inside + 3, [a, close])
        np.testing.assert_allclose(one.log_probabilities, expected, atol=1e-5)
        assert name in ([a, b, b, close], [a, b, b, a, close], [c, a, b, close])


class TestRefuses:
    @pytest.mark.parametrize("mark", ["", "  ", "é", "?["])
    def test_marks(self, mark: str) -> None:
        with pytest.raises(RequestError, match="expected a mark that begins with an ASCII character"):
            Markup(TRIE, opening=mark).compile(Deaf("abcde []<>i"))

    @pytest.mark.parametrize("row", [3, 4])
    def test_items_to_cite_that_may_not_be_named(self, row: int) -> None:
        with pytest.raises(RequestError, match=f"got row {row}, which the filter forbids"):
            Markup(TRIE, Titles.of(TRIE, [0, 1, 3]).allowed, must_cite=[row]).compile(WORDS)

    def test_catalogs_of_nothing(self) -> None:
        with pytest.raises(RequestError, match="widen the filter"):
            Markup(TRIE, Allowed.build(np.zeros(len(TRIE), bool))).compile(WORDS)


class Deaf(FakeVocabulary):
    """Leaves out what it cannot write, as some tokenizers do."""

    def literal(self, text: str) -> list[int]:
        return super().literal("".join(one for one in text if one in self.texts))

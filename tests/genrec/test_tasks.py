"""What a task's prompt shows and its answer says, read back."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from genrec.decoders.base import Items, Tokens
from genrec.query_words import QueryWords
from genrec.speech import Speech, SpeechForm
from genrec.tasks import TASKS, QueryDefaults, TaskDefaults, defaults_of, task, tasks_in_order
from genrec.vocabulary import TextVocabulary
from index.catalog import Catalog
from index.errors import IdentifierError, IndexFormatError, RequestError
from tests.toy import toy_catalog, toy_index

ROWS = np.array([0, 1, 2])  # The river comedy, drama, horror


@pytest.fixture(scope="module")
def speeches() -> dict[str, Speech]:
    index = toy_index()
    vocabulary = TextVocabulary.train(index.catalog.titles, 300)
    return {kind: Speech(index, SpeechForm(kind), vocabulary) for kind in ("compact", "prose")}


def shown(speech: Speech, prompt) -> list[object]:
    """Segments as rows, and as the text of their tokens."""
    decode = speech.vocabulary.tokenizer.decode
    return [
        part.rows.tolist()
        if isinstance(part, Items)
        else decode(part.ids.tolist(), skip_special_tokens=False)
        for part in prompt
    ]


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("semantic_id", ROWS, [[0, 1, 2]]),
        ("title", ROWS, [[0, 1, 2], "<title>"]),
        ("query", ROWS, [[0, 1, 2], "<query>"]),
        ("title", ROWS[:0], [[], "<title>"]),
        ("title_of_code", ROWS[:1], [[0], "<name>"]),
        ("code_of_title", ROWS[:1], [" The river comedy<code>"]),
    ],
)
def test_compact_prompts(speeches, name: str, rows, expected: list[object]):
    assert shown(speeches["compact"], task(name).prompt(speeches["compact"], rows)) == expected


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("semantic_id", ROWS, [[0, 1, 2]]),
        (
            "title",
            ROWS[:2],
            [
                "Items a user chose, oldest first:\n- The river comedy\n- The river drama\n"
                "The title of the next item:"
            ],
        ),
        ("query", ROWS[:0], ["A search query for the next item:"]),
        ("title_of_code", ROWS[:1], [[0], "\nThe title of this item:"]),
        ("code_of_title", ROWS[:1], ["The item:\n- The river comedy\nIts code:"]),
    ],
)
def test_prompts_in_prose(speeches, name: str, rows, expected: list[object]):
    assert shown(speeches["prose"], task(name).prompt(speeches["prose"], rows)) == expected


def test_answers_are_the_paths_of_the_tries(speeches):
    speech = speeches["compact"]
    trie = speech.index.trie
    for row, path in zip(ROWS, TASKS["semantic_id"].answers(speech, ROWS), strict=True):
        assert path == trie.path(int(trie.rank_of_item[row]))
    titles = [speech.titles[row] for row in ROWS]
    for name in ("title", "title_of_code"):
        assert TASKS[name].answers(speech, ROWS) == speech.vocabulary.answers(titles)
    assert TASKS["code_of_title"].answers(speech, ROWS) == TASKS["semantic_id"].answers(speech, ROWS)


def test_a_query_is_the_rarest_neighbours_of_a_title(speeches):
    titles = ["The pure oil", "The pure oil of roses by Weleda in a small blue bottle", "The oil in a bottle"]
    assert (
        QueryWords(titles).of(titles[1]) == "of roses by Weleda in"
    )  # each word between the two is in none else
    assert QueryWords(titles).of(titles[0]) == titles[0]
    assert QueryWords(titles).of("") == ""
    (ids,) = TASKS["query"].answers(speeches["compact"], ROWS[:1])
    assert speeches["compact"].vocabulary.text(ids) == "The river comedy"


def test_prose_reads_the_newest_items_that_fit(speeches):
    whole = speeches["prose"]
    few = Speech(whole.index, SpeechForm("prose", max_items=2), whole.vocabulary)
    text = shown(few, TASKS["title"].prompt(few, np.arange(10)))[0]
    assert text.count("- The") == 2
    assert few.titles[9] in text
    longest = len(TASKS["title"].prompt(whole, np.arange(4))[0].ids)
    for most in range(1, longest + 2):
        tight = Speech(whole.index, SpeechForm("prose", max_tokens=most), whole.vocabulary)
        (tokens,) = TASKS["title"].prompt(tight, np.arange(10))
        assert isinstance(tokens, Tokens)
        text = shown(tight, (tokens,))[0]
        assert len(tokens.ids) <= most or "- " not in text  # the closing sentence is never cut
        assert "- " not in text or tight.titles[9] in text
    assert len(tokens.ids) > longest - 10  # not more is left out than must be


def test_untitled_items_say_nothing_in_prose():
    frame = toy_catalog().frame.with_columns(
        title=pl.when(pl.col("item_id") == "i1").then(pl.lit("")).otherwise(pl.col("title"))
    )
    index = toy_index()
    index = type(index)(**{**index.__dict__, "catalog": Catalog(frame)})
    speech = Speech(index, SpeechForm("prose"), TextVocabulary.train(index.catalog.titles, 300))
    assert shown(speech, TASKS["title"].prompt(speech, ROWS))[0].count("\n- ") == 2
    assert np.flatnonzero(~speech.is_titled).tolist() == [1]
    assert TASKS["title"].answers(speech, np.array([1])) == [[speech.vocabulary.end]]


def test_a_model_of_codes_writes_no_text(speeches):
    mute = Speech(speeches["compact"].index, SpeechForm("compact"))
    assert shown(speeches["compact"], TASKS["semantic_id"].prompt(mute, ROWS)) == [[0, 1, 2]]
    with pytest.raises(IdentifierError, match="speaks codes alone"):
        TASKS["title"].answers(mute, ROWS)


def test_modes_are_the_tasks_that_find_items():
    assert [name for name, spec in TASKS.items() if spec.is_mode] == ["semantic_id", "title", "query"]
    assert tasks_in_order(["query", "semantic_id", "title"]) == ["semantic_id", "title", "query"]
    with pytest.raises(RequestError, match="'song'"):
        task("song")


class TestDefaults:
    def test_they_come_back_from_json(self):
        for name, defaults in (
            ("title", TaskDefaults("vocabulary", 7)),
            ("query", QueryDefaults(queries=3, constraint="catalog_ngrams", k1=0.9, b=0.4, context=1)),
        ):
            assert defaults_of(name, defaults.to_dict()) == defaults

    @pytest.mark.parametrize(
        ("name", "values", "message"),
        [
            ("song", {}, "'song'"),
            ("title", {"queries": 3}, "expected task defaults"),
            ("title", {"beam": 0}, "known task defaults"),
            ("query", {"queries": 0}, "known task defaults"),
            ("query", {"constraint": "rhyme"}, "known task defaults"),
            ("query", {"k1": -0.1}, "known task defaults"),
            ("query", {"k1": float("inf")}, "known task defaults"),
            ("query", {"k1": float("nan")}, "known task defaults"),
            ("query", {"b": 1.1}, "known task defaults"),
            ("query", {"b": float("nan")}, "known task defaults"),
        ],
    )
    def test_others_are_refused(self, name: str, values: dict[str, object], message: str):
        with pytest.raises(IndexFormatError, match=message):
            defaults_of(name, values)


@pytest.mark.parametrize(
    "values", [{}, {"kind": "verse"}, {"kind": "prose", "max_items": 0}, {"kind": "prose", "rhyme": 1}]
)
def test_an_unknown_form_is_refused(values: dict[str, object]):
    with pytest.raises(IndexFormatError, match="expected a speech form"):
        SpeechForm.from_dict(values)

"""``genrec recommend --max-per``, on a recommender without a trained model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from unittest import mock

import pytest
from typer.testing import CliRunner

from genrec.cli.main import app
from genrec.cli.output import print_table
from genrec.cli.recommend import show_recommendation
from genrec.recommender import Recommender
from genrec.search import Diversity
from genrec.tasks import TaskDefaults
from tests.fake_decoder import FakeDecoder
from tests.toy import toy_index
from tests.toy_text import toy_recommender


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    index = toy_index()
    return Recommender(index, FakeDecoder(sum(index.level_sizes)), TaskDefaults(beam=5))


def run(recommender: Recommender, *arguments: str):
    with mock.patch.object(Recommender, "load", return_value=recommender):
        return CliRunner().invoke(app, ["recommend", "toy", "--history", "i3", *arguments])


def test_at_most_so_many_per_field(recommender):
    done = run(recommender, "-k", "6", "--max-per", "genre=2", "--max-per", "year=1", "--json")
    assert done.exit_code == 0, done.output
    genre = dict(
        zip(recommender.index.catalog.item_ids, recommender.index.catalog.frame["genre"], strict=True)
    )
    counts = Counter(genre[item["item_id"]] for item in json.loads(done.stdout)["items"])
    assert sum(counts.values()) == 6
    assert max(counts.values()) <= 2


@pytest.mark.parametrize("wrong", ["genre", "genre=", "=2", "genre=two", "genre=-1", "genre=0"])
def test_what_is_no_cap_is_wrong_use(recommender, wrong):
    done = run(recommender, "--max-per", wrong)
    assert done.exit_code == 2
    said = " ".join(done.output.replace("│", " ").split())
    assert (
        f"Invalid value for '--max-per': expected FIELD=M with M of at least 1, such as genre=2, got '{wrong}'"
        in said
    )


def test_groups_kept_apart(recommender):
    done = run(recommender, "-k", "6", "--diversity", "5", "--groups", "3", "--json")
    assert done.exit_code == 0, done.output
    expected = recommender.recommend(["i3"], k=6, diversity=Diversity(3, 5.0))
    assert [item["item_id"] for item in json.loads(done.output)["items"]] == [
        item.item_id for item in expected.items
    ]
    refused = run(recommender, "--diversity", "1", "--exact")
    assert refused.exit_code == 1
    assert "leave one out" in str(refused.exception)


def test_a_cap_on_no_field_names_the_fields(recommender):
    done = run(recommender, "--max-per", "colour=1")
    assert str(done.exception) == (
        "expected a field of the catalog (item_id, title, genre, year) in max_per, got 'colour'"
    )


def test_a_long_proof_shows_that_it_lives(recommender):
    answers = [run(recommender, "--exact", "--json"), run(recommender, "--json", "-k", "10", "--exact")]
    assert [done.stderr for done in answers] == ["", ""]
    with mock.patch("genrec.cli.recommend.SILENT_SECONDS", 0.0):
        answers.append(run(recommender, "--exact", "--json"))
        assert answers[-1].stderr.endswith("prefixes to the proof\n")
        assert run(recommender, "--exact", "--json", "--quiet").stderr == ""
    expected = recommender.recommend(["i3"], exact=True)
    for done in answers:
        assert [item["item_id"] for item in json.loads(done.stdout)["items"]] == [
            item.item_id for item in expected.items
        ]
        assert json.loads(done.stdout)["certified"] == 10


def test_one_is_said_in_the_singular(recommender, capsys):
    answer = recommender.recommend(["i3"], k=1)
    show_recommendation(recommender, ["i3"], replace(answer, expansions=1, model_calls=1))
    assert "1 prefix expanded, 1 model call\n" in capsys.readouterr().out
    show_recommendation(recommender, ["i3"], replace(answer, expansions=1234, model_calls=2))
    assert "1,234 prefixes expanded, 2 model calls\n" in capsys.readouterr().out


def test_brackets_in_titles_are_no_markup(capsys):
    """A title such as "[/rec]" once was taken for a closing tag, and the command ended in a traceback."""
    print_table("Films", ("id", "title"), [("[1]", "[rec] and [/rec]")], numbers_from=2)
    assert "[1]  [rec] and [/rec]" in capsys.readouterr().out


@pytest.fixture(scope="module")
def text() -> Recommender:
    return toy_recommender(toy_index())


def test_titles(text):
    done = run(text, "--mode", "title", "-k", "3", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["mode"] == "title"
    expected = text.recommend(["i3"], k=3, mode="title")
    assert [item["generated"] for item in said["items"]] == [item.title for item in expected.items]
    proven = run(text, "--mode", "title", "-k", "3", "--exact")
    assert "3 of 3 certified" in proven.output


def test_queries_are_shown_with_what_they_found(text):
    done = run(text, "--mode", "query", "-k", "2", "--queries", "1")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["1", "western", "2", "-1.000"] in lines
    assert {"i7", "i11"} <= {word for line in lines for word in line}  # the first two other westerns
    said = json.loads(run(text, "--mode", "query", "--json").stdout)
    assert [query["text"] for query in said["queries"]] == ["western"]
    assert said["items"][0]["matched_terms"][0]["term"] == "western"


def test_what_a_mode_cannot_do_is_said(text):
    done = run(text, "--mode", "query", "--exact")
    assert done.exit_code == 1
    assert "expected exact search with a mode that searches the items" in str(done.exception)

"""``genrec recipe`` and ``genrec chat``, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genrec.cli import recipe as recipe_command
from genrec.cli.main import app
from genrec.recipes.check import Check
from genrec.recipes.registry import RECIPES
from genrec.text_generator import GeneratedText
from tests.toy import toy_index
from tests.toy_text import toy_recommender

RUN = CliRunner()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = toy_recommender(toy_index())
    monkeypatch.setattr("genrec.cli.recipe.Recommender.load", lambda path: recommender)


def test_list_names_every_recipe_and_its_paper() -> None:
    listed = json.loads(RUN.invoke(app, ["recipe", "list", "--json"]).stdout)["recipes"]
    assert [one["name"] for one in listed] == list(RECIPES)
    assert "2404.00702" in RUN.invoke(app, ["recipe", "list"]).stdout


def test_show_prints_the_page_of_a_recipe() -> None:
    assert "Different:" in RUN.invoke(app, ["recipe", "show", "nir"]).stdout


def test_verify_prints_figures_and_thresholds() -> None:
    done = RUN.invoke(app, ["recipe", "verify", "tallrec", "zero-shot-crs", "--json", "-q"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["passed"], found["recipes"]) == (2, 2)
    assert {one["recipe"] for one in found["checks"]} == {"tallrec", "zero-shot-crs"}
    assert all(one["passed"] for one in found["checks"])


def test_a_failed_check_fails_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        name = "broken"

        @staticmethod
        def check() -> list[Check]:
            return [Check("always less", 0.5, 0.7)]

    monkeypatch.setattr(recipe_command, "recipe", lambda name: Broken)
    done = RUN.invoke(app, ["recipe", "verify", "broken"])
    assert done.exit_code == 1
    assert "NO" in done.stdout
    assert "0 of 1 recipes pass" in done.stdout


def test_verify_wants_names_or_all() -> None:
    done = RUN.invoke(app, ["recipe", "verify"])
    assert "expected names of recipes, or --all" in str(done.exception)


def test_run_answers_with_items(toy: None, tmp_path: Path) -> None:
    arguments = ["recipe", "run", "gnr", str(tmp_path), "--history", "i1,i5", "-k", "3"]
    answer = json.loads(RUN.invoke(app, [*arguments, "--json"]).stdout)
    assert len(answer["items"]) == 3
    assert all(f"({one['item_id']})" in answer["text"] for one in answer["items"])
    assert answer["items"][0]["title"] in RUN.invoke(app, arguments).stdout


def test_a_tree_without_fields_says_which_there_are(toy: None, tmp_path: Path) -> None:
    done = RUN.invoke(app, ["recipe", "run", "llmtreerec", str(tmp_path), "--history", "i1"])
    assert "the catalog has genre, year" in str(done.exception)


def test_chat_holds_what_was_said(toy: None, tmp_path: Path) -> None:
    done = RUN.invoke(app, ["chat", str(tmp_path), "--history", "i1"], input="Only horror!\nMore\nWhy?\n\n")
    assert done.exit_code == 0, done.exception
    first, second, why = done.stdout.strip().split("\n")
    assert first.count("horror") == second.count("horror") == 5
    assert "because you chose [The river drama]" in why
    assert "held: only horror" in done.stderr


def test_an_endpoint_writes_the_queries(toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endpoint:
        def __init__(self, model: str) -> None:
            assert model == "my-model"

        def generate(self, prompts, n=1, **_):
            return [[GeneratedText("winter horror")] * n for _ in prompts]

    monkeypatch.setattr("genrec.cli.recipe.OpenAiGenerator", Endpoint)
    arguments = [
        "recipe",
        "run",
        "gpt4rec",
        str(tmp_path),
        "--history",
        "i1",
        "--endpoint",
        "my-model",
        "--json",
    ]
    answer = json.loads(RUN.invoke(app, arguments).stdout)
    assert answer["said"][0]["values"] == ["winter horror"]
    assert answer["items"][0]["title"] == "The winter horror"

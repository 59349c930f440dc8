"""The example of every recipe's page runs, with a model that says anything."""

from __future__ import annotations

import re

import pytest

import genrec.recipes
from genrec.recipes.registry import RECIPES
from index.histories import hold_out_last
from tests.genrec.recipes.test_recipes import INDEX, TITLES, random_recommender
from tests.toy import toy_histories


@pytest.mark.parametrize("name", RECIPES)
def test_the_example_runs(name: str) -> None:
    block = re.search(r"::\n\n((?:    .*\n|\n)+?)\n(?=\S)", RECIPES[name].about)
    assert block
    example = "\n".join(line[4:] for line in block[1].splitlines())
    given = {
        **{one: getattr(genrec.recipes, one) for one in genrec.recipes.__all__},
        "recommender": random_recommender(3, prose=True),
        "history": ["film-0003", "film-0006"],
        "candidates": INDEX.catalog.item_ids[20:30],
        "histories": hold_out_last(toy_histories(), 2),
        "rows": [1, 5],
    }
    exec(example, given)  # the text is this repository's own
    answer = given.get("answer")
    if answer is not None:
        assert set(answer.ids) <= set(TITLES)

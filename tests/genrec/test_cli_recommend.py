"""``genrec recommend --max-per``, on a recommender without a trained model."""

from __future__ import annotations

import json
from collections import Counter
from unittest import mock

import pytest
from typer.testing import CliRunner

from genrec.cli.main import app
from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from tests.fake_decoder import FakeDecoder
from tests.toy import toy_index


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


@pytest.mark.parametrize("wrong", ["genre", "genre=", "=2", "genre=two", "genre=-1"])
def test_what_is_no_cap_is_wrong_use(recommender, wrong):
    done = run(recommender, "--max-per", wrong)
    assert done.exit_code == 2
    assert "FIELD=M" in done.output

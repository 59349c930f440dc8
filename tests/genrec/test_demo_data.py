"""The demo's catalog holds what it says it holds, and its simulated users behave as their model says."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.demo import GENRES, KINDS, read_works, simulate_histories, works_path
from genrec.demo.simulator import BASE_TIME, MAX_EVENTS, MIN_EVENTS
from genrec.demo.works import WORKS_SCHEMA
from index.errors import CatalogError, HistoryError


@pytest.fixture(scope="module")
def works() -> pl.DataFrame:
    return read_works()


@pytest.fixture(scope="module")
def events(works: pl.DataFrame) -> pl.DataFrame:
    """Histories of 600 simulated users, each event with the work's fields."""
    return simulate_histories(works, users=600).join(works, on="item_id", how="left", maintain_order="left")


def toy_works(count: int = MAX_EVENTS) -> pl.DataFrame:
    """Alike works by different people, but for the first three: one author's, in order of years."""
    return pl.DataFrame(
        {
            "item_id": [f"toy-{i}" for i in range(count)],
            "title": [f"{chr(ord('a') + i % 26)}{i}" for i in range(count)],
            "year": [1990 + i for i in range(count)],
            "kind": ["novel"] * count,
            "creators": [["A"] if i < 3 else [f"B{i}"] for i in range(count)],
            "genres": [["drama"]] * count,
        }
    )


def digest(histories: pl.DataFrame) -> str:
    return hashlib.sha256(histories.write_csv().encode()).hexdigest()


# The catalog


def test_every_line_is_one_work_with_exactly_the_documented_fields() -> None:
    lines = works_path().read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 600
    for line in lines:
        assert list(json.loads(line)) == list(WORKS_SCHEMA)
    assert read_works().height == len(lines)
    assert read_works().null_count().sum_horizontal().item() == 0


def test_ids_are_the_kind_and_a_running_number(works: pl.DataFrame) -> None:
    for kind in KINDS:
        ids = works.filter(pl.col("kind") == kind)["item_id"].to_list()
        assert ids == [f"{kind}-{number:04d}" for number in range(1, len(ids) + 1)]
        assert len(ids) >= 80
    assert set(works["kind"]) == set(KINDS)


def test_a_title_stands_once_per_kind_and_some_stand_in_several_kinds(works: pl.DataFrame) -> None:
    assert works.select("title", "kind").is_duplicated().sum() == 0
    assert set(works.filter(pl.col("title") == "Dune")["kind"]) == {"film", "novel"}
    assert works["title"].is_duplicated().sum() >= 40


def test_genres_come_from_the_closed_list_and_each_is_used(works: pl.DataFrame) -> None:
    assert len(set(GENRES)) == len(GENRES)
    assert set(works["genres"].explode()) == set(GENRES)
    for genres in works["genres"].to_list():
        assert 1 <= len(genres) <= 4
        assert len(set(genres)) == len(genres)


EARLIEST = {"film": 1895, "novel": 1000, "series": 1945, "album": 1948, "game": 1970, "play": -500}


def test_years_lie_between_the_birth_of_the_kind_and_now(works: pl.DataFrame) -> None:
    for kind, year in works.select("kind", "year").iter_rows():
        assert EARLIEST[kind] <= year <= 2025


def test_descriptions_are_one_short_sentence(works: pl.DataFrame) -> None:
    for text in works["description"].to_list():
        assert 10 <= len(text.split()) <= 21, text
        assert text.endswith("."), text
        assert text == " ".join(text.split())
    assert works["description"].is_duplicated().sum() == 0


def test_text_is_composed_printable_and_without_stray_spaces(works: pl.DataFrame) -> None:
    texts = [*works["title"], *works["description"], *works["creators"].explode()]
    for text in texts:
        assert text.strip() == text != ""
        assert text.isprintable()
        assert unicodedata.normalize("NFC", text) == text
        assert "\N{REPLACEMENT CHARACTER}" not in text


def test_a_creator_is_spelled_one_way(works: pl.DataFrame) -> None:
    def skeleton(name: str) -> str:
        return "".join(c for c in unicodedata.normalize("NFKD", name).casefold() if c.isalnum())

    spellings: dict[str, set[str]] = {}
    for name in works["creators"].explode():
        spellings.setdefault(skeleton(name), set()).add(name)
    assert [names for names in spellings.values() if len(names) > 1] == []
    for creators in works["creators"].to_list():
        assert len(set(creators)) == len(creators) > 0


# The simulated users


def test_the_same_seed_gives_the_same_bytes_in_another_process(works: pl.DataFrame) -> None:
    """Neither the order of sets of strings nor anything left over in the process may matter."""
    code = (
        "import hashlib; from genrec.demo import read_works, simulate_histories as s; "
        "print(hashlib.sha256(s(read_works(), 50, 3).write_csv().encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    here = simulate_histories(works, users=50, seed=3)
    assert run.stdout.strip() == digest(here)
    assert digest(here) != digest(simulate_histories(works, users=50, seed=4))


@settings(max_examples=25, deadline=None)
@given(users=st.integers(1, 40), seed=st.integers(0, 2**32), count=st.integers(MAX_EVENTS, 60))
def test_any_simulation_is_well_formed(users: int, seed: int, count: int) -> None:
    """Down to a catalog of MAX_EVENTS works, of which the busiest users see every one."""
    catalog = toy_works(count)
    histories = simulate_histories(catalog, users, seed)
    assert histories.schema == {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    assert histories["user_id"].unique(maintain_order=True).to_list() == [
        f"simulated-{number:04d}" for number in range(1, users + 1)
    ]
    assert set(histories["item_id"]) <= set(catalog["item_id"])
    assert histories["timestamp"].min() > BASE_TIME  # type: ignore[operator]
    for _, history in histories.group_by("user_id", maintain_order=True):
        assert MIN_EVENTS <= history.height <= MAX_EVENTS
        assert history["item_id"].n_unique() == history.height
        assert (np.diff(history["timestamp"].to_numpy()) > 0).all()


def test_no_event_names_an_unknown_work(events: pl.DataFrame) -> None:
    assert events["title"].null_count() == 0


def test_every_user_walks_alone_and_lengths_vary(events: pl.DataFrame) -> None:
    by_user = events.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    assert len({tuple(history) for history in by_user}) == 600
    assert len({len(history) for history in by_user}) > 15


def test_a_user_has_a_taste(events: pl.DataFrame) -> None:
    """Two works of one user, five events apart, share a genre and a kind more often than two users' works."""
    kinds, genres, users = (events[name].to_list() for name in ("kind", "genres", "user_id"))
    far = np.random.default_rng(0).permutation(len(users))
    own = [i for i in range(len(users) - 5) if users[i] == users[i + 5]]
    same_kind = np.mean([kinds[i] == kinds[i + 5] for i in own])
    same_genre = np.mean([bool(set(genres[i]) & set(genres[i + 5])) for i in own])
    assert same_kind > 1.4 * np.mean([kinds[i] == kinds[far[i]] for i in own])
    assert same_genre > 1.3 * np.mean([bool(set(genres[i]) & set(genres[far[i]])) for i in own])


def test_consecutive_works_share_far_more_than_random_pairs(events: pl.DataFrame) -> None:
    users, genres, creators = (events[name].to_list() for name in ("user_id", "genres", "creators"))

    def shared(field: list[list[str]], pairs: list[tuple[int, int]]) -> float:
        return float(np.mean([bool(set(field[a]) & set(field[b])) for a, b in pairs]))

    order = np.random.default_rng(0).permutation(len(users)).tolist()
    consecutive = [(a, b) for a, b in pairwise(range(len(users))) if users[a] == users[b]]
    at_random = list(pairwise(order))
    assert shared(genres, consecutive) > 1.6 * shared(genres, at_random)
    assert shared(creators, consecutive) > 15 * shared(creators, at_random)


def test_popularity_is_skewed(
    events: pl.DataFrame, works: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most popular tenth has far more of the events than where all works are equally popular."""

    def top_tenth(histories: pl.DataFrame) -> float:
        counts = histories["item_id"].value_counts()["count"].sort(descending=True)
        return float(counts.head(works.height // 10).sum() / histories.height)

    skewed = top_tenth(events)
    monkeypatch.setattr("genrec.demo.simulator.POPULARITY_SLOPE", 0.0)
    even = top_tenth(simulate_histories(works, users=600))
    assert skewed > 1.3 * even
    assert events["item_id"].value_counts()["count"].max() < 0.05 * events.height  # type: ignore[operator]


def test_the_last_work_tells_more_than_popularity(works: pl.DataFrame) -> None:
    """Recall@10 of the last event: what followed the last work in other histories, against the most popular."""
    rows = {item_id: row for row, item_id in enumerate(works["item_id"])}
    histories = simulate_histories(works, users=1500)
    walks = [
        [rows[item_id] for item_id in walk]
        for walk in histories.group_by("user_id", maintain_order=True).agg("item_id")["item_id"]
    ]
    follows = np.zeros((works.height, works.height))
    count = np.zeros(works.height)
    for walk in walks:
        for a, b in pairwise(walk[:-1]):
            follows[a, b] += 1
        np.add.at(count, walk[:-1], 1)

    def recall(scores: np.ndarray, walk: list[int]) -> bool:
        unseen = scores.copy()
        unseen[walk[:-1]] = -1
        return walk[-1] in np.argsort(-unseen, kind="stable")[:10]

    popular = np.mean([recall(count, walk) for walk in walks])
    sequel = np.mean([recall(follows[walk[-2]] + 1e-6 * count, walk) for walk in walks])
    assert sequel > 2 * popular
    assert popular > 3 * 10 / works.height  # popularity is worth something, too


def test_a_creator_is_followed_forwards() -> None:
    """The author's second work comes right after the first far more often than the other way round."""
    histories = simulate_histories(toy_works(60), users=400)
    steps = Counter(
        (a, b)
        for walk in histories.group_by("user_id").agg("item_id")["item_id"].to_list()
        for a, b in pairwise(walk)
    )
    assert steps["toy-0", "toy-1"] > 2 * steps["toy-1", "toy-0"] > 0
    assert steps["toy-0", "toy-1"] > 1.2 * steps["toy-0", "toy-2"]


def test_an_adaptation_follows_its_novel() -> None:
    catalog = toy_works(60).with_columns(
        title=pl.Series(["Dune" if i == 10 else "Dune: Part Two" if i == 20 else f"t{i}" for i in range(60)])
    )
    histories = simulate_histories(catalog, users=400)
    steps = Counter(
        (a, b)
        for walk in histories.group_by("user_id").agg("item_id")["item_id"].to_list()
        for a, b in pairwise(walk)
    )
    after_dune = Counter({b: n for (a, b), n in steps.items() if a == "toy-10"})
    after_sequel = Counter({b: n for (a, b), n in steps.items() if a == "toy-20"})
    assert after_dune.most_common(1)[0][0] == "toy-20"
    assert after_sequel.most_common(1)[0][0] == "toy-10"


def test_works_that_share_no_creator_can_be_simulated() -> None:
    catalog = toy_works().with_columns(creators=pl.Series([[f"B{i}"] for i in range(MAX_EVENTS)]))
    assert simulate_histories(catalog, users=3)["user_id"].n_unique() == 3


def test_bad_arguments_say_what_to_do() -> None:
    catalog = toy_works()
    with pytest.raises(HistoryError, match="expected users >= 1, got 0"):
        simulate_histories(catalog, users=0)
    with pytest.raises(CatalogError, match="expected at least 30 works, got 29"):
        simulate_histories(catalog.head(29))
    with pytest.raises(CatalogError, match="none named 'genres'"):
        simulate_histories(catalog.drop("genres"))
    with pytest.raises(CatalogError, match="each item_id once"):
        simulate_histories(pl.concat([catalog, catalog.head(1)]))
    silent = pl.Series([[]] + [["drama"]] * (MAX_EVENTS - 1), dtype=pl.List(pl.String))
    with pytest.raises(CatalogError, match="one of genres for each work, got none for 'toy-0'"):
        simulate_histories(catalog.with_columns(genres=silent))

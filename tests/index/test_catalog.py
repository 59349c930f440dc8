from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.catalog import Catalog, Item
from index.errors import CatalogError


def movies() -> Catalog:
    return Catalog(
        pl.DataFrame(
            {
                "title": ["Alien", "Heat (1995)", ""],
                "item_id": ["a", "h", "x"],
                "asin": ["B1", "B2", "B3"],
                "genres": [["Horror", "Sci-Fi"], [], ["Drama"]],
                "year": [1979, 1995, None],
                "price": [9.5, None, 1.0],
                "studio": ["Fox", None, "  "],
                "seen": [True, False, None],
            }
        )
    )


def test_rows_and_columns() -> None:
    catalog = movies()
    assert len(catalog) == 3
    assert catalog.item_ids == ["a", "h", "x"]
    assert catalog.titles == ["Alien", "Heat (1995)", ""]
    assert catalog.field_names == ["asin", "genres", "year", "price", "studio", "seen"]
    assert catalog.frame.columns[:2] == ["item_id", "title"]
    assert catalog[1] == Item(
        "h",
        "Heat (1995)",
        {"asin": "B2", "genres": [], "year": 1995, "price": None, "studio": None, "seen": False},
    )
    assert [item.item_id for item in catalog] == catalog.item_ids


def test_a_row_out_of_range_is_an_index_error() -> None:
    for row in (-1, 3):
        with pytest.raises(IndexError, match=r"expected a row in \[0, 3\)"):
            movies()[row]


def test_rows_of_ids() -> None:
    catalog = movies()
    assert catalog.row_of("h") == 1
    assert catalog.row_of("nothing") is None
    rows = catalog.rows_of(["x", "nothing", "a", "x"])
    assert rows.dtype == np.int32
    assert rows.tolist() == [2, -1, 0, 2]


def test_texts_say_what_an_item_is_and_nothing_else() -> None:
    # No key of another shop, no price, no flag; the year only where the title does not already say it.
    assert movies().texts() == ["Alien. Horror, Sci-Fi. 1979. Fox", "Heat (1995)", "Drama"]


def test_texts_of_chosen_fields_come_in_the_order_asked_for() -> None:
    assert movies().texts(["studio", "asin"]) == ["Alien. Fox. B1", "Heat (1995). B2", "B3"]
    assert movies().texts([]) == ["Alien", "Heat (1995)", ""]
    with pytest.raises(CatalogError, match=r"expected fields among .*got \['director'\]"):
        movies().texts(["director"])


def test_save_and_load(tmp_path: Path) -> None:
    catalog = movies()
    catalog.save(tmp_path / "items.parquet")
    loaded = Catalog.load(tmp_path / "items.parquet")
    assert loaded.frame.equals(catalog.frame, null_equal=True)
    assert loaded.frame.schema == catalog.frame.schema
    assert loaded.fingerprint() == catalog.fingerprint()


def test_fingerprint_is_the_same_in_every_run() -> None:
    # Written down once: a change of polars or of this code that moves it would orphan every saved index.
    frame = pl.DataFrame(
        {"item_id": ["1", "é"], "title": ["A", "B"], "tags": [["x"], None], "year": [1, None]}
    )
    expected = "0b77fad0f3c84a95a281839ffb395f6e1fd126e18e62075938d193fcbc39f9c0"
    assert Catalog(frame).fingerprint() == expected


def test_fingerprint_sees_every_value_name_type_and_order() -> None:
    frame = pl.DataFrame({"item_id": ["1", "2"], "title": ["A", "B"], "n": [1, 2]})
    others = [
        frame.with_columns(pl.Series("title", ["A", "C"])),
        frame.rename({"n": "m"}),
        frame.with_columns(pl.col("n").cast(pl.Float64)),
        frame.reverse(),
        frame.head(1),
    ]
    prints = {Catalog(other).fingerprint() for other in [frame, *others]}
    assert len(prints) == 6
    # How the table is cut into chunks in memory is not content.
    assert Catalog(pl.concat([frame.head(1), frame.tail(1)], rechunk=False)).fingerprint() in prints


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"title": ["A"]}, "expected a column 'item_id', got"),
        ({"item_id": ["1"]}, "expected a column 'title', got"),
        ({"item_id": [1], "title": ["A"]}, "expected 'item_id' of type String, got Int64"),
        ({"item_id": ["1", None], "title": ["A", "B"]}, "expected 'item_id' in every row, got 1 null"),
        ({"item_id": ["1"], "title": pl.Series([None], dtype=pl.String)}, "expected 'title' in every row"),
        ({"item_id": ["1", ""], "title": ["A", "B"]}, "expected an id in every row, got 1 empty"),
        (
            {"item_id": ["1", "1"], "title": ["A", "B"]},
            r"expected unique ids, got more than one row for \['1'\]",
        ),
        (
            {"item_id": ["1"], "title": ["A"], "v": [[1.0]]},
            r"expected field 'v' of a type among .*List\(Float64",
        ),
        ({"item_id": ["1"], "title": ["A"], "o": [{"a": 1}]}, "expected field 'o' of a type among"),
    ],
)
def test_a_frame_that_is_no_catalog(frame: dict[str, object], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        Catalog(pl.DataFrame(frame))


def test_loading_what_is_no_catalog(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="got no file at"):
        Catalog.load(tmp_path / "missing.parquet")
    movies().save(tmp_path / "items.parquet")
    whole = (tmp_path / "items.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CatalogError, match=r"expected Parquet in .*half\.parquet"):
        Catalog.load(tmp_path / "half.parquet")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_catalog_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(texts.filter(bool), unique=True, max_size=6))
    n = len(ids)

    def column(values: st.SearchStrategy[object]) -> list[object]:
        return data.draw(st.lists(st.none() | values, min_size=n, max_size=n))

    frame = pl.DataFrame(
        {
            "item_id": pl.Series(ids, dtype=pl.String),
            "title": pl.Series(data.draw(st.lists(texts, min_size=n, max_size=n)), dtype=pl.String),
            "i": pl.Series(column(st.integers(-(2**63), 2**63 - 1)), dtype=pl.Int64),
            "f": pl.Series(column(st.floats(allow_nan=False)), dtype=pl.Float64),
            "s": pl.Series(column(texts), dtype=pl.String),
            "b": pl.Series(column(st.booleans()), dtype=pl.Boolean),
            "l": pl.Series(column(st.lists(texts, max_size=3)), dtype=pl.List(pl.String)),
        }
    )
    path = tmp_path_factory.mktemp("catalog") / "items.parquet"
    catalog = Catalog(frame)
    catalog.save(path)
    loaded = Catalog.load(path)
    assert loaded.frame.equals(frame, null_equal=True)
    assert loaded.fingerprint() == catalog.fingerprint()
    assert len(loaded.texts()) == n
    assert [loaded.row_of(item_id) for item_id in ids] == list(range(n))

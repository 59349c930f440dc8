from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.catalog_readers import CatalogColumns, CatalogReading, read_catalog
from index.errors import CatalogError
from index.field_types import FieldType

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def rows(reading: CatalogReading) -> list[tuple[object, ...]]:
    return reading.catalog.frame.rows()


def bad(reading: CatalogReading) -> list[str]:
    return [str(row) for row in reading.report.bad_rows]


# Formats


def test_csv_with_typed_fields(write: Write) -> None:
    path = write(
        "shop.csv",
        "sku,name,stock,weight,sold,ean,note\n"
        '1,"Tea, green",5,0.5,true,0012,\n'
        '2,"12"" record",,1,false,0013,"two\nlines"\n',
    )
    reading = read_catalog(path)
    assert reading.catalog.frame.schema == {
        "item_id": pl.String,
        "title": pl.String,
        "stock": pl.Int64,
        "weight": pl.Float64,
        "sold": pl.Boolean,
        "ean": pl.String,  # leading zeros: a code, not a number
        "note": pl.String,
    }
    assert rows(reading) == [
        ("1", "Tea, green", 5, 0.5, True, "0012", None),
        ("2", '12" record', None, 1.0, False, "0013", "two\nlines"),
    ]
    assert reading.report.format == "csv"
    assert (reading.report.rows_read, reading.report.rows_kept) == (2, 2)
    assert reading.report.warnings == ()


def test_movielens_csv(write: Write) -> None:
    path = write(
        "movies.csv",
        "movieId,title,genres\r\n"
        "1,Toy Story (1995),Adventure|Children\r\n"
        '11,"American President, The (1995)",Comedy\r\n'
        "12,Babylon 5,(no genres listed)\r\n"
        "13,Doctor Who (2005–),Sci-Fi\r\n",
    )
    reading = read_catalog(path)
    assert reading.catalog.field_names == ["genres", "year"]
    assert rows(reading) == [
        ("1", "Toy Story (1995)", ["Adventure", "Children"], 1995),
        ("11", "American President, The (1995)", ["Comedy"], 1995),
        ("12", "Babylon 5", [], None),
        ("13", "Doctor Who (2005–)", ["Sci-Fi"], 2005),
    ]
    assert reading.catalog.texts()[0] == "Toy Story (1995). Adventure, Children"


def test_movielens_dat_is_latin_1_without_a_header(write: Write) -> None:
    path = write(
        "movies.dat", '1::Amélie "x" (2001)::Comedy|Romance\n2::Heat: Two (1995)::Crime\n'.encode("latin-1")
    )
    reading = read_catalog(path)
    assert rows(reading) == [
        ("1", 'Amélie "x" (2001)', ["Comedy", "Romance"], 2001),
        ("2", "Heat: Two (1995)", ["Crime"], 1995),
    ]
    assert reading.report.format == "movielens-dat"
    assert reading.report.warnings == ()  # latin-1 is what the format says, so no word about it


def test_the_other_movielens_dat_is_named(write: Write) -> None:
    path = write("ratings.dat", "1::1193::5::978300760\n")
    with pytest.raises(
        CatalogError, match=r"expected movieId::title::genres .*is this the other MovieLens file\?"
    ):
        read_catalog(path)


def test_recbole_item_file(write: Write) -> None:
    path = write(
        "ml.item",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tprice:float\temb:float_seq\n"
        '7\tThe "Best" of\t1995\tDrama War\t3\t0.1 0.2\n',
    )
    reading = read_catalog(path)
    assert reading.report.format == "recbole"
    assert reading.catalog.field_names == ["release_year", "class", "price"]
    assert rows(reading) == [("7", 'The "Best" of', "1995", ["Drama", "War"], 3.0)]
    assert reading.report.warnings == ("field 'emb' holds vectors (float_seq) and was left out",)


def test_tsv_takes_quotation_marks_as_they_are(write: Write) -> None:
    reading = read_catalog(write("news.tsv", 'item_id\ttitle\n1\t"Quote" he said\n2\tplain\n'))
    assert rows(reading) == [("1", '"Quote" he said'), ("2", "plain")]
    assert reading.report.format == "tsv"


def test_semicolons_are_found_by_the_header(write: Write) -> None:
    assert rows(read_catalog(write("books.csv", "id;title\n1;A, B\n"))) == [("1", "A, B")]


def test_amazon_metadata_with_mixed_types(write: Write) -> None:
    items = [
        {
            "asin": "B1",
            "title": "Soap",
            "price": 3.5,
            "categories": [["Beauty", "Bath"], ["Beauty", "Gifts"]],
            "description": ["Nice.", "Clean."],
            "related": {"also_bought": ["B2"]},
            "rank": 12,
            "images": [{"thumb": "x"}],
        },
        {
            "asin": "B2",
            "title": "Oil",
            "price": "$1,200.00",
            "categories": [],
            "description": "One.",
            "rank": "7 in X",
        },
        {"asin": "B3", "title": "Wax", "price": "$3 - $5", "rank": None},
    ]
    path = write("meta.jsonl", "\n".join(json.dumps(item) for item in items))
    reading = read_catalog(path)
    assert reading.catalog.frame.schema["price"] == pl.Float64
    assert reading.catalog.frame.rows(named=True) == [
        {
            "item_id": "B1",
            "title": "Soap",
            "price": 3.5,
            "categories": ["Beauty", "Bath", "Gifts"],
            "description": ["Nice.", "Clean."],
            "rank": "12",
        },
        {
            "item_id": "B2",
            "title": "Oil",
            "price": 1200.0,
            "categories": [],
            "description": ["One."],
            "rank": "7 in X",
        },
        {
            "item_id": "B3",
            "title": "Wax",
            "price": None,
            "categories": None,
            "description": None,
            "rank": None,
        },
    ]
    assert reading.report.warnings == (
        "field 'related' holds objects, which no catalog field can, and was left out",
        "field 'images' holds objects, which no catalog field can, and was left out",
        "1 value of 'price' left empty: not a price, such as '$3 - $5'",
    )


def test_the_2014_amazon_dump_is_python_literals(write: Write) -> None:
    lines = (
        "{'asin': 'B1', 'title': \"It's\", 'categories': [['A', 'B']], 'description': 'a \\d b'}\n"
        "{'asin': 'B2', 'title': u'Caf\\xe9', 'price': 2.0}\n"
        "{'asin': __import__('os').getcwd(), 'title': 'code'}\n"
    )
    path = write("meta_Beauty.json.gz", gzip.compress(lines.encode()))
    with pytest.raises(CatalogError, match=r"line 3, row: expected one Python object, got"):
        read_catalog(path)
    reading = read_catalog(path, on_error="skip")
    assert reading.report.format == "python-literals"
    assert reading.catalog.frame.select("item_id", "title", "categories", "price").rows() == [
        ("B1", "It's", ["A", "B"], None),
        ("B2", "Café", None, 2.0),
    ]


def test_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "id": [1.0, 2.0, 30.0],  # pandas turns whole ids into floats beside a missing value
            "title": pl.Series(["A", "B", "C"], dtype=pl.Categorical),
            "year": [1990.0, None, 2000.0],
            "count": pl.Series([1, 2, 3], dtype=pl.UInt8),
            "tags": [[["x"], ["y"]], [], None],
            "vector": [[0.5], [0.1], [0.2]],
            "day": pl.Series(["2020-01-02"] * 3).str.to_date(),
            "score": [float("nan"), 1.5, None],
        }
    )
    frame.write_parquet(tmp_path / "items.parquet")
    reading = read_catalog(tmp_path / "items.parquet")
    assert rows(reading) == [
        ("1", "A", 1990, 1, ["x", "y"], "2020-01-02", None),
        ("2", "B", None, 2, [], "2020-01-02", 1.5),
        ("30", "C", 2000, 3, None, "2020-01-02", None),
    ]
    assert reading.report.format == "parquet"
    assert reading.report.warnings == (
        "field 'vector' holds List(Float64), which no catalog field can, and was left out",
    )


@pytest.mark.parametrize("item_id", ["7", 7, 7.0])
def test_an_id_is_the_same_text_in_every_format(write: Write, tmp_path: Path, item_id: object) -> None:
    frame = pl.DataFrame({"item_id": [item_id], "title": ["A"]})
    frame.write_parquet(tmp_path / "a.parquet")
    assert read_catalog(tmp_path / "a.parquet").catalog.item_ids == ["7"]
    assert read_catalog(
        write("a.jsonl", json.dumps({"item_id": item_id, "title": "A"}))
    ).catalog.item_ids == ["7"]
    assert read_catalog(write("a.csv", "item_id,title\n 7 ,A\n")).catalog.item_ids == ["7"]


# Columns


def test_the_preferred_id_is_the_one_interactions_use(write: Write) -> None:
    path = write("items.jsonl", '{"asin": "B1", "item_id": 1, "title": "A"}\n')
    assert rows(read_catalog(path)) == [("1", "A", "B1")]


def test_mapped_columns(write: Write) -> None:
    path = write("items.csv", "item_id,asin,title,label,n,m\n1,B1,short,long title,3,4\n")
    columns = CatalogColumns(
        item_id="asin", title="label", fields=("n", "item_id", "title"), types={"n": "text"}
    )
    reading = read_catalog(path, columns)
    assert reading.catalog.frame.rows(named=True) == [
        {"item_id": "B1", "title": "long title", "n": "3", "source_item_id": 1, "source_title": "short"}
    ]


@pytest.mark.parametrize(
    "columns",
    [
        CatalogColumns(item_id="nope"),
        CatalogColumns(title="nope"),
        CatalogColumns(fields=("nope",)),
        CatalogColumns(types={"nope": "int"}),
    ],
)
def test_an_unknown_mapped_column_names_those_there_are(write: Write, columns: CatalogColumns) -> None:
    with pytest.raises(CatalogError, match=r"expected a column 'nope' .*got columns item_id, title, year"):
        read_catalog(write("items.csv", "item_id,title,year\n1,A,2000\n"), columns)


def test_no_usual_column(write: Write) -> None:
    with pytest.raises(
        CatalogError, match=r"expected a column for the title .*got columns userId, movieId.*title=C"
    ):
        read_catalog(write("ratings.csv", "userId,movieId,rating\n1,2,3\n"))
    with pytest.raises(
        CatalogError, match=r"expected a column for the item id .*got columns word, title.*item_id=C"
    ):
        read_catalog(write("words.csv", "word,title\n1,2\n"))


def test_an_unknown_type_is_refused(write: Write) -> None:
    path = write("items.csv", "item_id,title,n\n1,A,2\n")
    with pytest.raises(CatalogError, match=r"expected a type of .* for field 'n', got 'integer'"):
        read_catalog(path, CatalogColumns(types={"n": "integer"}))  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("kind", "values", "typed", "faults"),
    [
        ("int", [1, "2", "x", 2.5, None], [1, 2, None], ["'x'", "2.5"]),
        ("float", [1, "2.5", "inf", [1], None], [1.0, 2.5, 1.0, None], ["'inf'"]),
        ("bool", [True, "false", 1, "no", None], [True, False, True, None], ["'no'"]),
        ("text", [1, True, "x", ["a", "b"], None], ["1", "True", "x", "a, b", None], []),
        ("list", ["a|b", ["c"], None], [["a|b"], ["c"], None], []),
    ],
)
def test_declared_types_convert_or_fail(
    write: Write, kind: FieldType, values: list[object], typed: list[object], faults: list[str]
) -> None:
    lines = "\n".join(json.dumps({"item_id": n, "title": "A", "f": value}) for n, value in enumerate(values))
    reading = read_catalog(write("items.jsonl", lines), CatalogColumns(types={"f": kind}), on_error="skip")
    assert reading.catalog.frame["f"].to_list() == typed
    assert [row.got for row in reading.report.bad_rows] == faults


def test_a_list_in_a_csv_is_written_with_bars(write: Write) -> None:
    path = write("items.csv", "item_id,title,tags\n1,A,x| y |\n2,B,\n3,C,z\n")
    assert read_catalog(path).catalog.frame["tags"].to_list() == ["x| y |", None, "z"]
    typed = read_catalog(path, CatalogColumns(types={"tags": "list"}))
    assert typed.catalog.frame["tags"].to_list() == [["x", "y"], None, ["z"]]


# Bad rows


def test_bad_rows_fail_with_line_field_expected_and_got(write: Write) -> None:
    path = write(
        "items.csv",
        'item_id,title,year\n1,A,1990\n,B,1991\n\n3,"C",soon\n1,D,1992\n4,E\n5,F,1993,extra\n6,G,1994\n7,"H" x,1\n',
    )
    columns = CatalogColumns(types={"year": "int"})
    with pytest.raises(CatalogError) as caught:
        read_catalog(path, columns)
    assert str(caught.value) == (
        f"expected every row of {path} to be usable, got 6 bad of 8:\n"
        "  line 3, item_id: expected an id, got nothing\n"
        "  line 5, year: expected a whole number, got 'soon'\n"
        "  line 6, item_id: expected an id of its own, got '1', already in line 2\n"
        "  line 7, row: expected 3 values, got 2\n"
        "  line 8, row: expected 3 values, got 4\n"
        "  … and 1 more\n"
        "Leave them out with --on-error skip, or map other columns (read: item_id='item_id', title='title')."
    )
    reading = read_catalog(path, columns, on_error="skip")
    assert rows(reading) == [("1", "A", 1990), ("6", "G", 1994)]
    assert (reading.report.rows_read, reading.report.rows_kept) == (8, 2)
    assert [row.line for row in reading.report.bad_rows] == [3, 5, 6, 7, 8, 10]
    assert "2 of 8 rows kept" in reading.report.summary()
    assert "… and 1 more" in reading.report.summary()


def test_ragged_rows_without_any_quotation_mark(write: Write) -> None:
    reading = read_catalog(write("items.csv", "item_id,title\n\n1,A\n2\n3,C,x\n4,D"), on_error="skip")
    assert rows(reading) == [("1", "A"), ("4", "D")]
    assert bad(reading) == ["line 4, row: expected 2 values, got 1", "line 5, row: expected 2 values, got 3"]


def test_a_broken_json_line_is_one_bad_row(write: Write) -> None:
    good = '{"item_id": 1, "title": "A"}'
    lines = [
        good,
        '{"item_id": 2, "titl',
        "",
        "[1]",
        '{"item_id": [3], "title": "C"}',
        '{"item_id": "4", "title": "\\ud800"}',
    ]
    reading = read_catalog(write("items.jsonl", "\n".join(lines)), on_error="skip")
    assert rows(reading) == [("1", "A")]
    assert bad(reading) == [
        """line 2, row: expected one JSON object, got '{"item_id": 2, "titl'""",
        "line 4, row: expected one JSON object, got '[1]'",
        "line 5, item_id: expected text or a whole number, got [3]",
        "line 6, row: expected one JSON object, got half a surrogate pair in a string",
    ]
    with pytest.raises(CatalogError, match=r"got 4 bad of 5"):
        read_catalog(write("items.jsonl", "\n".join(lines)))


def test_a_quotation_mark_that_never_closes_is_not_one_bad_row(write: Write) -> None:
    # Under "skip" it would swallow the rest of the file and report a single row: half a catalog.
    path = write("items.csv", 'item_id,title\n1,A\n2,"B\n3,C\n4,D\n')
    for on_error in ("fail", "skip"):
        with pytest.raises(CatalogError, match=r"opens in line 3 and runs to the end of the file \(line 5\)"):
            read_catalog(path, on_error=on_error)  # type: ignore[arg-type]


def test_a_stray_quotation_mark_says_which_lines_it_swallowed(write: Write) -> None:
    path = write("items.csv", 'item_id,title\n1,A\n2,"B\n3,C\n4,"D"\n5,E\n6,"F\n7",G\n')
    reading = read_catalog(path, on_error="skip")
    assert rows(reading) == [("1", "A"), ("5", "E")]
    assert bad(reading) == [
        "line 3, row: expected values quoted as CSV does, got ',' expected after '\"' over lines 3–5",
        "line 7, row: expected 2 values, got 3 over lines 7–8",
    ]


def test_only_bad_rows_leave_no_catalog(write: Write) -> None:
    with pytest.raises(
        CatalogError, match=r"expected at least one item .* got 1 bad row, the first: line 2, item"
    ):
        read_catalog(write("items.csv", "item_id,title\n,A\n"), on_error="skip")


def test_an_unknown_on_error_is_refused(write: Write) -> None:
    with pytest.raises(CatalogError, match="expected on_error 'fail' or 'skip', got 'ignore'"):
        read_catalog(write("items.csv", "item_id,title\n1,A\n"), on_error="ignore")  # type: ignore[arg-type]


# Titles


def test_a_few_empty_titles_are_kept_and_counted(write: Write) -> None:
    # Amazon Beauty: 7 of 12,101 items have no title in the shop's own metadata, and users bought them.
    path = write(
        "items.jsonl", '{"item_id": 1, "title": "A"}\n{"item_id": 2}\n{"item_id": 3, "title": "B"}\n'
    )
    reading = read_catalog(path)
    assert reading.catalog.titles == ["A", "", "B"]
    assert reading.report.warnings == ("1 item without a title, kept with an empty one, such as 2",)


def test_mostly_empty_titles_mean_the_wrong_column(write: Write) -> None:
    path = write("items.csv", "item_id,name,title\n1,A,\n2,B, \n3,C,c\n")
    with pytest.raises(
        CatalogError, match=r"expected titles in column 'title' .* got 2 empty ones of 3.*title=C"
    ):
        read_catalog(path)
    assert read_catalog(path, CatalogColumns(title="name")).catalog.titles == ["A", "B", "C"]


def test_line_breaks_in_a_title_become_spaces(write: Write) -> None:
    path = write("items.jsonl", json.dumps({"item_id": 1, "title": " Two\r\n lines\tand a tab  "}))
    assert read_catalog(path).catalog.titles == ["Two lines and a tab"]


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_in_every_dress(write: Write, encoding: str) -> None:
    content = "item_id,title\n1,Amélie 日本\n2,plain\n".encode(encoding)
    if encoding == "utf-16-le":
        content = "item_id,title\n1,Amélie\n2,plain\n".encode(encoding)  # no mark: told by the zero bytes
    reading = read_catalog(write("items.csv", content))
    assert reading.catalog.item_ids == ["1", "2"]
    assert reading.catalog.titles[0].startswith("Amélie")
    assert reading.report.warnings == ()


def test_latin_1_is_read_with_a_warning(write: Write) -> None:
    reading = read_catalog(write("items.csv", "item_id,title\n1,plain\n2,Amélie\n".encode("latin-1")))
    assert reading.catalog.titles == ["plain", "Amélie"]
    assert len(reading.report.warnings) == 1
    assert "line 3 is not UTF-8, so the file was read as latin-1" in reading.report.warnings[0]


def test_one_broken_character_does_not_turn_good_utf_8_into_latin_1(write: Write) -> None:
    # A shop cut titles at 20 bytes, in the middle of an "é": the other accents must stay what they are.
    content = "item_id,title\n1,Amélie\n2,Café\n3,Resum".encode() + b"\xc3\n"
    reading = read_catalog(write("items.csv", content))
    assert reading.catalog.titles == ["Amélie", "Café", "Resum\N{REPLACEMENT CHARACTER}"]
    assert reading.report.warnings == (
        "1 broken UTF-8 characters were replaced by U+FFFD, the first in line 4",
    )


# Files that are none


def test_files_that_are_no_catalog(write: Write, tmp_path: Path) -> None:
    cases: list[tuple[Path, str]] = [
        (tmp_path / "missing.csv", "expected a file, got nothing at"),
        (tmp_path, "expected a file, got the directory"),
        (write("empty.csv", ""), "expected rows in .* got an empty file"),
        (write("blank.jsonl", " \n\n"), "got an empty file"),
        (write("empty.gz", gzip.compress(b"")), "got an empty file"),
        (write("header.csv", "item_id,title\n"), "expected at least one item in .*, got none"),
        (write("header.tsv", "item_id\ttitle"), "expected at least one item in .*, got none"),
        (write("noise.csv", bytes(range(256))), "expected text in .*, got binary data"),
        (write("array.json", '[{"item_id": 1}]'), r"got a JSON array; rewrite it with: jq -c"),
        (write("broken.jsonl", '{"item_id": 1,\n"title": 2}\n'), "expected one JSON object per line"),
        (write("twice.csv", "item_id,title,title\n1,A,B\n"), "expected column names in .* that differ"),
        (write("cut.csv.gz", gzip.compress(b"item_id,title\n1,A\n")[:-9]), "expected a whole gzip archive"),
        (write("no.parquet", "item_id,title\n1,A\n"), "expected Parquet in"),
        (write("empty.parquet", ""), "expected Parquet in"),
    ]
    for path, message in cases:
        with pytest.raises(CatalogError, match=message):
            read_catalog(path)


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": ["1", "2"], "title": ["A", "B"]}).write_parquet(path)
    whole = path.read_bytes()
    for length in (3, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CatalogError, match="expected Parquet in"):
            read_catalog(path)


def test_a_parquet_key_must_be_plain(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": [["1"]], "title": ["A"]}).write_parquet(path)
    with pytest.raises(
        CatalogError, match=r"expected column 'item_id' of .* to hold one plain value .*, got List"
    ):
        read_catalog(path)


SEEDS = {
    "a.csv": b'item_id,title,year\n1,"A, b",1990\n2,C,1991\n3,D \xc3\xa9,\n',
    "a.tsv": b"item_id\ttitle\n1\tA\n2\tB\n",
    "a.dat": b"1::A (1990)::X|Y\n2::B::Z\n",
    "a.jsonl": b'{"item_id": 1, "title": "A", "tags": ["x"]}\n{"item_id": "2", "title": "\\u00e9", "n": 1.5}\n',
    "a.json": b"{'asin': 'B1', 'title': 'A', 'price': 2}\n{'asin': 'B2', 'title': 'B'}\n",
    "a.item": b"item_id:token\ttitle:token_seq\ty:float\n1\tA b\t2\n",
    "a.csv.gz": gzip.compress(b"item_id,title\n1,A\n2,B\n", mtime=0),
}


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(sorted(SEEDS)), st.sampled_from(["fail", "skip"]), st.data())
def test_damaged_files_give_a_catalog_or_a_catalog_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, on_error: str, data: st.DataObject
) -> None:
    content = bytearray(SEEDS[name])
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(bytes(content))
    try:
        reading = read_catalog(path, on_error=on_error)  # type: ignore[arg-type]
    except CatalogError:
        return
    report = reading.report
    assert report.rows_kept == len(reading.catalog) == report.rows_read - len(report.bad_rows)
    assert on_error == "skip" or not report.bad_rows
    assert report.summary()

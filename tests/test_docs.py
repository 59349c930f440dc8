"""The documentation does what it says: every command and every line of Python on its pages is run, or fails here.

``tests/docs_runner.py`` lists what is made smaller, and what no test can run and why.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer

from genrec.cli.main import app
from genrec.demo import read_works, simulate_histories, works_path
from index.catalog_readers import read_catalog
from tests.docs_blocks import (
    PAGES,
    ROOT,
    RUN_LANGUAGES,
    SHOWN_LANGUAGES,
    Block,
    blocks_of,
    commands_of,
    inline_commands,
    page_text,
)
from tests.docs_files import write_files
from tests.docs_runner import NOT_RUN, Reader, reader, reason_not_run

MAKEFILE = (ROOT / "Makefile").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def verbs(command: Any = None, name: str = "genrec") -> Iterator[str]:
    """Every command of the command line, with its group: ``genrec index build``."""
    command = command or typer.main.get_command(app)
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield name
    else:
        for one, below in subcommands.items():
            yield from verbs(below, f"{name} {one}")


def shell_commands(page: str) -> list[str]:
    return [" ".join(words) for one in blocks_of(page) if one.language == "sh" for words in commands_of(one)]


def read_readme(one: Reader) -> None:
    """Work through README. Its first example stands above the command that makes the bundle it loads."""
    one.run(["make", "demo"])
    for block in blocks_of("README.md"):
        if block.language in RUN_LANGUAGES:
            one.read(block)


@pytest.fixture(scope="module")
def after_readme(tmp_path_factory) -> Path:
    """A directory in which somebody has done all that README says, on toy files."""
    directory = tmp_path_factory.mktemp("readme")
    write_files(directory)
    with chdir(directory), reader(directory) as one:
        read_readme(one)
    return directory


def test_readme_takes_a_new_user_from_files_to_a_page(after_readme):
    assert (after_readme / "runs" / "movies" / "manifest.json").is_file()
    answers = pl.read_parquet(after_readme / "recs.parquet")
    assert answers["item_ids"].list.len().to_list() == [10] * len(answers)
    assert (after_readme / "reports" / "movies" / "report.md").is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_pages_run(page, after_readme, tmp_path):
    """Each page begins where README ends."""
    blocks = [one for one in blocks_of(page) if one.language in RUN_LANGUAGES]
    directory = tmp_path / "page"
    if blocks:
        shutil.copytree(after_readme, directory)
        with chdir(directory), reader(directory) as one:
            for block in blocks:
                one.read(block)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_say_what_they_are(page):
    for block in blocks_of(page):
        assert block.language in (*RUN_LANGUAGES, *SHOWN_LANGUAGES), block.place


def test_no_page_with_commands_is_forgotten():
    skipped = {".venv", ".venv-light", ".git"}
    pages = [one.relative_to(ROOT) for one in ROOT.rglob("*.md")]
    for page in pages:
        if skipped.isdisjoint(page.parts) and str(page) not in PAGES:
            languages = {one.language for one in blocks_of(str(page))}
            assert languages.isdisjoint(RUN_LANGUAGES), f"{page}: put it among the PAGES that are run"


def test_every_verb_is_documented():
    text = re.sub(r"\s+", " ", "\n".join(page_text(page) for page in PAGES))
    missing = [verb for verb in verbs() if not re.search(rf"\b{verb}\b", text)]
    assert not missing, f"on none of the pages: {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES)
def test_verbs_in_the_text_exist(page):
    known = set(verbs())
    groups = {verb.rsplit(" ", 1)[0] for verb in known}
    for words in inline_commands(page):
        said = " ".join(words[:3]) if " ".join(words[:2]) in groups else " ".join(words[:2])
        assert said in known | groups, f"{page}: {said}"


@pytest.mark.parametrize("page", PAGES)
def test_what_is_linked_is_there(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page_text(page)) + re.findall(
        r'src="([^"]+)"', page_text(page)
    )
    for target in targets:
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_what_is_not_run_is_used_and_exists():
    commands = [one for page in PAGES for one in shell_commands(page)]
    for begins in NOT_RUN:
        assert any(re.match(begins, one) for one in commands), f"no page says it any more: {begins}"
    for command in commands:
        for target in re.findall(r"^make ([\w-]+)", command):
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), command
        for module in re.findall(r"^python -m (benchmarks\.\w+)", command):
            source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
            for option in re.findall(r" (--[\w-]+)", command):
                assert f'"{option}"' in source, f"{command}: {option}"
    assert "genrec demo" in MAKEFILE  # what runs here for `make demo`


def test_extras_exist():
    text = "\n".join(page_text(page) for page in PAGES)
    for extras in re.findall(r"\.\[([a-z,]+)\]", text):
        assert set(extras.split(",")) <= set(EXTRAS), extras


@pytest.mark.parametrize(
    ("language", "text", "message"),
    [
        ("sh", "frobnicate the catalog\n", "x.md:7: no test runs this command: frobnicate"),
        ("sh", "genrec index build movies.csv | tail\n", "x.md:7: expected one plain command a line"),
        ("sh", "curl -s localhost:8000/metrics\n", "x.md:7: expected a server to be running"),
        ("sh", "genrec frobnicate\n", "No such command"),
        ("python", "assert 1 + 1 == 3, 'wrong sum'\n", "wrong sum"),
    ],
)
def test_what_cannot_be_done_fails(language, text, message, tmp_path):
    with pytest.raises(AssertionError, match=re.escape(message)):
        Reader(tmp_path).read(Block("x.md", 7, language, text))


def test_commands_are_read_as_a_shell_reads_them():
    (block,) = blocks_of(
        "x.md", "```sh\ngenrec train \\\n  --out a  # once\n\ncurl -d '{\n \"k\": 1}' u\n```\n"
    )
    assert block.line == 2
    assert commands_of(block) == [["genrec", "train", "--out", "a"], ["curl", "-d", '{\n "k": 1}', "u"]]
    assert reason_not_run("pip install -e '.[serve]'") is not None
    assert reason_not_run("genrec index build movies.csv") is None


def write_large_files(directory: Path) -> None:
    """The demo's thousand works as MovieLens and Amazon files, and two thousand simulated users."""
    write_files(directory)
    catalog = read_catalog(works_path()).catalog
    number = {item_id: row + 1 for row, item_id in enumerate(catalog.item_ids)}
    films = catalog.frame.select(
        movieId=pl.col("item_id").replace_strict(number),
        title=pl.format("{} ({})", pl.col("title"), pl.col("year").fill_null(1900)),
        genres=pl.col("genres").list.eval(pl.element().str.to_titlecase()).list.join("|"),
    )
    films.write_csv(directory / "movies.csv")
    catalog.frame.write_ndjson(directory / "items.jsonl")
    events = simulate_histories(read_works())
    rated = events.with_columns(movieId=pl.col("item_id").replace_strict(number)).rename(
        {"user_id": "userId"}
    )
    rated.drop("item_id").write_csv(directory / "ratings.csv")
    walks = events.sort("timestamp").group_by("user_id", maintain_order=True).agg("item_id")
    lines = [" ".join([user, *items]) for user, items in walks.select("user_id", "item_id").iter_rows()]
    (directory / "sequences.txt").write_text("\n".join(lines) + "\n")
    numbers = pl.col("item_id").list.eval(pl.element().replace_strict(number).cast(pl.String))
    walks.select("user_id", history=numbers).write_parquet(directory / "users.parquet")


# Taken away, since a server that the pages start refuses settings it does not know.
MINUTES_SHARE = float(os.environ.pop("GENREC_DOCS_MINUTES_SHARE", "0.1"))


def only_time_made_smaller(verb: str, words: list[str]) -> list[str]:
    """The same command with ``GENREC_DOCS_MINUTES_SHARE`` of its minutes (1: as README says, which takes hours)."""
    if verb == "demo":
        words = [*words, "--minutes", "2"]  # its default
    if "--minutes" in words:
        at = words.index("--minutes") + 1
        words = [*words[:at], str(float(words[at]) * MINUTES_SHARE), *words[at + 1 :]]
    return words


@pytest.mark.slow  # half an hour: of all sizes only the minutes of training are smaller, a tenth of README's
def test_readme_in_full(tmp_path):
    """README as it stands: encoders, exports and `make demo` itself, a report of a server and of a million items."""
    write_large_files(tmp_path)
    with chdir(tmp_path), reader(tmp_path, shrink=only_time_made_smaller) as one:
        read_readme(one)
    assert len(pl.read_parquet(tmp_path / "recs.parquet")) == 2_000


def test_a_full_run_is_only_shorter():
    words = ["train", "--index", "a", "--minutes", "30", "--out", "b"]
    minutes = str(30 * MINUTES_SHARE)
    assert only_time_made_smaller("train", words) == [*words[:4], minutes, *words[5:]]
    assert only_time_made_smaller("evaluate", ["evaluate", "b"]) == ["evaluate", "b"]
    assert only_time_made_smaller("demo", ["demo"]) == ["demo", "--minutes", str(2 * MINUTES_SHARE)]

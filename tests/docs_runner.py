"""Runs what the documentation says, on catalogs of sixty items: commands and Python as they stand there.

A page is run in a directory of its own that has the files it names. Only what would take minutes is made smaller
(:data:`SMALLER`); what no test can run is listed with its reason (:data:`NOT_RUN`), and everything else fails.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import typer

from genrec.cli.main import app
from tests.docs_blocks import Block, commands_of
from tests.genrec.completions_server import chat_reply, completions_server
from tests.genrec.test_cli import genrec
from tests.serving.test_serve_command import Running, serving

NOT_RUN: dict[str, str] = {
    r"make (test|test-slow|test-light|check|format|screenshots)\b": "sets up an environment; CI runs these targets",
    r"\. \.venv/bin/activate": "changes a shell",
    r"pip install ": "needs a package index; that the extras exist is tested",
    r"python -m benchmarks\.": "minutes of a quiet machine; that module and options exist is tested",
    r"docker ": "no Docker engine where tests run; tests/serving/test_deploy.py reads the files",
    r"serve run serving\.ray_app:app": "a cluster; tests/serving/test_ray_app.py deploys it",
    r"genrec (batch|index build) .*--engine ray": "a cluster; tests/genrec/batch/test_ray_engine.py starts one",
    r"genrec train --base t5-tiger ": "a T5 of full size; tests/genrec/test_finetune_command.py trains a small one",
    r"genrec recipe verify --all": "a minute; tests/genrec/recipes verifies each recipe",
    r"genrec chat ": "reads what a person types; tests/genrec/recipes talks to it",
}
"""Commands that are not run here, by how they begin, and why."""

SMALLER: dict[str, tuple[tuple[str, str | None, tuple[str, ...]], ...]] = {
    # verb: (option, what it becomes where the page gives it, what is added where it does not)
    "index build": (("--text-encoder", None, ("--text-encoder", "tfidf")),),
    "train": (
        ("--minutes", "--steps 4", ()),
        ("--epochs", "--steps 4", ()),
        ("--threads", None, ("--threads", "1")),
    ),
    "batch": (("--workers", "--workers 1", ("--workers", "1")),),
    "evaluate": (("--users", "--users 4", ("--users", "4")),),
    "export": (("--check", "--check 2", ("--check", "2")),),
    "serve": (
        ("--port", None, ()),  # serving() takes a free one
        ("--host", "--host 127.0.0.1", ()),
        ("--workers", "--workers 1", ()),
    ),
    "demo": (("--minutes", "--minutes 0.01", ("--minutes", "0.01")), ("--users", None, ("--users", "60"))),
    "bench decode": (
        ("--users", "--users 3", ("--users", "3")),
        ("--beams", "--beams 4", ("--beams", "4")),
        ("--prompts", "--prompts 2", ("--prompts", "2")),
        ("--filters", "--filters 50", ("--filters", "50")),
        ("--sizes", "--sizes 30", ()),
    ),
    "bench constraint": (("--rounds", "--rounds 2", ("--rounds", "2", "--no-peers")),),
    "bench offline": (
        ("--batches", "--batches 1,2", ("--batches", "1,2")),
        ("--groups", "--groups 2", ("--groups", "2")),
    ),
    "bench serve": (
        ("--rates", "--rates 20", ("--rates", "20")),
        ("--requests", "--requests 20", ("--requests", "20")),
    ),
    "bench report": (
        ("--users", "--users 3", ("--users", "3")),
        ("--beams", "--beams 4", ("--beams", "4")),
        ("--sizes", "--sizes 30", ("--sizes", "30")),
        ("--batches", "--batches 1,2", ("--batches", "1,2")),
        ("--recall-cases", "--recall-cases 5", ("--recall-cases", "5")),
        ("--serve", None, ("--no-serve",)),
    ),
}
"""How a verb is run here. ``--minutes`` of training becomes a few steps, and so on; nothing else is touched."""

TINY_MODEL = ("--hidden-size", "16", "--layers", "1")  # of a training without --base
FEW_EXAMPLES = ("--batch-size", "4", "--validation-users", "4")  # of one with


def smaller(verb: str, words: list[str]) -> list[str]:
    """The same command over a toy."""
    for option, instead, otherwise in SMALLER.get(verb, ()):
        if option in words:
            place = words.index(option)
            if option == "--port":
                words = words[:place] + words[place + 2 :]
            elif instead is not None:
                words = words[:place] + shlex.split(instead) + words[place + 2 :]
        else:
            words = [*words, *otherwise]
    if verb == "train":
        words = [*words, *(FEW_EXAMPLES if "--base" in words else TINY_MODEL)]
    return words


def reason_not_run(command: str) -> str | None:
    """Why a command is not run here; None where it is."""
    return next((why for begins, why in NOT_RUN.items() if re.match(begins, command)), None)


def check_options(words: list[str]) -> None:
    """That the command line would take these words; nothing is run."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    command.make_context(name, words)


@dataclass
class Reader:
    """Somebody who works through a page: one shell, one Python, one server at a time.

    Args:
        directory: the current one, which holds the page's files.
        shrink: what makes a command small enough; leaves it alone in a full-sized run.
    """

    directory: Path
    shrink: Callable[[str, list[str]], list[str]] = smaller
    names: dict[str, Any] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    said: str = ""  # by the last command
    _server: Running | None = None
    _opened: ExitStack = field(default_factory=ExitStack)

    def read(self, block: Block) -> None:
        """Do what a block says."""
        if block.language == "python":
            if "OPENAI_BASE_URL" in block.text:
                self._open_endpoint()
            exec(compile("\n" * (block.line - 1) + block.text, block.page, "exec"), self.names)
            return
        for words in commands_of(block):
            self.run(words, block.place)

    def run(self, words: list[str], place: str = "") -> None:
        """One command."""
        command = shlex.join(words)
        assert not set(words) & {"|", ">", "&&", "&"}, (
            f"{place}: expected one plain command a line: {command}"
        )
        if reason_not_run(" ".join(words)) is not None:
            if words[0] == "genrec":
                check_options(words[1:])
            return
        variables = dict(one.split("=", 1) for one in words if re.match(r"GENREC_\w+=", one))
        words = [one for one in words if not re.match(r"GENREC_\w+=", one)]
        if words == ["make", "demo"]:
            if command in self.ran:
                return
            words = ["genrec", "demo"]
        if words[0] == "genrec":
            self._genrec(words[1:], variables)
        elif words[0] == "curl":
            self._curl(words[1:], place)
        else:
            raise AssertionError(f"{place}: no test runs this command: {command}")
        self.ran.append(command)

    def close(self) -> None:
        """Stop the server."""
        self._server = None
        self._opened.close()

    def _open_endpoint(self) -> None:
        """What the variables that the block names say, for as long as the reader reads."""
        server = self._opened.enter_context(completions_server())
        server.answer = lambda seen, number: chat_reply(*["river comedy"] * seen.body.get("n", 1))
        variables = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "nobody-checks-it"}
        self._opened.enter_context(mock.patch.dict(os.environ, variables))

    def _genrec(self, words: list[str], variables: dict[str, str]) -> None:
        verb = " ".join(words[:2]) if words[0] in ("index", "bench", "recipe") else words[0]
        words = self.shrink(verb, words)
        if verb == "serve":
            self.close()
            self._server = self._opened.enter_context(serving(*words[1:], **variables))
            return
        assert not variables, "only the server reads GENREC_ variables"
        self.said = genrec(*words).stdout

    def _curl(self, words: list[str], place: str) -> None:
        """What ``curl -s URL -X METHOD -H HEADER -d BODY`` asks; an answer of 400 or more fails."""
        assert self._server is not None, f"{place}: expected a server to be running, none was started"
        headers, body, method, address = {}, None, None, ""
        rest = iter(words)
        for word in rest:
            if word in ("-s", "-sS", "--silent"):
                continue
            if word in ("-H", "--header"):
                name, _, value = next(rest).partition(":")
                headers[name.strip()] = value.strip()
            elif word in ("-d", "--data"):
                body = next(rest).encode()
                json.loads(body)
            elif word in ("-X", "--request"):
                method = next(rest)
            else:
                assert not word.startswith("-"), (
                    f"{place}: an option of curl that the tests do not know: {word}"
                )
                address = word
        match = re.fullmatch(r"(?:http://)?localhost:8000(/\S*)", address)
        assert match, f"{place}: expected an address of the server the page starts, got {address}"
        url = f"http://127.0.0.1:{self._server.port}{match.group(1)}"
        asked = urllib.request.Request(url, data=body, headers=headers, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                self.said = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{place}: {error.code} {error.read().decode()}") from error


@contextmanager
def reader(directory: Path, **more: Any) -> Iterator[Reader]:
    """A reader whose server is gone afterwards."""
    one = Reader(directory, **more)
    try:
        yield one
    finally:
        one.close()

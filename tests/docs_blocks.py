"""What the documentation says to run: its pages, their blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "index/README.md",
    "genrec/README.md",
    "serving/README.md",
    "serving/deploy/README.md",
    "CONTRIBUTING.md",
)
RUN_LANGUAGES = ("sh", "python")
SHOWN_LANGUAGES = ("text", "json")  # what a command prints: read, not run


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int  # of its first line of text
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where a person finds it."""
        return f"{self.page}:{self.line}"


def page_text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page, in order."""
    blocks: list[Block] = []
    language, start, held = None, 0, []
    for number, line in enumerate((page_text(page) if text is None else text).splitlines(), 1):
        if not line.startswith("```"):
            held.append(line)
        elif language is None:
            language, start, held = line.removeprefix("```").strip(), number + 1, []
        else:
            blocks.append(Block(page, start, language, "\n".join(held) + "\n"))
            language = None
    assert language is None, f"{page}:{start}: a block that nobody closes"
    return blocks


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a ``sh`` block as a shell splits them; a command may go on over lines."""
    commands, held = [], ""
    for line in block.text.splitlines():
        held += line
        if held.endswith("\\"):
            held = held.removesuffix("\\")
            continue
        try:
            words = shlex.split(held, comments=True)
        except ValueError:  # a quotation goes on
            held += "\n"
            continue
        if words:
            commands.append(words)
        held = ""
    assert not held, f"{block.place}: a command that does not end: {held}"
    return commands


def prose_of(page: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page_text(page), flags=re.MULTILINE | re.DOTALL)


def inline_commands(page: str) -> list[list[str]]:
    """``genrec …`` in the running text, as words."""
    spans = re.findall(r"`(genrec [^`]+)`", prose_of(page))
    return [re.split(r"\s+", span) for span in spans]

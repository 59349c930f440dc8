"""``genrec chat``: a conversation about a catalog, at the terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from genrec.cli.options import QuietFlag
from genrec.cli.output import answers, remark
from genrec.cli.recipe import LanguageModel, open_recommender
from genrec.cli.recommend import BundlePath
from genrec.cli.wish_options import ids_of
from genrec.recipes.chatrec import Chat


def chat(
    bundle: BundlePath,
    history: Annotated[
        str,
        typer.Option(help="Item ids, oldest first, separated by commas. Empty: a new user.", metavar="IDS"),
    ] = "",
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Items of a recommendation.")] = 5,
    language_model: LanguageModel = None,
    quiet: QuietFlag = False,
) -> None:
    """Talk about what to choose next. Wishes such as "no horror" hold until you say otherwise; an empty line ends.

    Lines are read from standard input, so a script can be piped in.
    """
    talk = Chat(open_recommender(bundle, language_model), ids_of(history), k=k)
    if not quiet:
        remark('say what you would like, such as "something light, no horror", or ask "why the first?"')
    while True:
        if sys.stdin.isatty():
            remark("you:")
        line = sys.stdin.readline()
        if not line.strip():
            return
        answers.print(talk.turn(line).text, markup=False)
        if talk.state.wishes and not quiet:
            held = ", ".join(f"{'no' if one.is_against else 'only'} {one.value}" for one in talk.state.wishes)
            remark(f"held: {held}")

"""The registry: every recipe with its paper, what it takes and gives, and the check that it must pass.

A new recipe is a file beside this one, an entry here, and a test (CONTRIBUTING.md shows one).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from genrec.recipes import (
    brew360,
    chat_check,
    chatrec,
    conversational,
    genrec_titles,
    gnr,
    gpt4rec,
    llmrank,
    llmtreerec,
    nir_prompts,
    profile_palr,
    tallrec,
    tree_check,
)
from genrec.recipes.answers import RecipeAnswer, Said
from genrec.recipes.catalog_talk import CatalogTalk
from genrec.recipes.check import Check
from genrec.recommender import Recommender
from index.errors import RequestError
from index.types import ItemId

Capability: TypeAlias = Literal["generate", "rank", "narrate", "navigate", "converse"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command line, or any caller that treats all recipes alike, can say."""

    history: tuple[ItemId, ...] = ()
    k: int = 10
    candidates: tuple[ItemId, ...] = ()
    """Where a recipe ranks and none are given, the recommender's own first twenty."""
    said: tuple[str, ...] = ()  # turns of a conversation
    fields: tuple[str, ...] = ()  # of a tree of categories


@dataclass(frozen=True, slots=True)
class Recipe:
    """One published system on this engine."""

    name: str
    system: str
    paper: str  # arXiv
    capability: Capability
    inputs: str
    outputs: str
    needs: str  # of the model, where a small one of codes alone does not do
    run: Callable[[Recommender, Asked], RecipeAnswer]
    check: Callable[[], list[Check]]
    """Its T0 check: a planted model, seconds."""
    about: str
    """What is faithful, what differs and why: the docstring of its file."""


def _candidates(recommender: Recommender, asked: Asked) -> Sequence[ItemId]:
    return asked.candidates or [one.item_id for one in recommender.recommend(asked.history, 20).items]


def _tree(recommender: Recommender, asked: Asked) -> RecipeAnswer:
    if not asked.fields:
        raise RequestError(
            f"expected the fields of the tree (--fields genres), got none; the catalog has "
            f"{', '.join(recommender.index.catalog.field_names)}"
        )
    answer = llmtreerec.llm_tree_rec(
        recommender, asked.history, tree=llmtreerec.CategoryTree.of(recommender, asked.fields)
    )
    return RecipeAnswer(answer.items[: asked.k], answer.said)


def _chat(recommender: Recommender, asked: Asked) -> RecipeAnswer:
    chat = chatrec.Chat(recommender, asked.history, k=asked.k)
    turns = [chat.turn(text) for text in asked.said or ("Recommend something.",)]
    spoken = tuple(f"{who}: {text}" for who, text in chat.state.dialog)
    items = tuple(item for turn in turns for item in turn.items)
    evidence = tuple(item for turn in turns for item in turn.evidence)
    return RecipeAnswer(items, (Said("dialog", spoken),), turns[-1].text, evidence)


def _brew(recommender: Recommender, asked: Asked) -> RecipeAnswer:
    task = brew360.TASKS["like"]
    past = [(one, "yes") for one in asked.history]
    judged = brew360.brew(recommender, task, past, _candidates(recommender, asked))
    best = sorted(judged, key=lambda one: -one.share_of("yes"))[: asked.k]
    rows = CatalogTalk(recommender).rows([one.item.item_id for one in best])
    return RecipeAnswer(CatalogTalk(recommender).items(rows, [one.share_of("yes") for one in best]))


def _first(answer: RecipeAnswer, k: int) -> RecipeAnswer:
    return RecipeAnswer(answer.items[:k], answer.said, answer.text, answer.evidence)


_HISTORY = "history"
RECIPES: dict[str, Recipe] = {
    one.name: one
    for one in (
        Recipe(
            "gpt4rec",
            "GPT4Rec",
            "2304.03879",
            "generate",
            _HISTORY,
            "queries, items",
            "the mode query",
            lambda r, a: gpt4rec.gpt4_rec(r, a.history, k=a.k),
            gpt4rec.check,
            gpt4rec.__doc__ or "",
        ),
        Recipe(
            "genrec",
            "GenRec",
            "2307.00457",
            "generate",
            _HISTORY,
            "items",
            "the mode title",
            lambda r, a: genrec_titles.gen_rec(r, a.history, k=a.k),
            genrec_titles.check,
            genrec_titles.__doc__ or "",
        ),
        Recipe(
            "llmrank",
            "LLMRank",
            "2305.08845",
            "rank",
            "history, candidates",
            "ranking",
            "",
            lambda r, a: _first(llmrank.llm_rank(r, a.history, _candidates(r, a)), a.k),
            llmrank.check,
            llmrank.__doc__ or "",
        ),
        Recipe(
            "nir",
            "NIR",
            "2304.03153",
            "rank",
            "history, candidates",
            "preferences, pairs, items",
            "",
            lambda r, a: nir_prompts.nir(r, a.history, _candidates(r, a), k=a.k),
            nir_prompts.check,
            nir_prompts.__doc__ or "",
        ),
        Recipe(
            "palr",
            "PALR",
            "2305.07622",
            "rank",
            _HISTORY,
            "profile, items",
            "",
            lambda r, a: profile_palr.palr(r, a.history, k=a.k, candidates=a.candidates or None),
            profile_palr.check,
            profile_palr.__doc__ or "",
        ),
        Recipe(
            "tallrec",
            "TALLRec",
            "2305.00447",
            "rank",
            "liked, targets",
            "share of yes",
            "",
            lambda r, a: _first(tallrec.tall_rec(r, a.history, _candidates(r, a)), a.k),
            tallrec.check,
            tallrec.__doc__ or "",
        ),
        Recipe(
            "brew360",
            "360Brew",
            "2501.16450",
            "rank",
            "task, labelled past, items",
            "share of each label",
            "a model that reads prose",
            _brew,
            brew360.check,
            brew360.__doc__ or "",
        ),
        Recipe(
            "llmtreerec",
            "LLMTreeRec",
            "2404.00702",
            "navigate",
            "history, fields",
            "categories, items",
            "",
            _tree,
            tree_check.check,
            llmtreerec.__doc__ or "",
        ),
        Recipe(
            "chatrec",
            "Chat-REC",
            "2303.14524",
            "converse",
            "history, turns",
            "items, reasons",
            "",
            _chat,
            chat_check.check,
            chatrec.__doc__ or "",
        ),
        Recipe(
            "zero-shot-crs",
            "LLMs as zero-shot CRS",
            "2308.10053",
            "converse",
            "dialog",
            "items",
            "",
            lambda r, a: conversational.zero_shot_crs(r, a.said, k=a.k),
            conversational.check,
            conversational.__doc__ or "",
        ),
        Recipe(
            "gnr",
            "Narratives (GNR)",
            "2403.03424",
            "narrate",
            _HISTORY,
            "a text with cited items",
            "",
            lambda r, a: gnr.narrative(r, a.history, mentions=min(a.k, 5)),
            gnr.check,
            gnr.__doc__ or "",
        ),
    )
}
"""Every recipe by the name the command line knows it by."""


def recipe(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        RequestError: there is none of this name.
    """
    if name not in RECIPES:
        raise RequestError(f"expected a recipe of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]

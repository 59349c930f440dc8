"""Instructions: what a language model is tuned on so that recipes can ask it.

::

    genrec train --base ./Qwen3-0.6B --lora --tasks yes_no --examples 64 …       (TALLRec: K examples)
    genrec train --base ./Qwen3-0.6B --lora --tasks title,recommend,recommend_retrieval …       (PALR)
    genrec train --base ./Qwen3-0.6B --lora --tasks title,brew_like,brew_next,brew_known,brew_kind …   (360Brew)

Every instruction is the prompt of a recipe, by the function that writes it when the recipe asks, with the answer
that a moment of a user's history tells. They stand in ``--tasks`` beside the tasks of :mod:`genrec.tasks` and go
through the same trainer, in prose. Histories hold no ratings, so "no" is an item that was drawn, not one that was
disliked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from genrec.recipes import brew360, llmrank, llmtreerec, profile_palr, tallrec
from genrec.recipes.lessons import Lesson, Lessons, Moment
from index.item_index import ItemIndex

Instruction = Callable[[Lessons, Moment, np.random.Generator], Lesson]
CANDIDATES = 20
SHOTS = 16
"""Most labelled past items in a prompt of 360Brew."""
NEXT = 3
"""Items of the future that a list names."""


def _yes_no(lessons: Lessons, moment: Moment, rng: np.random.Generator) -> Lesson:
    drawn = lessons.others(moment, rng, 1)
    is_liked = bool(rng.integers(2)) or not drawn  # who has chosen everything dislikes nothing
    target = moment.after[0] if is_liked else drawn[0]
    return Lesson(tallrec.question(lessons.text, moment.before, [], target), (tallrec.ANSWERS[not is_liked],))


def brew_lesson(
    name: str, lessons: Lessons, moment: Moment, rng: np.random.Generator, shots: int | None = None
) -> Lesson:
    """A task of 360Brew. Past items have labels: by the item, or "no" for drawn ones among those chosen.

    Args:
        name: of the task, as in :data:`BREW`.
        lessons: about the catalog.
        moment: of a history.
        rng: draws.
        shots: past items at most; drawn from 0 to :data:`SHOTS` where not given.
    """
    of_item, known = BREW[name]
    task = brew360.kind_task(lessons.common_kind) if name == "kind" else brew360.TASKS[name]
    drawn = lessons.others(moment, rng, len(moment.before) // 2 + 1, known=known)

    def label(row: int, is_chosen: bool) -> str:
        return task.labels[not (is_chosen if of_item is None else of_item(lessons, row))]

    chosen = [(row, label(row, True)) for row in moment.before[-2 * len(drawn) :]]
    mixed = [*chosen, *((row, label(row, False)) for row in drawn[1:])]
    past = [mixed[place] for place in rng.permutation(len(mixed))]
    count = int(rng.integers(SHOTS + 1))  # many, few, or none
    is_chosen = bool(rng.integers(2)) or not drawn
    asked = moment.after[0] if is_chosen else drawn[0]
    prompt = brew360.question(lessons.text, task, past[: count if shots is None else shots], asked)
    return Lesson(prompt, (label(asked, is_chosen),))


BREW: Mapping[str, tuple[Callable[[Lessons, int], bool] | None, bool]] = {
    # the label of an item by itself, None: whether it was chosen; whether drawn items are well-known ones
    "like": (None, False),
    "next": (None, True),
    "known": (Lessons.is_known, False),
    "kind": (lambda lessons, row: lessons.common_kind in lessons.text.kinds[row], False),
}
"""The tasks of 360Brew that histories have labels for."""


def _titles(lessons: Lessons, rows: Sequence[int]) -> tuple[str, ...]:
    return tuple(map(lessons.text.title, rows[:NEXT]))


def _recommend(lessons: Lessons, moment: Moment, _: np.random.Generator) -> Lesson:
    prompt = profile_palr.recommend_question(lessons.text, moment.before)
    return Lesson(prompt, _titles(lessons, moment.after))


def _recommend_retrieval(lessons: Lessons, moment: Moment, rng: np.random.Generator) -> Lesson:
    after, rows = moment.after[:NEXT], _candidates(lessons, moment, rng)
    profile = lessons.keywords(moment.before)
    prompt = profile_palr.question(lessons.text, moment.before, profile, rows, len(after))
    return Lesson(prompt, _titles(lessons, after))


def _profile(lessons: Lessons, moment: Moment, _: np.random.Generator) -> Lesson:
    words = ", ".join(lessons.keywords(moment.before)) or lessons.text.title(moment.after[0])
    return Lesson(profile_palr.profile_question(lessons.text, moment.before), (words,))


def _rank(lessons: Lessons, moment: Moment, rng: np.random.Generator) -> Lesson:
    rows = _candidates(lessons, moment, rng)
    prompt = llmrank.question(lessons.text, moment.before, rows, "sequential")
    return Lesson(prompt, _titles(lessons, moment.after))


def _candidates(lessons: Lessons, moment: Moment, rng: np.random.Generator) -> list[int]:
    after = list(moment.after[:NEXT])
    rows = after + lessons.others(moment, rng, CANDIDATES - len(after))
    return [rows[place] for place in rng.permutation(len(rows))]


def _tree(lessons: Lessons, moment: Moment, rng: np.random.Generator) -> Lesson:
    """One step down the tree, towards the next item; the steps before it are in the prompt."""
    text, leaves, target = lessons.text, lessons.tree.leaves, moment.after[0]
    category, leaf = next(
        (c, n) for c, below in leaves.items() for n, rows in below.items() if target in rows
    )
    others = [one for one in lessons.keywords(moment.before, 99) if one in leaves and one != category]
    best = [category, *others][: llmtreerec.BRANCHES]
    interests = ", ".join(lessons.keywords(moment.before))
    prompt = f"{llmtreerec.interests_question(text, moment.before)} {interests}"
    steps = [(llmtreerec.options("Categories", list(leaves)), best)]
    steps.append((llmtreerec.options("Subcategories", [n for c in best for n in leaves[c]]), [leaf]))
    steps.append((llmtreerec.leaf_question(text, leaf, leaves[category][leaf]), [text.title(target)]))
    step = int(rng.integers(len(steps)))
    for asked, answer in steps[:step]:
        prompt += asked + "".join(f"\n{n}. {one}" if n > 1 else f" {one}" for n, one in enumerate(answer, 1))
    return Lesson(prompt + steps[step][0], tuple(steps[step][1]))


INSTRUCTIONS: Mapping[str, Instruction] = {
    "yes_no": _yes_no,
    **{f"brew_{name}": partial(brew_lesson, name) for name in BREW},
    "profile": _profile,
    "recommend": _recommend,
    "recommend_retrieval": _recommend_retrieval,
    "rank": _rank,
    "tree": _tree,
}
"""Every instruction by the name that ``--tasks`` knows it by: of TALLRec, 360Brew, PALR, LLMRank and LLMTreeRec."""


def wordings(index: ItemIndex) -> list[str]:
    """A prompt of every instruction: words that a model from nothing should know, to be taught them later."""
    lessons = Lessons(index, np.zeros(0, np.int64))
    rows = lessons.text.nameable()
    moment = Moment(rows[:2], rows[2:3] or rows[:1])
    rng = np.random.default_rng(0)
    return [write(lessons, moment, rng).prompt for write in INSTRUCTIONS.values()]

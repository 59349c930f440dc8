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

import numpy as np

from genrec.recipes import brew360, llmrank, llmtreerec, profile_palr, tallrec
from genrec.recipes.brew360 import BrewTask
from genrec.recipes.lessons import Lesson, Lessons, Moment
from index.item_index import ItemIndex

Instruction = Callable[[Lessons, Moment, np.random.Generator], Lesson]
CANDIDATES = 20
NEXT = 3
"""Items of the future that a list names."""


def _yes_no(lessons: Lessons, moment: Moment, rng: np.random.Generator) -> Lesson:
    is_liked = bool(rng.integers(2))
    target = moment.after[0] if is_liked else lessons.others(moment, rng, 1)[0]
    return Lesson(tallrec.question(lessons.text, moment.before, [], target), (tallrec.ANSWERS[not is_liked],))


def _brew(task: BrewTask, label: Callable[[Lessons, int], bool] | None, known: bool) -> Instruction:
    """A task of 360Brew. Past items have labels: by the item, or "no" for drawn ones among those chosen."""

    def write(lessons: Lessons, moment: Moment, rng: np.random.Generator) -> Lesson:
        drawn = lessons.others(moment, rng, len(moment.before) // 2 + 1, known=known)
        named = task if "{kind}" not in task.instruction else brew360.kind_task(lessons.common_kind)
        chosen = [(row, True) for row in moment.before[-2 * len(drawn) :]]
        mixed = [*chosen, *((row, False) for row in drawn[1:])]
        mixed = [mixed[place] for place in rng.permutation(len(mixed))]
        mixed = mixed[: int(rng.integers(0, 17))]  # many shots, few, or none
        target = (moment.after[0], True) if rng.integers(2) or not drawn else (drawn[0], False)

        def said(row: int, is_chosen: bool) -> str:
            return named.labels[not (is_chosen if label is None else label(lessons, row))]

        past = [(row, said(row, is_chosen)) for row, is_chosen in mixed]
        return Lesson(brew360.question(lessons.text, named, past, target[0]), (said(*target),))

    return write


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


_BREW = brew360.TASKS
INSTRUCTIONS: Mapping[str, Instruction] = {
    "yes_no": _yes_no,
    "brew_like": _brew(_BREW["like"], None, known=False),
    "brew_next": _brew(_BREW["next"], None, known=True),
    "brew_known": _brew(_BREW["known"], Lessons.is_known, known=False),
    "brew_kind": _brew(
        _BREW["kind"], lambda lessons, row: lessons.common_kind in lessons.kinds[row], known=False
    ),
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

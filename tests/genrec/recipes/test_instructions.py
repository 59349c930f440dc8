"""Instructions: the prompt that a recipe asks with, the answer that a history tells, through the one trainer."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.bundle import load_bundle
from genrec.recipes import BrewTask, brew, palr, tall_rec
from genrec.recipes.instructions import INSTRUCTIONS, NEXT, wordings
from genrec.recipes.lessons import Lesson, Lessons, Moment
from genrec.recipes.planted import films, prose_text
from genrec.recommender import Recommender
from genrec.speech import Speech
from genrec.training.adapters import LoraSettings
from genrec.training.base_model import load_base
from genrec.training.finetune import finetune_bundle
from genrec.training.finetune_settings import FinetuneSettings
from genrec.training.task_examples import ExampleMaker
from index.errors import TrainingError
from index.item_index import ItemIndex
from index.maintenance import remove_items
from tests.genrec.test_task_examples import batches_of, epoch_of
from tests.toy import toy_histories, toy_index

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024,
}  # fmt: skip


@cache
def toys() -> ItemIndex:
    return toy_index()


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return toys()


@cache
def lessons_of(index: ItemIndex) -> Lessons:
    return Lessons(index, toy_histories().items)


def shown_titles(index: ItemIndex, text: str) -> set[str]:
    lines = [line.split(". ", 1)[-1].split(" ->")[0] for line in text.split("\n")]
    return set(index.catalog.titles).intersection(lines)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(INSTRUCTIONS)), st.integers(0, 10_000), st.integers(0, 6))
def test_a_lesson_asks_what_the_recipe_asks_and_its_answer_is_right(
    name: str, seed: int, length: int
) -> None:
    index = toys()
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(index.catalog)).tolist()
    moment = Moment(rows[:length], rows[length : length + 1 + seed % NEXT])
    lesson = INSTRUCTIONS[name](lessons_of(index), moment, rng)
    assert lesson.answers
    assert all(lesson.answers)
    titles = index.catalog.titles
    after = [titles[row] for row in moment.after]
    if name in ("rank", "recommend_retrieval"):  # the right ones are among what is listed
        assert set(after) <= shown_titles(index, lesson.prompt)
    if name in ("rank", "recommend", "recommend_retrieval"):
        assert list(lesson.answers) == after
    if name == "yes_no":
        assert (f"like {after[0]}?" in lesson.prompt) == (lesson.answers == ("Yes",))
    if name == "brew_like":
        asked = lesson.prompt.rpartition("\n")[2].removesuffix(" ->")
        assert (asked == after[0]) == (lesson.answers == ("yes",))
    if name == "brew_known":
        asked = titles.index(lesson.prompt.rpartition("\n")[2].removesuffix(" ->"))
        assert (lesson.answers == ("many",)) == lessons_of(index).is_known(asked)


def test_past_answers_in_a_prompt_are_right_as_well() -> None:
    index = films()
    lessons = Lessons(index, np.arange(60).repeat(3))
    genres = index.catalog.frame["genres"].to_list()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        lesson = INSTRUCTIONS["brew_kind"](lessons, Moment([1, 2, 3, 4], [5]), rng)
        for line in lesson.prompt.split("\n"):
            title, arrow, label = line.partition(" -> ")
            if arrow and label:
                row = index.catalog.titles.index(title)
                assert (label == "Yes") == (lessons.common_kind in genres[row])


def test_a_lesson_in_tokens_is_what_a_session_asks_and_a_list_answers() -> None:
    """The tokens of a list are those that the grammar of numbered lists walks, the terminator behind them."""
    index = films()
    text = prose_text(index)
    maker = ExampleMaker(Speech(index, text.form, text.vocabulary), None, 0)  # type: ignore[arg-type]
    titles = index.catalog.titles[:3]
    example = maker.lesson(Lesson("A question:\n1.", tuple(titles)))
    assert example.prompt == text.vocabulary.prompt("A question:\n1.").tolist()
    said = text.vocabulary.decoded(example.answer)
    assert said == f" {titles[0]}\n2. {titles[1]}\n3. {titles[2]}"
    assert example.answer[-1] == text.vocabulary.end


def test_few_examples_are_the_same_in_every_epoch(index: ItemIndex) -> None:
    """K examples are K, negatives and all, however often they are seen; another seed draws others."""

    def seen(seed: int, epoch: int) -> set[tuple[int, ...]]:
        batches = batches_of(index, mixture={"yes_no": 1.0}, few=12, seed=seed, maker=prose_maker(index))
        return {tuple(row) for batch in epoch_of(batches, epoch) for row in batch["input_ids"].tolist()}

    def ends(found: set[tuple[int, ...]]) -> set[tuple[int, ...]]:
        return {tuple(token for token in row if token) for row in found}

    first = ends(seen(1, 0))
    assert len(first) == 12
    assert ends(seen(1, 1)) == first
    assert ends(seen(2, 0)) != first


def prose_maker(index: ItemIndex) -> ExampleMaker:
    text = prose_text(index, 400)
    return ExampleMaker(Speech(index, text.form, text.vocabulary), None, 0)  # type: ignore[arg-type]


def test_the_prompt_of_a_lesson_is_never_learned(index: ItemIndex) -> None:
    batches = batches_of(index, mixture={"rank": 1.0}, loss_on="all", maker=prose_maker(index))
    batch = batches[0]
    learned = (batch["labels"] != -100).sum(1)
    assert int(learned.max()) <= 40  # three titles and two numbers; the prompt has hundreds
    with pytest.raises(TrainingError, match="instructions of at most 20 tokens"):
        batches_of(index, mixture={"rank": 1.0}, longest=20, maker=prose_maker(index))[0]


def test_a_removed_item_is_no_right_answer(index: ItemIndex) -> None:
    """It stands in histories still; the tree of categories has no place for it."""
    gone = index.catalog.item_ids[::2]
    left = remove_items(index, gone)
    lessons = lessons_of(left)
    batches = batches_of(left, mixture={"tree": 1.0, "rank": 1.0}, maker=prose_maker(left))
    assert len(batches[0]["input_ids"])
    rng = np.random.default_rng(0)
    drawn = lessons.others(Moment([1], [3]), rng, 15)
    assert drawn
    assert all(row % 2 for row in drawn)


def test_a_model_from_nothing_knows_the_words_of_prompts(index: ItemIndex) -> None:
    texts = wordings(index)
    assert len(texts) == len(INSTRUCTIONS)
    assert len(set(texts)) == len(texts)


def config_file(directory: Path) -> str:
    path = directory / "llama.json"
    path.write_text(json.dumps(LLAMA))
    return str(path)


def test_tallrec_few_examples_by_adapters_from_a_bundle(index: ItemIndex, tmp_path: Path) -> None:
    """Two rounds: the second tunes adapters alone on K examples, changes answers, and leaves its base as it is.

    Whether AUC rises with K is for benchmarks/recipe_tuning.py: a model this small does not learn to
    look from its answer back at a title.
    """
    usual: dict[str, Any] = {
        "batch_size": 16,
        "text_size": 500,
        "max_items": 3,
        "validation_users": 4,
        "steps": 20,
    }
    base = tmp_path / "base"
    first = FinetuneSettings(config_file(tmp_path), tasks={"title": 1.0, "brew_kind": 1.0}, **usual)
    finetune_bundle(index, toy_histories(), base, settings=first)
    before = hashes(base)
    tuned = FinetuneSettings(
        str(base), tasks={"yes_no": 1.0}, lora=LoraSettings(4, 8.0), examples=16, learning_rate=1e-2, **usual
    )
    result = finetune_bundle(index, toy_histories(), tmp_path / "tuned", settings=tuned)
    assert result.validation == {}  # nothing is ranked: the last step is what is kept
    assert result.trained < result.parameters / 2
    assert hashes(base) == before
    bundle = load_bundle(tmp_path / "tuned")
    assert bundle.modes == ["title"]
    assert (bundle.artifact.files / "model" / "adapter" / "adapter_model.safetensors").is_file()
    ids = index.catalog.item_ids
    shares = [
        [one.score for one in tall_rec(recommender, ids[:3], ids[5:9]).items]
        for recommender in (Recommender.load(base), Recommender.of_bundle(bundle))
    ]
    assert shares[0] != shares[1]
    assert all(0 < (share or 0) < 1 for some in shares for share in some)


def hashes(path: Path) -> dict[str, str]:
    return {
        str(one.relative_to(path)): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in path.rglob("*")
        if one.is_file()
    }


def test_a_mixture_of_instructions_makes_a_bundle_that_recipes_ask(index: ItemIndex, tmp_path: Path) -> None:
    tasks = {"title": 1.0, **dict.fromkeys(("recommend_retrieval", "brew_like", "brew_kind", "tree"), 1.0)}
    settings = FinetuneSettings(
        config_file(tmp_path), tasks=tasks, steps=4, batch_size=4, validation_users=4, max_items=4
    )
    finetune_bundle(index, toy_histories(), tmp_path / "out", settings=settings)
    recommender = Recommender.load(tmp_path / "out")
    ids = index.catalog.item_ids
    assert set(palr(recommender, ids[:3], candidates=ids[5:12], k=3).ids) <= set(ids[5:12])
    (judged,) = brew(recommender, BrewTask("Is it good?", ("yes", "no")), [], ids[5:6])
    assert sum(share for _, share in judged.shares) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": {"yes": 1.0}}, "expected tasks of semantic_id, .*, yes_no"),
        ({"tasks": {"yes_no": 1.0}, "form": "compact"}, "expected prompts in prose for instructions"),
        ({"tasks": {"title_of_code": 1.0}}, "a task that answers requests or recipes"),
        ({"examples": 0}, "expected examples above 0"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        FinetuneSettings("base", steps=1, **wrong)


def test_a_bundle_without_words_is_no_base(index: ItemIndex, tmp_path: Path) -> None:
    settings = FinetuneSettings(config_file(tmp_path), steps=1, validation_users=4)
    finetune_bundle(index, toy_histories(), tmp_path / "codes", settings=settings)
    with pytest.raises(TrainingError, match="expected a bundle of a language model"):
        load_base(str(tmp_path / "codes"), 0, 0, needs_text=True)

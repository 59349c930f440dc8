"""All recipes alike: the registry, the checks, and that no answer names what is not in the catalog."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import genrec.recipes
from genrec.bundle_text import BundleText
from genrec.decoders.base import Items, Tokens
from genrec.generated_queries import generated_query_mode
from genrec.modes import codes_mode, title_mode
from genrec.recipes import RecipeAnswer
from genrec.recipes.planted import films, prose_text
from genrec.recipes.registry import RECIPES, Asked, recipe
from genrec.recommender import Recommender
from genrec.speech import Speech, SpeechForm
from genrec.tasks import TaskDefaults
from genrec.text_generator import GeneratedText
from index.errors import RequestError
from index.maintenance import remove_items
from tests.fake_decoder import FakeTextDecoder
from tests.toy_text import toy_recommender

IDS = films().catalog.item_ids
TITLES = dict(zip(IDS, films().catalog.titles, strict=True))
REMOVED = IDS[30:34]
INDEX = remove_items(films(), REMOVED)


class RandomWords:
    """A text generator that writes words of the catalog, and others."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def generate(self, prompts, n=1, *, max_tokens=64, temperature=1.0, stop=()):
        words = ["The", "Man", "zzz", "Night", "of", "A Film Nobody Made"]
        return [
            [GeneratedText(words[(self._seed + place) % len(words)]) for place in range(n)] for _ in prompts
        ]


class TextDecoder(FakeTextDecoder):
    """The random model, which reads items as other tokens."""

    def prompt_seed(self, prompt) -> int:
        return hash(tuple(int(v) for one in prompt for v in _numbers(one))) % 2**31


def _numbers(part: Items | Tokens):
    return part.ids if isinstance(part, Tokens) else part.rows


def random_recommender(seed: int, *, prose: bool) -> Recommender:
    """A model that says anything, over a catalog of which some items were removed."""
    if not prose:
        return toy_recommender(INDEX, seed)
    text: BundleText = prose_text(films()).over(INDEX)
    speech = Speech(INDEX, SpeechForm("prose"), text.vocabulary)
    decoder = TextDecoder(text.vocabulary.size, seed)
    return Recommender(
        INDEX,
        modes={
            "semantic_id": codes_mode(
                INDEX, FakeTextDecoder(sum(INDEX.level_sizes), seed), TaskDefaults(beam=5)
            ),
            "title": title_mode(speech, text.titles, decoder, TaskDefaults(beam=5)),
            "query": generated_query_mode(INDEX, RandomWords(seed)),
        },
    )


def assert_in_catalog(answer: RecipeAnswer) -> None:
    for item in (*answer.items, *answer.evidence):
        assert item.title == TITLES[item.item_id]
    assert not {item.item_id for item in answer.items} & set(REMOVED)
    for title, _, item_id in re.findall(r"\[([^\]]*)\](\(([^)]*)\))?", answer.text):
        assert title in TITLES.values()
        assert not item_id or TITLES[item_id] == title


@pytest.mark.parametrize("prose", [False, True])
@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1000))
def test_no_recipe_ever_names_what_is_not_in_the_catalog(name: str, prose: bool, seed: int) -> None:
    if name == "brew360" and not prose:
        pytest.skip("it says that it needs a model that reads prose")
    asked = Asked(
        history=(*IDS[seed % 20 : seed % 20 + 4], "nobody", REMOVED[0]),
        k=3,
        candidates=(*IDS[25:32], "nobody") if recipe(name).capability == "rank" else (),
        said=("User: I loved Alien. No drama!", "why?", "And else?"),
        fields=("kind", "genres"),
    )
    answer = recipe(name).run(random_recommender(seed, prose=prose), asked)
    assert_in_catalog(answer)
    # Queries may find nothing, and a model of random weights may always rather chat than recommend.
    assert answer.items or name in ("gpt4rec", "chatrec")
    if name not in (
        "llmrank",
        "tallrec",
        "brew360",
        "zero-shot-crs",
    ):  # they judge what they are given, or see no history
        assert not set(answer.ids) & set(asked.history)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_passes_its_planted_check(name: str) -> None:
    checks = recipe(name).check()
    assert checks
    for one in checks:
        assert one.passed, f"{one.what}: {one.figure} {one.sense} {one.threshold}"


def test_every_recipe_says_what_is_faithful_and_what_differs() -> None:
    for one in RECIPES.values():
        assert "Faithful:" in one.about
        assert "Different:" in one.about
        assert one.paper in one.about


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(RequestError, match="expected a recipe of gpt4rec, genrec"):
        recipe("soup")


def test_no_recipe_touches_a_logit_or_a_token_or_reads_the_text_of_a_model() -> None:
    shared = {"__init__", "answers", "catalog_talk", "catalog_text", "check", "planted", "registry"}
    folder = Path(genrec.recipes.__file__).parent
    own = [path for path in folder.glob("*.py") if path.stem not in shared]
    assert len(own) >= len(RECIPES)
    for path in own:
        imports = re.findall(r"^\s*(?:from|import) (\S+)", path.read_text("utf-8"), re.MULTILINE)
        assert not [
            one for one in imports if one.startswith(("genrec.decoders", "genrec.kernels", "torch"))
        ], path
        assert "re" not in imports, path
        assert len(path.read_text("utf-8").splitlines()) <= 200, path

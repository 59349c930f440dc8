"""Query mode by any text generator: an endpoint, a model of this process, or a toy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from genrec.generated_queries import generated_query_mode, query_prompt
from genrec.model_generator import ModelGenerator
from genrec.openai_generator import OpenAiGenerator
from genrec.recommender import Recommendation, Recommender
from genrec.search import Diversity
from genrec.tasks import QueryDefaults
from genrec.text_generator import GeneratedText, TextGenerator
from genrec.wishes import Wishes
from index.errors import EndpointError, RequestError
from index.item_index import ItemIndex
from tests.fake_decoder import FakeDecoder
from tests.fake_vocabulary import FakeVocabulary
from tests.genrec.completions_server import Reply, chat_reply, completions_server
from tests.toy import toy_index


class Told:
    """Says what it is told to; keeps what it was asked."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.asked: list[tuple[list[str], int, dict[str, object]]] = []

    def generate(
        self,
        prompts: Sequence[str],
        n: int = 1,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
    ) -> list[list[GeneratedText]]:
        own = {"max_tokens": max_tokens, "temperature": temperature, "stop": list(stop)}
        self.asked.append((list(prompts), n, own))
        return [[GeneratedText(text) for text in self.texts[:n]] for _ in prompts]


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return toy_index()


def asking(index: ItemIndex, generator: TextGenerator, **defaults: object) -> Recommender:
    mode = generated_query_mode(index, generator, QueryDefaults(**defaults))  # type: ignore[arg-type]
    return Recommender(index, modes={"query": mode})


def rows(answer: Recommendation) -> list[int]:
    return [int(item.item_id[1:]) for item in answer.items]


def test_a_prompt_lists_the_titles_of_the_history(index) -> None:
    generator = Told("night")
    asking(index, generator).recommend(["i0", "i9"], queries=7)
    [(prompts, n, own)] = generator.asked
    assert prompts == [query_prompt(["The river comedy", "The garden drama"])]
    assert prompts[0].splitlines()[1:3] == ["- The river comedy", "- The garden drama"]
    assert n == 7
    assert own == {"max_tokens": 32, "temperature": 1.0, "stop": ["\n"]}
    generator.asked.clear()
    asking(index, generator).recommend([])
    assert len(generator.asked[0][0][0].splitlines()) == 1


def test_what_is_written_often_speaks_first(index) -> None:
    generator = Told("river", "Nights", "--", "night", "garden")
    answer = asking(index, generator, queries=5).recommend(["i4"], k=6)
    assert [query.text for query in answer.queries] == ["Nights", "river", "garden"]
    assert [round(float(np.exp(query.score)), 2) for query in answer.queries] == [0.4, 0.2, 0.2]
    assert rows(answer) == [5, 6, 0, 1, 8, 9]
    assert [item.generated for item in answer.items][:3] == ["Nights", "Nights", "river"]


def test_k1_and_b_are_those_asked_for(index) -> None:
    usual = asking(index, Told("night")).recommend([], k=1).items[0].score
    assert asking(index, Told("night"), k1=0.0).recommend([], k=1).items[0].score != pytest.approx(usual)


def test_users_who_want_other_numbers_of_queries_are_asked_apart(index) -> None:
    generator = Told("night", "river")
    wishes = [Wishes(k=2, queries=1), Wishes(k=2, queries=2), Wishes(k=2, queries=1)]
    answers = asking(index, generator).recommend_batch([["i0"], ["i1"], ["i2"]], wishes)
    assert [len(one.queries) for one in answers] == [1, 2, 1]
    assert sorted((n, len(prompts)) for prompts, n, _ in generator.asked) == [(1, 2), (2, 1)]


@pytest.mark.parametrize("wish", [{"constraint": "catalog_ngrams"}, {"diversity": Diversity(2)}])
def test_what_an_endpoint_cannot_do_is_refused(index, wish: dict[str, object]) -> None:
    with pytest.raises(RequestError, match="expected free queries of a text generator"):
        asking(index, Told("night")).recommend(["i0"], **wish)  # type: ignore[arg-type]


def test_an_endpoint_writes_the_queries(index) -> None:
    pytest.importorskip("openai", reason="the extra openai is not installed")
    with completions_server() as server:
        server.answer = lambda seen, number: chat_reply("night drama", "river")
        with OpenAiGenerator("toy", base_url=server.base_url, api_key="local") as generator:
            recommender = asking(index, generator, queries=2)
            answer = recommender.recommend(["i0"], k=4)
            assert rows(answer) == [5, *rows(answer)[1:]]
            assert {item.generated for item in answer.items} == {"night drama", "river"}
            server.answer = lambda seen, number: Reply({"error": {"message": "who are you"}}, 401)
            with pytest.raises(EndpointError, match="401: who are you"):
                recommender.recommend(["i0"])


# --- a model of this process ----------------------------------------------------------------------------


@pytest.fixture
def model() -> ModelGenerator:
    vocabulary = FakeVocabulary()
    return ModelGenerator(FakeDecoder(vocabulary.size, spread=3.0), vocabulary, seed=5)


def test_a_model_is_a_generator(model) -> None:
    assert isinstance(model, TextGenerator)
    answers = model.generate(["a lamp", "a shoe"], 4, max_tokens=6)
    assert [len(each) for each in answers] == [4, 4]
    for each in answers:
        scores = [one.score for one in each]
        assert scores == sorted(scores, reverse=True)
    assert answers == model.generate(["a lamp", "a shoe"], 4, max_tokens=6)
    assert answers[0] == model.generate(["a lamp"], 4, max_tokens=6)[0]
    assert answers[0] != answers[1]


def test_without_temperature_the_best_texts_come(model) -> None:
    [best] = model.generate(["a lamp"], 3, max_tokens=6, temperature=0)
    [drawn] = model.generate(["a lamp"], 8, max_tokens=6)
    assert len({one.text for one in best}) == len(best) <= 3
    assert max(one.score for one in drawn) <= best[0].score + 1e-6


def test_a_text_ends_before_a_stop(model) -> None:
    plain = [one for each in model.generate(["x"], 30, max_tokens=12) for one in each]
    cut = [one for each in model.generate(["x"], 30, max_tokens=12, stop=["a", "e"]) for one in each]
    for before, after in zip(plain, cut, strict=True):
        place = min((at for at in (before.text.find("a"), before.text.find("e")) if at >= 0), default=None)
        assert after.text == before.text[:place].strip()
        assert after.finish == ("stop" if place is not None else before.finish)
    assert {one.finish for one in plain} == {"stop", "length"}


def test_what_makes_no_sense_is_refused(model) -> None:
    with pytest.raises(RequestError, match="n >= 1"):
        model.generate(["x"], 0)

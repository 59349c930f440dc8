"""Grammars against all that they can say, and under models that would rather say something else."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoders.base import Prompt, Tokens
from genrec.grammars import Choice, Distinct, Grammar, Schema, Text, Titles
from genrec.text_search import Beams, Samples, Written, write
from genrec.vocabulary import TextVocabulary
from index.errors import RequestError
from index.item_filter import Allowed
from index.trie import build_trie
from tests.fake_decoder import FakeTextDecoder
from tests.fake_vocabulary import FakeVocabulary
from tests.reference import score_all

ABC = FakeVocabulary("abc,:;=12", pieces=["ab", ",b"])
PROMPT: Prompt = (Tokens(np.array([1, 2])),)
TITLES = ["a", "ab", "abc", "ac", "a,b", "c", "a", "", "cab"]
"""Rows 0 and 6 share a title, row 7 has none, and one goes on with the comma that ends another in a list."""
TRIE = build_trie(ABC.answers(TITLES))


def model(seed: int = 0) -> FakeTextDecoder:
    return FakeTextDecoder(ABC.size, seed)


def written(
    grammar: Grammar, method: Beams | Samples, most: int = 40, seed: int = 0, **how: str
) -> list[Written]:
    (found,) = write(model(seed), ABC, [PROMPT], grammar, method, max_tokens=most, **how)  # type: ignore[arg-type]
    return found


def over_vocabulary(ids: Sequence[int], given: set[int], seed: int = 0) -> float:
    """The score of a text, given tokens (by place) left out, by definition."""
    decoder, total = model(seed), 0.0
    for place, token in enumerate(ids):
        logits = decoder.logits_after(decoder.prompt_seed(PROMPT), tuple(ids[:place])).astype(np.float64)
        total += 0.0 if place in given else logits[token] - np.log(np.exp(logits).sum())
    return total


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
class TestClosedSets:
    def test_a_choice_is_scored_like_a_catalog(self, normalize: str) -> None:
        options = ["a", "ab", "abc", "c", "cab"]
        found = written(Choice(options), Beams(8), normalize=normalize)
        expected = score_all(model(), model().prompt_seed(PROMPT), ABC.answers(options), normalize)
        assert {one.value for one in found} == set(options)
        for one in found:
            assert one.score == pytest.approx(expected[options.index(one.value)], abs=1e-5)
            assert sum(one.log_probabilities) == pytest.approx(one.score, abs=1e-9)

    def test_titles_name_rows_and_a_filter_masks_without_changing_a_score(self, normalize: str) -> None:
        expected = score_all(model(), model().prompt_seed(PROMPT), ABC.answers(TITLES), normalize)
        for rows in ([0, 1, 2, 3, 4, 5, 6, 8], [1, 4, 6], [3]):
            found = written(Titles.of(TRIE, rows), Beams(16), normalize=normalize)
            assert sorted(row for one in found for row in one.value) == rows
            for one in found:
                shared = np.log(2) if set(one.value) & {0, 6} else 0.0  # of rows: a path has all of it
                assert one.score == pytest.approx(expected[one.value[0]] + shared, abs=1e-5)
                assert ABC.decoded(one.ids.tolist()) == TITLES[one.value[0]]

    def test_codes_without_a_terminator(self, normalize: str) -> None:
        codes = [[1, 2, 3], [1, 2, 4], [5, 5, 5], [5, 1, 1]]
        found = written(Titles(build_trie(np.array(codes))), Beams(4), normalize=normalize)
        expected = score_all(model(), model().prompt_seed(PROMPT), codes, normalize)
        assert [one.value for one in found] == [(int(row),) for row in np.argsort(-expected)]
        np.testing.assert_allclose([one.score for one in found], -np.sort(-expected), atol=1e-5)


class TestDistinct:
    def test_all_rankings_are_found_each_with_its_score(self) -> None:
        options = ["a", "ab", "c"]
        found = written(Distinct(Choice(options), separator="=;"), Beams(64), normalize="vocabulary")
        rankings = list(itertools.permutations(options))
        assert sorted(tuple(one.value) for one in found) == sorted(rankings)
        for one in found:
            ids: list[int] = []
            given = set()
            for number, option in enumerate(one.value):
                ids += [*ABC.literal(option), *(ABC.literal("=;") if number < 2 else [ABC.end])]
                given |= {len(ids) - 1} if number < 2 else set()  # the second token of a separator
            assert one.ids.tolist() == ids
            assert one.score == pytest.approx(over_vocabulary(ids, given), abs=1e-4)

    @settings(max_examples=20, deadline=None)
    @given(
        seed=st.integers(0, 1000),
        rows=st.sets(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8]), min_size=1),
        data=st.data(),
    )
    def test_never_repeats_and_stays_within_the_filter_and_the_budget(
        self, seed: int, rows: set[int], data: st.DataObject
    ) -> None:
        paths = len({TITLES[row] for row in rows})
        count = data.draw(st.integers(1, paths))
        lengths = sorted(len(ABC.answers([title])[0]) for title in {TITLES[row] for row in rows})
        least = sum(lengths[:count])  # a separator is one token, as the terminator is
        grammar = Distinct(Titles.of(TRIE, rows), count)
        for most in (least, least + 1, 40):
            for one in written(grammar, Samples(5, seed), most, seed):
                named = [row for value in one.value for row in value]
                assert len(one.value) == count
                assert len(set(named)) == len(named)
                assert set(named) <= rows
                assert len(one.ids) <= most
        with pytest.raises(RequestError, match=f"at least {least}, what the shortest text"):
            written(grammar, Beams(), least - 1)

    def test_a_title_that_goes_on_with_the_separator_is_told_from_one_that_ends(self) -> None:
        """ "a" and then "b…" begins as "a,b" does: both are reached, though the tokens are the same."""
        grammar = Distinct(Choice(["a", "a,b", "bc"]), 2, separator=",")
        found = {tuple(one.value) for one in written(grammar, Beams(64))}
        assert found == set(itertools.permutations(["a", "a,b", "bc"], 2))

    def test_numbers(self) -> None:
        (one,) = written(Distinct(Choice(["a", "b"]), separator=";{number}:"), Beams())
        assert ABC.decoded(one.ids.tolist()) in ("a;2:b", "b;2:a")


class TestSchema:
    FORM = Schema(
        "a:{kind};b={text},{order}",
        kind=Choice(["a", "ab"]),
        text=Text(),
        order=Distinct(Choice("abc"), 2, ";"),
    )

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 1000), most=st.integers(11, 40))
    def test_always_parses(self, seed: int, most: int) -> None:
        for one in written(self.FORM, Samples(5, seed, temperature=2.0), most, seed):
            value = one.value
            assert list(value) == ["kind", "text", "order"]
            said = f"a:{value['kind']};b={value['text']},{';'.join(value['order'])}"
            assert ABC.decoded(one.ids.tolist()) == said
            assert len(one.ids) <= most
            assert "," not in value["text"]
            assert value["kind"] in ("a", "ab")
            assert len(set(value["order"])) == 2

    def test_finds_all_ways_to_fill_it_in(self) -> None:
        form = Schema("{one}:{two};", one=Choice(["a", "b"]), two=Choice(["b", "c", "ca"]))
        found = written(form, Beams(32), normalize="vocabulary")
        values = [(one, two) for one in ("a", "b") for two in ("b", "c", "ca")]
        assert sorted((one.value["one"], one.value["two"]) for one in found) == values
        for one in found:
            ids = one.ids.tolist()
            assert one.score == pytest.approx(over_vocabulary(ids, {len(ids) - 1}), abs=1e-4)

    def test_free_text_at_its_end_may_be_cut(self) -> None:
        (one,) = written(Schema("a={text}", text=Text()), Samples(1, seed=3), 6)
        assert ABC.decoded(one.ids.tolist()) == "a=" + one.value["text"]

    def test_stands_within_a_schema(self) -> None:
        inner = Schema("a={x}", x=Choice("ab"))
        (one,) = written(Schema("{first};{second}", first=inner, second=inner), Samples(1))
        assert set(one.value["first"]) == set(one.value["second"]) == {"x"}

    def test_a_space_in_front_of_a_field_is_written_once(self) -> None:
        """Answers of a real vocabulary bring their own; a template read as prose wrote "Mood:  calm"."""
        vocabulary = TextVocabulary.train(["calm river", "wild night"], 280)
        form = Schema("Mood: {mood}; time: {time}", mood=Choice(["calm", "wild"]), time=Choice(["night"]))
        (found,) = write(FakeTextDecoder(vocabulary.size), vocabulary, [PROMPT], form, max_tokens=60)
        text = vocabulary.decoded(found[0].ids.tolist())
        assert text == f"Mood: {found[0].value['mood']}; time: night"
        with pytest.raises(RequestError, match="more than spaces between any two fields"):
            Schema("{a} {b}", a=Choice(["x"]), b=Choice(["y"])).compile(vocabulary)

    def test_braces(self) -> None:
        vocabulary = FakeVocabulary("ab{}")
        (found,) = write(
            FakeTextDecoder(vocabulary.size),
            vocabulary,
            [PROMPT],
            Schema("{{{x}}}", x=Choice("ab")),
            max_tokens=9,
        )
        assert vocabulary.decoded(found[0].ids.tolist()) == "{" + found[0].value["x"] + "}"


def test_requests_of_a_batch_have_grammars_of_their_own() -> None:
    grammars: list[Grammar] = [Choice(["a", "cab"]), Text(), Distinct(Titles(TRIE), 3), TestSchema.FORM]
    prompts: list[Prompt] = [(Tokens(np.array([number + 1])),) for number in range(4)]
    method = Beams(4)
    together = write(model(), ABC, prompts, grammars, method, max_tokens=20, normalize="vocabulary")
    for prompt, grammar, found in zip(prompts, grammars, together, strict=True):
        (alone,) = write(model(), ABC, [prompt], grammar, method, max_tokens=20, normalize="vocabulary")
        assert [one.value for one in found] == [one.value for one in alone]
        np.testing.assert_allclose([one.score for one in found], [one.score for one in alone], atol=1e-9)


def test_what_has_no_alternative_asks_nothing_of_the_model() -> None:
    decoder = model()
    (found,) = write(decoder, ABC, [PROMPT], Schema("abc:{x};abc", x=Choice(["abcabc"])), max_tokens=40)
    assert decoder.calls == 1
    assert found[0].score == 0.0


class TestRefuses:
    @pytest.mark.parametrize("options", [[], [""], ["a", " "]])
    def test_choices_of_nothing(self, options: list[str]) -> None:
        with pytest.raises(RequestError, match="expected at least one option"):
            Choice(options)

    def test_choices_that_are_alike(self) -> None:
        with pytest.raises(RequestError, match="can tell apart"):
            written(Choice(["a", "a"]), Beams())

    @pytest.mark.parametrize("count", [0, 4])
    def test_more_than_there_are(self, count: int) -> None:
        with pytest.raises(RequestError, match=r"count of 1 \.\. 3"):
            written(Distinct(Choice("abc"), count), Beams())

    def test_lists_without_a_separator(self) -> None:
        with pytest.raises(RequestError, match="expected a separator"):
            written(Distinct(Choice("abc"), separator=""), Beams())

    @pytest.mark.parametrize("row", [-1, len(TITLES)])
    def test_titles_of_what_is_no_item(self, row: int) -> None:
        """A catalog says -1 of an id that it does not have; as a place in an array that is the last item."""
        with pytest.raises(RequestError, match=r"rows in 0 \.\. 8, got"):
            Titles.of(TRIE, [0, row])

    def test_titles_of_nothing(self) -> None:
        with pytest.raises(RequestError, match="widen the filter"):
            written(Titles.of(TRIE, [7]), Beams())  # the untitled one

    def test_tries_of_two_kinds(self) -> None:
        with pytest.raises(RequestError, match="all paths of a trie to end in the terminator"):
            written(Titles(build_trie([[1, 0], [2, 3]]), Allowed()), Beams())

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("{a}{b}", "text between any two"),
            ("{a!r:>5};{b}", r"fields without a format, such as \{a\}"),
            ("{a};{b:>5}", r"such as \{b\}"),
            ("{a}", "each of the fields"),
            ("a", "each of"),
        ],
    )
    def test_templates(self, template: str, message: str) -> None:
        with pytest.raises(RequestError, match=message):
            Schema(template, a=Text(), b=Text())

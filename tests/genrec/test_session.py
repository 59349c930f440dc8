"""Conversations on one KV: the same as prompts written out in full, whoever else is asked meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoders.base import Prompt, Tokens
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.grammars import Choice, Distinct, Grammar, Schema, Text, Titles
from genrec.scoring import score
from genrec.session import Session, pick_all, propose_all, score_all
from genrec.text_search import Beams, Samples, write
from index.errors import DecoderError, RequestError
from index.trie import build_trie
from tests.fake_decoder import FakeTextDecoder
from tests.fake_vocabulary import FakeVocabulary
from tests.genrec import tiny_models

WORDS = FakeVocabulary("abcdefghij ,:;\n?.")
GENRES = ["ace", "bad", "cafe", "bad ice"]
TRIE = build_trie(WORDS.answers(["abc", "abd", "dig", "hi"]))


@pytest.fixture(scope="module")
def decoder() -> TorchDecoder:
    return TorchDecoder(tiny_models.gpt2())


def prompt(text: str) -> Prompt:
    return (Tokens(WORDS.prompt(text)),)


def fake() -> FakeTextDecoder:
    return FakeTextDecoder(WORDS.size)


def test_a_conversation_is_its_text_written_out(decoder: TorchDecoder) -> None:
    session = Session(decoder, WORDS).say("a fad:").say(" ")
    text = "a fad:"
    for number, grammar in enumerate(
        [Choice(GENRES), Distinct(Choice(GENRES), 2, ";"), Titles(TRIE), Text()]
    ):
        method = (Beams(3), None, Samples(1, seed=4), Beams(2, length_penalty=1.0))[number]
        answer = session.pick(grammar, method, max_tokens=12, normalize="vocabulary")
        (expected,) = write(
            decoder, WORDS, [prompt(text)], grammar, method, max_tokens=12, normalize="vocabulary"
        )
        assert answer.ids.tolist() == expected[0].ids.tolist()
        assert answer.value == expected[0].value
        np.testing.assert_allclose(answer.log_probabilities, expected[0].log_probabilities, atol=1e-4)
        text += WORDS.decoded(answer.ids.tolist()) + "\nbe?"
        session.say("\nbe?")
    texts = ["ace", "acid"]
    (expected_scores,) = score(decoder, WORDS, [prompt(text)], texts, null=prompt("a"))
    scores = session.score(texts, null=prompt("a"))
    np.testing.assert_allclose(scores.sum, expected_scores.sum, atol=1e-4)
    np.testing.assert_allclose(scores.pmi, expected_scores.pmi, atol=1e-4)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_fork_leaves_its_parent_as_it_was(seed: int) -> None:
    method = Samples(3, seed)

    def end(session: Session) -> list[list[int]]:
        return [one.ids.tolist() for one in session.say("\nj:").propose(Text(), method, max_tokens=20)]

    decoder = FakeTextDecoder(WORDS.size, seed)
    alone = Session(decoder, WORDS).say("abc")
    alone.pick(Choice(GENRES))
    expected = end(alone)
    parent = Session(decoder, WORDS).say("abc")
    parent.pick(Choice(GENRES))
    first, second = parent.fork(), parent.fork()
    first.say("bad").free(9, method)
    second.say("d").pick(Distinct(Choice(GENRES)))
    nested = second.fork().say("ace")
    nested.score(GENRES)
    nested.free(4)
    assert end(parent) == expected
    assert end(parent.fork().say("")) != expected  # the end has been said once already
    again = Session(decoder, WORDS).say("abc")
    again.pick(Choice(GENRES))
    assert end(again.fork()) == expected


def test_proposing_and_scoring_say_nothing() -> None:
    decoder = fake()
    session, quiet = (Session(decoder, WORDS).say("a fad:") for _ in range(2))
    session.propose(Text(), Beams(6), max_tokens=30)
    session.score(GENRES)
    session.propose(Distinct(Choice(GENRES)), Samples(5))
    assert session.free(20) == quiet.free(20)
    assert session.propose(Text())[0].ids.tolist() == quiet.propose(Text())[0].ids.tolist()


def test_white_space_waits_for_what_follows(decoder: TorchDecoder) -> None:
    def end(session: Session) -> list[list[int]]:
        return [one.ids.tolist() for one in session.propose(Text(), Beams(3), max_tokens=6)]

    expected = end(Session(decoder, WORDS).say("a fad:\nbe"))
    asked = Session(decoder, WORDS).say("a fad:\n")
    asked.score(GENRES)
    assert end(asked.fork().say("be")) == end(asked.say("be")) == expected
    answered, plain = (Session(decoder, WORDS).say("a fad:") for _ in range(2))
    answered.score(GENRES)
    for session in (answered.say("\n"), plain):  # an answer brings its own: nothing waits until behind it
        session.pick(Choice(["ace"]))
    assert end(answered.say("be")) == end(plain.say("be"))


def test_nothing_said_is_run_twice_but_the_answers() -> None:
    decoder = fake()
    session = Session(decoder, WORDS).say("a big bad idea")
    session.pick(Choice(["ace"]))
    assert (decoder.calls, decoder.tokens_fed) == (1, 0)  # one prompt; a choice of one asks nothing
    session.say(" be").pick(Choice(["ace"]))
    assert (decoder.calls, decoder.tokens_fed) == (2, 6)  # "ace be"
    for fork in [session.fork() for _ in range(3)]:
        fork.pick(Choice(["bad"]))
    assert decoder.calls == 3  # the second answer, before the first fork
    assert decoder.tokens_fed == 9


def test_a_batch_of_sessions_is_each_of_them_alone() -> None:
    decoder = fake()
    grammars: list[Grammar] = [Choice(GENRES), Text(), Distinct(Titles(TRIE), 2)]

    def sessions() -> list[Session]:
        made = [
            Session(decoder, WORDS).say("ab"),
            Session(decoder, WORDS, prompt("cd")),
            Session(decoder, WORDS),
        ]
        made[2].say("jig").pick(Choice(GENRES))  # it has begun before the others
        made[2].say(";")
        return made

    together = sessions()
    picked = pick_all(together, grammars, Beams(3), max_tokens=15)
    alone = [one.pick(own, Beams(3), max_tokens=15) for one, own in zip(sessions(), grammars, strict=True)]
    assert [one.ids.tolist() for one in picked] == [one.ids.tolist() for one in alone]
    scores = score_all(together, GENRES, null=prompt("a"))
    proposed = propose_all(together, Text(), Samples(2), max_tokens=9)
    for place, one in enumerate(sessions()):
        one.pick(grammars[place], Beams(3), max_tokens=15)
        np.testing.assert_allclose(one.score(GENRES).sum, scores[place].sum, atol=1e-9)
        again = one.propose(Text(), Samples(2), max_tokens=9)
        assert [text.ids.tolist() for text in again] == [text.ids.tolist() for text in proposed[place]]
    assert pick_all([], Text()) == propose_all([], Text()) == score_all([], GENRES) == []


class TestRoom:
    def test_answers_fit_into_what_the_model_has_left(self) -> None:
        session = Session(TorchDecoder(tiny_models.gpt2(n_positions=24)), WORDS).say("abc")
        form = Schema("{genre}:{text};", genre=Choice(GENRES), text=Text())
        answer = session.pick(form, max_tokens=500)
        assert len(answer.ids) <= 24 - 3
        assert answer.value["genre"] in GENRES

    def test_a_conversation_without_room_says_so(self) -> None:
        decoder = TorchDecoder(tiny_models.gpt2(n_positions=8))
        session = Session(decoder, WORDS).say("abcdef")
        with pytest.raises(RequestError, match="expected room for the 4 tokens"):
            session.pick(Choice(["abc", "abd"]))
        session.say("ab")
        with pytest.raises(
            RequestError, match="got a conversation of 8 of the model's 8 positions; say less"
        ):
            session.free(3)
        with pytest.raises(DecoderError, match="at most 8 tokens"):
            session.say("bad").free(3)

    def test_a_failed_pick_leaves_the_conversation_as_it_was(self) -> None:
        decoder = fake()
        session, untouched = (Session(decoder, WORDS).say("abc") for _ in range(2))
        with pytest.raises(RequestError):
            session.pick(Distinct(Choice(GENRES), 9))
        assert session.free(9) == untouched.free(9)


class TestRefuses:
    def test_one_session_twice(self) -> None:
        session = Session(fake(), WORDS).say("a")
        with pytest.raises(RequestError, match="fork a session to go on in two ways"):
            pick_all([session, session], Text())

    def test_sessions_of_two_models(self) -> None:
        with pytest.raises(RequestError, match="different sessions of one decoder"):
            pick_all([Session(fake(), WORDS).say("a"), Session(fake(), WORDS).say("a")], Text())

    def test_grammars_that_are_not_one_each(self) -> None:
        with pytest.raises(RequestError, match="each of 1 sessions, got 2"):
            pick_all([Session(fake(), WORDS).say("a")], [Text(), Text()])


def test_a_fork_of_nothing_is_a_beginning() -> None:
    session = Session(fake(), WORDS).fork().say("ab")
    assert session.free(5) == Session(fake(), WORDS).say("ab").free(5)


def test_white_space_alone_says_nothing() -> None:
    """The model was asked behind a prompt of no tokens, whose next token nobody could name."""
    session = Session(fake(), WORDS).say("  \n")
    with pytest.raises(RequestError, match="expected something said before the model is asked"):
        session.pick(Choice(GENRES))
    fork = session.fork()  # nothing was said, so nothing is asked
    assert fork.say("ab").pick(Choice(GENRES)).value in GENRES

"""Session: a conversation with a model, in which what the model says is held to a grammar.

::

    session = Session(decoder, vocabulary).say("A reader liked Dune and Alien. Genres, best first:")
    genres = session.pick(Distinct(Choice(GENRES), 3)).value
    for genre in genres:
        item = session.fork().say(f"\\nBest {genre}:").pick(Titles(trie, allowed[genre])).value
    reason = session.say("\\nWhy:").free(40)

Everything said stands on one KV. A pick goes on where the last one ended, a fork begins with what was said so far and
goes its own way, and what a search tried on the way is forgotten: the answer alone is run once more, together with
what is said next. Several sessions of one decoder can be asked together (:func:`pick_all`). Nothing here is a
logit or a token: recipes stand on this file, :mod:`genrec.grammars` and :mod:`genrec.scoring`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.decoders.base import PROMPT_SLOT, Decoder, Hidden, Prompt, ReusesPrompts, State, Tokens
from genrec.grammars.base import Grammar, Vocabulary
from genrec.grammars.text import Text
from genrec.scoring import Scores, continuation_tokens, null_scores, score_on
from genrec.search_batch import Normalize
from genrec.text_batch import Stand
from genrec.text_search import Beams, Samples, Written, write_on
from index.errors import RequestError

ANSWER_TOKENS = 64
"""Most tokens of an answer, where the caller does not say."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What the decoder has been told."""

    state: State
    hidden: Hidden  # [H] behind the last token
    slot: int  # of the last token
    length: int | None  # positions taken; None where the decoder does not say


class Session:
    """One conversation.

    Args:
        decoder: the model; its token ids are the vocabulary's.
        vocabulary: what it speaks.
        prompt: what the conversation begins with, in tokens or items; none where it begins with what is said.
    """

    def __init__(self, decoder: Decoder, vocabulary: Vocabulary, prompt: Prompt = ()) -> None:
        self._decoder = decoder
        self._vocabulary = vocabulary
        self._prompt = prompt
        self._held: _Held | None = None
        # What the decoder has not been told yet: tokens, and text behind them. White space at its end waits for more
        # text; an answer brings its own.
        self._unsaid = ""
        self._tokens: list[int] = []

    def say(self, text: str) -> Session:
        """Lay text behind the conversation, as it stands; white space at its end is left to what follows.

        Returns:
            The session itself.
        """
        self._unsaid += text
        return self

    def pick(
        self,
        grammar: Grammar,
        method: Beams | Samples | None = None,
        *,
        max_tokens: int = ANSWER_TOKENS,
        normalize: Normalize = "catalog",
    ) -> Written:
        """Let the model answer within a grammar; the best answer joins the conversation.

        Args:
            grammar: what it may say.
            method: how the answer is found; None takes the most probable step each time.
            max_tokens: most tokens of the answer; fewer where the model has no room for so many.
            normalize: see :func:`genrec.text_search.write`.

        Raises:
            RequestError: a grammar that contradicts itself, or does not fit into the budget or what is left of the
                model's positions.
            DecoderError: the conversation is longer than the model can read.
        """
        (answer,) = pick_all([self], grammar, method, max_tokens=max_tokens, normalize=normalize)
        return answer

    def free(self, max_tokens: int = ANSWER_TOKENS, method: Beams | Samples | None = None) -> str:
        """Let the model say what it likes, on one line; it joins the conversation."""
        return str(self.pick(Text(without="\n"), method, max_tokens=max_tokens).value)

    def propose(
        self,
        grammar: Grammar,
        method: Beams | Samples | None = None,
        *,
        max_tokens: int = ANSWER_TOKENS,
        normalize: Normalize = "catalog",
    ) -> list[Written]:
        """As :meth:`pick`, but all answers that were found, and none joins the conversation."""
        (answers,) = propose_all([self], grammar, method, max_tokens=max_tokens, normalize=normalize)
        return answers

    def score(
        self, continuations: Sequence[str], *, null: Prompt | None = None, ended: bool = True
    ) -> Scores:
        """How probable texts would be here; nothing joins the conversation. See :func:`genrec.scoring.score`."""
        (scores,) = score_all([self], continuations, null=null, ended=ended)
        return scores

    def fork(self) -> Session:
        """A second conversation that begins like this one; neither notices what the other says."""
        twin = Session(self._decoder, self._vocabulary, self._prompt)
        if self._prompt or self._unsaid.strip() or self._held is not None:
            _tell([self])
            held = self._stand()
            twin._held = _Held(held.state.fork(), held.hidden, held.slot, held.length)
        twin._unsaid = self._unsaid
        return twin

    def _stand(self) -> _Held:
        assert self._held is not None
        return self._held

    def _add(self, answer: Written) -> None:
        """Lay an answer behind the conversation, without the terminator."""
        ids = answer.ids.tolist()
        self._tokens += ids[:-1] if ids and ids[-1] == self._vocabulary.end else ids
        self._unsaid = ""

    def _was_told(self, held: _Held) -> None:
        """The decoder has been told everything but the white space at the end."""
        self._held, self._tokens = held, []
        self._unsaid = self._unsaid[len(self._unsaid.rstrip()) :]

    def _opening(self) -> Prompt:
        """The prompt, with what was said so far."""
        text = self._unsaid.rstrip()
        if not self._prompt:
            ids = self._vocabulary.prompt(text)
            if not len(ids):
                raise RequestError(
                    "expected something said before the model is asked, got nothing but white space; say what it "
                    "goes on from"
                )
            return (Tokens(ids),)
        behind = self._vocabulary.literal(text) if text else []
        return (*self._prompt, Tokens(np.array(behind, np.int64))) if behind else self._prompt

    def _news(self) -> list[int]:
        """Tokens that the decoder has not been told yet."""
        text = self._unsaid.rstrip()
        return [*self._tokens, *(self._vocabulary.literal(text) if text else [])]


def pick_all(
    sessions: Sequence[Session],
    grammar: Grammar | Sequence[Grammar],
    method: Beams | Samples | None = None,
    *,
    max_tokens: int = ANSWER_TOKENS,
    normalize: Normalize = "catalog",
) -> list[Written]:
    """:meth:`Session.pick` for many sessions of one decoder together; one grammar for all, or one each."""
    proposed = propose_all(sessions, grammar, method, max_tokens=max_tokens, normalize=normalize)
    answers = [found[0] for found in proposed]
    for session, answer in zip(sessions, answers, strict=True):
        session._add(answer)
    return answers


def propose_all(
    sessions: Sequence[Session],
    grammar: Grammar | Sequence[Grammar],
    method: Beams | Samples | None = None,
    *,
    max_tokens: int = ANSWER_TOKENS,
    normalize: Normalize = "catalog",
) -> list[list[Written]]:
    """:meth:`Session.propose` for many sessions of one decoder together; one grammar for all, or one each."""
    grammars = list(grammar) if isinstance(grammar, Sequence) else [grammar] * len(sessions)
    if len(grammars) != len(sessions):
        raise RequestError(
            f"expected one grammar, or one for each of {len(sessions)} sessions, got {len(grammars)}"
        )
    if not sessions:
        return []
    _tell(sessions)
    held = [session._stand() for session in sessions]
    base = [one.state.slots for one in held]
    vocabulary, decoder = sessions[0]._vocabulary, sessions[0]._decoder
    compiled = {id(one): one.compile(vocabulary) for one in grammars}
    automata = [compiled[id(one)] for one in grammars]
    room = [_room(decoder, one, automaton.needs) for one, automaton in zip(held, automata, strict=True)]
    try:
        return write_on(
            decoder,
            vocabulary.size,
            [Stand(one.state, one.hidden, one.slot) for one in held],
            automata,
            method,
            max_tokens=[min(max_tokens, most) for most in room],
            normalize=normalize,
        )
    finally:
        for one, slots in zip(held, base, strict=True):
            if one.state.slots > slots:
                one.state.compact(np.arange(slots))


def score_all(
    sessions: Sequence[Session],
    continuations: Sequence[str],
    *,
    null: Prompt | None = None,
    ended: bool = True,
) -> list[Scores]:
    """:meth:`Session.score` for many sessions of one decoder together."""
    if not sessions:
        return []
    decoder = sessions[0]._decoder
    tokens = continuation_tokens(sessions[0]._vocabulary, continuations, ended)
    _tell(sessions)
    held = [session._stand() for session in sessions]
    stands = [Stand(one.state, one.hidden, one.slot) for one in held]
    scored = score_on(decoder, stands, [tokens] * len(sessions))
    behind_null = None if null is None else tuple(null_scores(decoder, null, [tokens])[0])
    return [Scores(tuple(one), behind_null) for one in scored]


def _tell(sessions: Sequence[Session]) -> None:
    """Tell the decoder what was said in sessions since it was last asked: all of them in one call, or in two."""
    decoder = sessions[0]._decoder
    if any(session._decoder is not decoder for session in sessions) or len(set(map(id, sessions))) < len(
        sessions
    ):
        raise RequestError("expected different sessions of one decoder; fork a session to go on in two ways")
    new = [session for session in sessions if session._held is None]
    if new:
        prompts = [session._opening() for session in new]
        prefilled = decoder.prefill(prompts)
        keys = decoder if isinstance(decoder, ReusesPrompts) else None
        for session, prompt, state, hidden in zip(
            new, prompts, prefilled.states, prefilled.hidden, strict=True
        ):
            length = None if keys is None else len(keys.prompt_key(prompt))
            session._was_told(_Held(state, hidden, PROMPT_SLOT, length))
    told = [(session, news) for session in sessions if (news := session._news())]
    if not told:
        return
    held = [session._stand() for session, _ in told]
    count = [len(news) for _, news in told]
    parent = [
        np.array([one.slot, *range(one.state.slots, one.state.slots + length - 1)], np.int64)
        for one, length in zip(held, count, strict=True)
    ]
    hidden = decoder.extend(
        [one.state for one in held],
        np.repeat(np.arange(len(told)), count),
        np.array([token for _, news in told for token in news], np.int64),
        np.concatenate(parent),
    )
    for (session, news), one, row in zip(told, held, np.cumsum(count) - 1, strict=True):
        length = None if one.length is None else one.length + len(news)
        session._was_told(_Held(one.state, hidden[row], one.state.slots - 1, length))


def _room(decoder: Decoder, held: _Held, needs: int) -> int:
    """Positions the model has left.

    Raises:
        RequestError: fewer than the shortest answer needs.
    """
    most: int | None = getattr(decoder, "max_positions", None)
    if most is None or held.length is None:
        return 2**31
    if most - held.length < max(1, needs):
        raise RequestError(
            f"expected room for the {max(1, needs)} tokens that the shortest answer takes, got a conversation of "
            f"{held.length} of the model's {most} positions; say less, or begin anew with a summary"
        )
    return most - held.length

"""How probable given texts are behind a prompt: sum, mean per token, and what the prompt adds to a text by itself.

::

    (scores,) = score(decoder, vocabulary, [prompt], ["yes", "no"])
    scores.share                     # of each answer among these: sums to one

All continuations of a prompt are one tree of tokens behind one KV: what two have in common is run once. Raw sums
prefer short texts and common words; ``mean`` divides by the length, ``pmi`` takes off what the text is worth behind
a null prompt that says nothing of the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genrec.decoders.base import Decoder, Hidden, Prompt
from genrec.grammars.base import Vocabulary
from genrec.text_batch import Stand
from index.errors import RequestError
from index.types import Float64Array, Int64Array

# Tokens of one request that are fed at once: their mask is a square of so many.
_FED_AT_ONCE = 512


@dataclass(frozen=True)
class Scores:
    """C continuations of one prompt."""

    log_probabilities: tuple[Float64Array, ...]  # C of float64[T]: of each token, over the whole vocabulary
    null: tuple[Float64Array, ...] | None = None  # the same behind the null prompt

    @cached_property
    def sum(self) -> Float64Array:
        """float64[C]: log-probability of each continuation."""
        return np.array([one.sum() for one in self.log_probabilities])

    @cached_property
    def mean(self) -> Float64Array:
        """float64[C]: the same per token."""
        return np.array([one.mean() for one in self.log_probabilities])

    @cached_property
    def pmi(self) -> Float64Array:
        """float64[C]: how much more probable the prompt makes each continuation than the null prompt does, in nats.

        Raises:
            RequestError: no null prompt was given.
        """
        if self.null is None:
            raise RequestError("expected a null prompt for pmi, got none; give one to score()")
        null: Float64Array = np.array([one.sum() for one in self.null])
        pmi: Float64Array = self.sum - null
        return pmi

    @cached_property
    def share(self) -> Float64Array:
        """float64[C]: each continuation's probability, given that it is one of these."""
        weight: Float64Array = np.exp(self.sum - self.sum.max(initial=-np.inf))
        share: Float64Array = weight / weight.sum()
        return share


def score(
    decoder: Decoder,
    vocabulary: Vocabulary,
    prompts: Sequence[Prompt],
    continuations: Sequence[str] | Sequence[Sequence[str]],
    *,
    null: Prompt | None = None,
    ended: bool = True,
) -> list[Scores]:
    """Score continuations behind prompts.

    Args:
        decoder: the model; its token ids are the vocabulary's.
        vocabulary: what the model speaks.
        prompts: B of them.
        continuations: texts, the same behind every prompt, or B lists of texts.
        null: what :attr:`Scores.pmi` compares with: the prompt with nothing of the user in it.
        ended: whether the terminator behind a text counts: without it "Alien" is also the beginning of "Aliens".

    Raises:
        RequestError: a prompt without continuations, or not as many lists as prompts.
        DecoderError: a prompt cannot be read, or prompt and text outgrow the model's positions.
    """
    lists = _lists(continuations, len(prompts))
    if not prompts:
        return []
    tokens = [continuation_tokens(vocabulary, texts, ended) for texts in lists]
    prefilled = decoder.prefill(prompts)
    stands = [Stand(state, hidden) for state, hidden in zip(prefilled.states, prefilled.hidden, strict=True)]
    scored = score_on(decoder, stands, tokens)
    if null is None:
        return [Scores(tuple(one)) for one in scored]
    behind_null = null_scores(decoder, null, tokens)
    return [Scores(tuple(one), tuple(other)) for one, other in zip(scored, behind_null, strict=True)]


def continuation_tokens(vocabulary: Vocabulary, texts: Sequence[str], ended: bool) -> list[tuple[int, ...]]:
    """The tokens of each text.

    Raises:
        RequestError: there is none, or one is empty.
    """
    if not texts or not all(text.strip() for text in texts):
        raise RequestError(f"expected at least one continuation and none that is empty, got {list(texts)}")
    return [tuple(ids if ended else ids[:-1]) for ids in vocabulary.answers(texts)]


def null_scores(
    decoder: Decoder, null: Prompt, tokens: Sequence[Sequence[tuple[int, ...]]]
) -> list[list[Float64Array]]:
    """As :func:`score_on` behind one prompt, each text scored once however many lists hold it."""
    distinct = list(dict.fromkeys(one for some in tokens for one in some))
    prefilled = decoder.prefill([null])
    (scored,) = score_on(decoder, [Stand(prefilled.states[0], prefilled.hidden[0])], [distinct])
    of = dict(zip(distinct, scored, strict=True))
    return [[of[one] for one in some] for some in tokens]


def score_on(
    decoder: Decoder, stands: Sequence[Stand], tokens: Sequence[Sequence[tuple[int, ...]]]
) -> list[list[Float64Array]]:
    """The log-probability of every token of continuations behind whatever states hold already.

    The states are left as they were.

    Args:
        decoder: the model.
        stands: B of them.
        tokens: each one's continuations.
    """
    base = [stand.state.slots for stand in stands]
    parts = [_in_parts(own) for own in tokens]
    scored: list[list[Float64Array]] = [[np.zeros(0)] * len(own) for own in tokens]
    for turn in range(max(len(own) for own in parts)):
        active = [b for b, own in enumerate(parts) if turn < len(own)]
        trees = [_TokenTree([tokens[b][place] for place in parts[b][turn]]) for b in active]
        found = _score_trees(decoder, [stands[b] for b in active], trees)
        for b, result in zip(active, found, strict=True):
            for place, one in zip(parts[b][turn], result, strict=True):
                scored[b][place] = one
            if stands[b].state.slots > base[b]:
                stands[b].state.compact(np.arange(base[b]))
    return scored


class _TokenTree:
    """Texts as a tree: one node per beginning, parents first."""

    def __init__(self, texts: Sequence[tuple[int, ...]]) -> None:
        number: dict[tuple[int, ...], int] = {(): -1}
        token: list[int] = []
        parent: list[int] = []
        for text in texts:
            for length in range(1, len(text) + 1):
                if text[:length] not in number:
                    number[text[:length]] = len(token)
                    token.append(text[length - 1])
                    parent.append(number[text[: length - 1]])
        self.token = np.array(token, np.int64)  # [nodes]
        self.parent = np.array(parent, np.int64)  # [nodes] -1 is the prompt
        self.paths = [
            np.array([number[text[:length]] for length in range(1, len(text) + 1)]) for text in texts
        ]
        inner = np.unique(self.parent)
        self.inner = inner[inner >= 0]  # the nodes that others follow: what is fed
        self.depth = np.array([len(text) for text in number][1:], np.int64)  # [nodes] tokens up to it


def _score_trees(
    decoder: Decoder, stands: Sequence[Stand], trees: Sequence[_TokenTree]
) -> list[list[Float64Array]]:
    """Feed all trees at once and read the score of every node after its parent."""
    hidden = [np.stack([stand.hidden for stand in stands])]
    row_of = []  # by request: the hidden row behind each node; the last entry is that of the prompt
    request, token, parent = [], [], []
    fed = len(stands)
    for b, (stand, tree) in enumerate(zip(stands, trees, strict=True)):
        rows = np.full(len(tree.token) + 1, -1)
        rows[-1] = b
        rows[tree.inner] = fed + np.arange(len(tree.inner))
        slots = np.full(len(tree.token) + 1, -1)
        slots[-1] = stand.slot
        slots[tree.inner] = stand.state.slots + np.arange(len(tree.inner))
        request.append(np.full(len(tree.inner), b))
        token.append(tree.token[tree.inner])
        parent.append(slots[tree.parent[tree.inner]])
        row_of.append(rows)
        fed += len(tree.inner)
    if fed > len(stands):
        states = [stand.state for stand in stands]
        hidden.append(
            decoder.extend(states, np.concatenate(request), np.concatenate(token), np.concatenate(parent))
        )
    everything: Hidden = np.concatenate(hidden)
    row = np.concatenate([rows[tree.parent] for rows, tree in zip(row_of, trees, strict=True)])
    depth: Int64Array = np.zeros(len(everything), np.int64)
    for rows, tree in zip(row_of, trees, strict=True):
        depth[rows[tree.inner]] = tree.depth[tree.inner]
    logits = decoder.edge_logits(everything, row, np.concatenate([tree.token for tree in trees]))
    normalizer = decoder.log_normalizer(everything, depth).astype(np.float64)
    worth = np.minimum(logits - normalizer[row], 0.0)
    results, start = [], 0
    for tree in trees:
        own = worth[start : start + len(tree.token)]
        results.append([own[path] for path in tree.paths])
        start += len(tree.token)
    return results


def _in_parts(texts: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Places of texts in parts of so many tokens, those that begin alike together."""
    parts: list[list[int]] = [[]]
    total = 0
    for place in sorted(range(len(texts)), key=lambda one: texts[one]):
        if parts[-1] and total + len(texts[place]) > _FED_AT_ONCE:
            parts.append([])
            total = 0
        parts[-1].append(place)
        total += len(texts[place])
    return parts


def _lists(continuations: Sequence[str] | Sequence[Sequence[str]], prompts: int) -> list[Sequence[str]]:
    """The continuations of each prompt."""
    own: list[Sequence[str]] = []
    shared: list[str] = []
    for one in continuations:
        if isinstance(one, str):
            shared.append(one)
        else:
            own.append(one)
    if shared and not own:
        return [shared] * prompts
    if len(own) != prompts or shared:
        raise RequestError(
            f"expected texts, or a list of texts for each of {prompts} prompts, got {len(own)} lists"
        )
    return own

"""The contract between a model and the search. It knows nothing of tries, items or scores.

All live prefixes of a request share one state. A prefix is named by its last *slot*: slot ``-1`` is the
prompt, and every token fed afterwards gets the next slot number of its request. A token names the slot it
follows, so prefixes form a tree, no cache is ever copied per beam, and any earlier prefix can be taken up
again (DESIGN: "beams as a tree").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from index.types import Float32Array, Int64Array, IntArray

Hidden: TypeAlias = Float32Array
"""[R, H], what a decoder needs to score the next token of R prefixes. The search passes it on unread."""

PROMPT_SLOT = -1
"""The parent of a request's first tokens."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A stretch of the prompt given as token ids of the decoder's vocabulary."""

    ids: Int64Array  # [P]


@dataclass(frozen=True, slots=True)
class Items:
    """A stretch of the prompt given as catalog rows, oldest first: the history."""

    rows: Int64Array  # [P]


Segment: TypeAlias = Tokens | Items
Prompt: TypeAlias = tuple[Segment, ...]
"""What a request starts from: stretches of tokens and of items, in any mixture a decoder supports."""


class State(Protocol):
    """Everything a decoder remembers of one request: the prompt and every token fed since."""

    @property
    def slots(self) -> int:
        """Tokens fed after the prompt; the next one gets this number."""

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""

    def fork(self) -> State:
        """An independent copy: extending one leaves the other as it was."""

    def compact(self, live: IntArray) -> None:
        """Forget all slots but ``live`` (int[S], ascending, closed under parents); ``live[i]`` becomes ``i``."""


@dataclass(frozen=True, slots=True)
class Prefilled:
    """What a prompt batch becomes."""

    states: list[State]  # B of them
    hidden: Hidden  # [B, H]: row b scores the first token after prompt b


class Decoder(Protocol):
    """A model that scores next tokens for many prefixes of many requests at once."""

    def prefill(self, prompts: Sequence[Prompt]) -> Prefilled:
        """Run the prompts (B of them, of any lengths, padded inside).

        Raises:
            DecoderError: a prompt is empty where the model needs one, or has a segment the model cannot read.
        """

    def extend(self, states: Sequence[State], request: IntArray, token: IntArray, parent: IntArray) -> Hidden:
        """Feed one token to each of R prefixes and return their hidden rows, in the same order.

        Args:
            states: the B requests' states; they are changed in place.
            request: int[R], non-decreasing, index into ``states``. A request may have any number of rows.
            token: int[R].
            parent: int[R], slot of the token's predecessor in its request: an earlier slot, also one made by
                an earlier row of this very call (so a chain of tokens is one call), or ``PROMPT_SLOT``.
        """

    def edge_logits(self, hidden: Hidden, row: IntArray, token: IntArray) -> Float32Array:
        """float32[E]: the logit of ``token[e]`` after hidden row ``row[e]``. No other logit is computed."""

    def log_normalizer(self, hidden: Hidden, depth: IntArray) -> Float32Array:
        """float32[R]: log of the sum of exp(logit) over every token the model could emit there.

        ``depth`` is int[R], the number of answer tokens each row stands behind. A language model sums over
        its whole vocabulary at any depth; a model with its own codes at every level sums over that level's.
        """


@runtime_checkable
class ScoresVocabulary(Decoder, Protocol):
    """A decoder that gives the logits of all its tokens at once: the ground of free text.

    Free text may go on with any token, so asking edge by edge would gather the whole head. A decoder without this
    can write all the same, only slower (:func:`genrec.token_scores.free_scores`).
    """

    def logits(self, hidden: Hidden) -> Float32Array:
        """float32[R, V]: column t is what :meth:`Decoder.edge_logits` says of token t."""


@runtime_checkable
class ReusesPrompts(Decoder, Protocol):
    """A decoder that can start from what it remembers of an earlier prompt: the ground of a prompt cache.

    A history grows at its end, so a user's next prompt mostly begins as the last one did. A decoder of this kind
    runs only what is new.
    """

    def prompt_key(self, prompt: Prompt) -> Int64Array:
        """int64[P]: one number for every position the model would read of a prompt, after any cutting.

        Two prompts whose keys begin alike are one prompt up to there. What a cache looks prompts up by.

        Raises:
            DecoderError: as :meth:`Decoder.prefill`.
        """

    def prefill(self, prompts: Sequence[Prompt], kept: Sequence[State | None] | None = None) -> Prefilled:
        """As :meth:`Decoder.prefill`, starting each prompt from a kept state where one is given.

        Args:
            prompts: B of them.
            kept: B states of this decoder, or None where there is none for a prompt. Any state will do: it is
                used as far as its prompt's key and the new one's begin alike, whatever was fed to it since. It
                is not changed, may serve several prompts at once, and may be forgotten afterwards.
        """

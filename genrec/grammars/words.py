"""What the tokens of a vocabulary look like: which of them free text must leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from genrec.grammars.base import Vocabulary
from index.types import BoolArray

_PIECE = "\ufffd"  # what a decoder makes of bytes that are no character by themselves


def forbidden_tokens(vocabulary: Vocabulary, characters: str) -> BoolArray:
    """bool[V]: the tokens that free text may not use.

    Those are tokens that say nothing (the terminator, other special tokens: a text could go on with them for
    ever) and those with one of ``characters`` anywhere in them, alone or within a longer piece. A text of the
    others cannot contain such a character, however it is tokenised: in UTF-8 the byte of an ASCII character is
    part of no other, so that no two tokens make one between them. Others can be made of pieces: where one of them is
    among ``characters``, so are all tokens that are not whole characters.
    """
    return _forbidden(_ByIdentity(vocabulary), "".join(sorted(set(characters))))


def first_character(text: str) -> str:
    """What must not stand in front of a text for it to be found: its first character, white space left out."""
    return (text.strip() or text)[:1]


def text_behind(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    """The text of tokens that stand behind others: some tokenizers drop the space in front of a first word."""
    before = vocabulary.literal("a")
    return vocabulary.decoded([*before, *ids])[len(vocabulary.decoded(before)) :]


class _ByIdentity:
    """A key for what need not be hashable; it holds its object, so no other takes its id."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


@lru_cache(maxsize=4)
def _token_texts(key: _ByIdentity) -> tuple[str, ...]:
    """The text of every token; of the pieces of a character, what a decoder makes of them."""
    vocabulary: Vocabulary = key.value
    before = vocabulary.literal("a")
    known = len(vocabulary.decoded(before))
    return tuple(vocabulary.decoded([*before, token])[known:] for token in range(vocabulary.size))


@lru_cache(maxsize=16)
def _forbidden(key: _ByIdentity, characters: str) -> BoolArray:
    texts = _token_texts(key)
    unwanted = characters if characters.isascii() else characters + _PIECE
    mask = np.array([not text or any(one in text for one in unwanted) for text in texts])
    mask.flags.writeable = False  # shared by all who ask
    return mask

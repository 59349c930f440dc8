"""A vocabulary to be read by eye: one token per character, and some tokens of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.types import Int64Array

LETTERS = "abcdefghijklmnopqrstuvwxyz .,:;-[]()\n0123456789"


class FakeVocabulary:
    """Every letter of the alphabet, then the longer pieces (longest match first), around the terminator."""

    def __init__(self, alphabet: str = LETTERS, pieces: Sequence[str] = (), end: int = 0) -> None:
        self.end = end
        self.texts = [*alphabet, *pieces]
        self.texts.insert(end, "")
        self.size = len(self.texts)
        self._id = {text: token for token, text in enumerate(self.texts) if text}
        self._longest = max(map(len, self.texts))

    def literal(self, text: str) -> list[int]:
        ids = []
        while text:
            piece = next(text[:n] for n in range(self._longest, 0, -1) if text[:n] in self._id)
            ids.append(self._id[piece])
            text = text[len(piece) :]
        return ids

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        return [[*self.literal(text), self.end] for text in texts]

    def prompt(self, text: str) -> Int64Array:
        return np.array(self.literal(text), np.int64)

    def decoded(self, ids: Sequence[int]) -> str:
        return "".join(self.texts[token] for token in ids)

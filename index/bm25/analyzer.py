"""The one analyser of every BM25 engine: text in, terms out.

It knows English words. It knows no engine and no item: documents and queries go through the same function,
so they always meet. Scripts written without spaces come out as whole runs of characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import Stemmer

ANALYZER = "english-1"
"""Stored with every index; raise the number whenever ``analyze`` gives other terms for some text."""

# The stop words of Lucene's EnglishAnalyzer, so that its engine sees the same terms.
_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
    "they this to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())

_WORD = re.compile(r"[^\W_]+")  # letters and digits of any script; the underscore separates
_POSSESSIVE = re.compile(r"['\u2019]s\b")  # "women's" and "womens" would else differ by a lone "s"
_ACCENT = re.compile("[\u0300-\u036f]")  # the accents of Latin, Greek and Cyrillic; no other script's marks


def analyze(texts: Sequence[str]) -> list[list[str]]:
    """Terms of each text, in order, repeats kept.

    Accents and letter case are folded ("Café" meets "cafe"), a possessive "'s" is cut off, words are split at
    everything but letters and digits, stop words dropped, the rest stemmed (Snowball English). A text of stop
    words only keeps them, or a film called "It" could never be found.
    """
    words = [_words(text) for text in texts]
    distinct = sorted({word for text in words for word in text})
    # PyStemmer's objects are not safe to share between threads, so each call makes its own (microseconds).
    stem = dict(zip(distinct, Stemmer.Stemmer("english").stemWords(distinct), strict=True))
    return [[stem[word] for word in text] for text in words]


NOTHING, STOP_ONLY, CONTENT = 0, 1, 2


def word_kinds(texts: Sequence[str]) -> list[int]:
    """What each text consists of: ``NOTHING`` that is a word, ``STOP_ONLY`` stop words, or ``CONTENT``: then its
    stop words are not among its terms."""
    kinds = []
    for text in texts:
        words = _words(text)
        content = any(word not in STOP_WORDS for word in words)
        kinds.append(CONTENT if content else STOP_ONLY if words else NOTHING)
    return kinds


def _words(text: str) -> list[str]:
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = unicodedata.normalize("NFC", _ACCENT.sub("", decomposed))
    words = _WORD.findall(_POSSESSIVE.sub("", text.casefold()))
    return [word for word in words if word not in STOP_WORDS] or words

"""The query that should find an item: the few neighbouring words of its title that set it apart in the catalog.

Short queries leave the model less to get right and keep ten beams apart, which long ones spend on sizes and colours;
neighbouring words, so that a query occurs in the catalog as it stands (:mod:`index.ngram_trie`). Measured over the
titles of Amazon Beauty as the share of queries whose item BM25 ranks first, and mean letters: the whole title .99 and
66, its first five words .81 and 32, its rarest five neighbours .89 and 33 (four .85 and 27, six .91 and 38). It knows
no model and no tokenizer.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

QUERY_WORDS = 5
_TERM = re.compile(r"\w+")


class QueryWords:
    """Queries of a catalog's titles.

    Args:
        titles: all of them; how rare a word is, is counted here.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        count = Counter(term for title in titles for term in set(_terms(title)))
        self._worth = {term: math.log((1 + len(titles)) / number) for term, number in count.items()}

    def of(self, title: str) -> str:
        """The query for an item of that title: its neighbouring :data:`QUERY_WORDS` words of the greatest worth.

        A word is worth as much as its rarest term; of equals the first are taken. A shorter title is its own query.
        """
        words = title.split()
        worth = [max((self._worth.get(term, 0.0) for term in _terms(word)), default=0.0) for word in words]
        starts = range(max(1, len(words) - QUERY_WORDS + 1))
        best = max(starts, key=lambda at: (math.fsum(worth[at : at + QUERY_WORDS]), -at))
        return " ".join(words[best : best + QUERY_WORDS])


def _terms(text: str) -> list[str]:
    return _TERM.findall(text.casefold())

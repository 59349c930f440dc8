"""The picture of a walk (``index/walk.svg``) shows what the search does: the same eight items, searched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from genrec.search import search
from genrec.search_batch import SearchRequest
from index.item_filter import Allowed
from index.trie import build_trie
from index.types import Float32Array
from tests.fake_decoder import FakeDecoder

PICTURE = Path(__file__).parents[2] / "index" / "walk.svg"
PATHS = [[17, 3, 0], [17, 3, 5], [17, 9], [42, 1, 2], [42, 1, 7], [42, 6], [80, 4], [80, 8]]
SHARES = {
    (): {17: 0.55, 42: 0.30, 80: 0.15},
    (17,): {3: 0.6, 9: 0.4},
    (42,): {1: 0.7, 6: 0.3},
    (17, 3): {0: 0.6, 5: 0.4},
    (42, 1): {2: 0.7, 7: 0.3},
}


class Pictured(FakeDecoder):
    """A model that gives the picture's probabilities."""

    def logits_after(self, prompt_seed: int, path: Sequence[int]) -> Float32Array:
        logits = np.zeros(self.vocabulary, np.float32)
        for token, share in SHARES.get(tuple(path), {}).items():
            logits[token] = np.log(share)
        return logits


def texts() -> list[str]:
    root = ElementTree.parse(PICTURE).getroot()
    return ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_search_finds_what_the_picture_shows():
    allowed = Allowed.build(np.array([1, 1, 1, 1, 1, 0, 1, 1], bool))
    request = SearchRequest(prompt=(), k=2, beam=2, allowed=allowed)
    (found,) = search(Pictured(100), build_trie(PATHS), [request], normalize="catalog")
    assert found.certified == 2
    shown = texts()
    for rank, score in zip(found.ranks.tolist(), np.exp(found.scores).tolist(), strict=True):
        assert " ".join(map(str, PATHS[rank])) in shown
        assert f"{score:.3f}".removeprefix("0") + " ✓" in shown
    assert sum("✓" in one for one in shown if re.fullmatch(r"\.\d+ ✓", one)) == 2


def test_the_picture_multiplies_right():
    """Every bold number that stands under a code is the product of the shares along its path."""
    shown = texts()
    for path in PATHS[:5]:
        product = np.prod([SHARES[tuple(path[:depth])][path[depth]] for depth in range(len(path))])
        value = f"{product:.3f}".removeprefix("0")
        assert value in shown or f"{value} ✓" in shown, path


def test_the_picture_asks_nobody_for_anything():
    """No script, no link, no font from elsewhere: it is shown by pages that allow none."""
    text = PICTURE.read_text("utf-8")
    assert not re.search(r"<script|href=|url\(|@import", text)
    assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]

"""Item words: scikit-learn's TF-IDF with BM25's analyser, and products against the dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from genrec.item_words import ItemWords
from genrec.text_neighbours import neighbours_of, text_neighbours
from index.bm25.analyzer import analyze

TEXTS = ["Red nail polish", "Red red lipstick", "", "The blue polish", "Oil", "nails, polishes & lipsticks"]


def test_rows_are_those_of_scikit_learn() -> None:
    words = ItemWords.of_texts(TEXTS)
    peer = TfidfVectorizer(analyzer=lambda text: analyze([text])[0], sublinear_tf=True)
    expected = peer.fit_transform(TEXTS).toarray()
    expected = expected[:, (expected > 0).sum(0) > 1]  # in the order of terms, here as there
    assert len(words) == len(TEXTS)
    assert words.size == expected.shape[1] == 4  # lipstick, nail, polish, red; not blue and oil
    np.testing.assert_allclose(words.matrix(np.arange(len(TEXTS))).toarray(), expected, rtol=1e-6)


@given(
    st.lists(st.text("abc ", max_size=12), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.floats(0.1, 1)), max_size=6),
)
def test_products_are_those_of_the_dense_matrix(texts: list[str], events: list[tuple[int, float]]) -> None:
    words = ItemWords.of_texts(texts)
    dense = words.matrix(np.arange(len(texts))).toarray()
    rows = np.array([row % len(texts) for row, _ in events], np.int64)
    weight = np.array([value for _, value in events], np.float32)
    profile = words.profile(rows, weight)
    np.testing.assert_allclose(profile, weight @ dense[rows], atol=1e-5)
    asked = np.arange(len(texts))[::-1]
    np.testing.assert_allclose(words.products(profile, asked), dense[asked] @ profile, atol=1e-5)
    length = np.linalg.norm(dense, axis=1)
    assert (length <= 1 + 1e-5).all()


def test_no_words_at_all() -> None:
    words = ItemWords.of_texts(["", "one", "two"])
    assert (len(words), words.size) == (3, 0)
    assert (
        words.products(words.profile(np.array([1]), np.ones(1, np.float32)), np.arange(3)).tolist() == [0] * 3
    )


@pytest.mark.parametrize("all_pairs", [1000, 10])
def test_neighbours_are_near_in_both(all_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten items of equal vectors: whoever shares a word is nearest."""
    monkeypatch.setattr("genrec.text_neighbours.ALL_PAIRS", all_pairs)
    text = np.tile(np.array([[1, 0]], np.float32), (12, 1))
    words = ItemWords.of_texts([f"brand{row // 2} cream" for row in range(12)])
    offsets, rows = text_neighbours(text, 1, words)
    assert np.diff(offsets).tolist() == [1] * 12
    assert rows.tolist() == [row ^ 1 for row in range(12)]
    assert [one.tolist() for one in neighbours_of(text, np.array([4, 7]), 1, words)] == [[5], [6]]

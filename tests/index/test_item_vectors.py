from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import HistoryError, IdentifierError, IndexFormatError
from index.item_vectors import (
    FusedVectors,
    VectorRecipe,
    cooccurrence_vectors,
    fill_cold,
    fit_item_vectors,
    fuse,
    load_item_vectors,
    unit_rows,
)
from index.types import Float32Array, Float64Array, Int32Array, Int64Array


def flat(*histories: list[int]) -> tuple[Int64Array, Int32Array]:
    offsets = np.cumsum([0, *map(len, histories)])
    return offsets.astype(np.int64), np.array([i for h in histories for i in h], np.int32)


def unit_text(count: int, dimension: int = 6, seed: int = 0) -> Float32Array:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32))


# Items 0-2 are bought together, so are items 3-5; nobody buys from both, item 6 is never bought.
TWO_WORLDS = flat([0, 1, 2], [2, 0, 1], [1, 2, 0], [3, 4, 5], [5, 3, 4], [4, 5, 3])


def test_items_of_one_company_are_alike_and_others_are_not() -> None:
    vectors = cooccurrence_vectors(*TWO_WORLDS, 7, dimension=4)
    cosine = vectors @ vectors.T
    assert cosine[:3, :3].min() > 0.3
    assert np.abs(cosine[:3, 3:6]).max() < 1e-5
    np.testing.assert_allclose(np.linalg.norm(vectors[:6], axis=1), 1, rtol=1e-5)


def test_items_never_seen_or_always_alone_get_zero_rows() -> None:
    offsets, items = flat([0, 1], [2])
    vectors = cooccurrence_vectors(offsets, items, 4, dimension=2)
    assert vectors.any(axis=1).tolist() == [True, True, False, False]


def test_items_beyond_the_kept_directions_get_zero_rows_and_not_noise() -> None:
    """Scaled to unit length, rounding errors once passed for knowledge.

    The pair carries log(8 / 1) of information, the triple log(8 / 4) on each edge: the one kept direction
    lies in the pair and says nothing of items 2 to 4.
    """
    vectors = cooccurrence_vectors(*flat([0, 1], [2, 3, 4]), 5, dimension=1)
    assert vectors[:2].any()
    assert not vectors[2:].any()


def brute_force_ppmi(histories: list[list[int]], n_items: int, window: int) -> Float64Array:
    counts = np.zeros((n_items, n_items))
    for history in histories:
        for i, first in enumerate(history):
            for second in history[i + 1 : i + 1 + window]:
                if first != second:
                    counts[first, second] += 1
                    counts[second, first] += 1
    ppmi = np.zeros((n_items, n_items))
    for a in range(n_items):
        for b in range(n_items):
            if counts[a, b]:
                information = math.log(counts[a, b] * counts.sum() / counts[a].sum() / counts[b].sum())
                ppmi[a, b] = max(0.0, information)
    return ppmi


@settings(max_examples=30, deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(0, 7), max_size=8), min_size=1, max_size=8),
    window=st.integers(1, 4),
)
def test_vectors_equal_a_dense_decomposition_of_counted_pairs(
    histories: list[list[int]], window: int
) -> None:
    """At full dimension the cosines of U · sqrt(S) are those of |PPMI| = U · S · Uᵀ, whatever the signs."""
    vectors = cooccurrence_vectors(*flat(*histories), 8, window=window, dimension=8)
    ppmi = brute_force_ppmi(histories, 8, window)
    left, strength, _ = np.linalg.svd(ppmi)
    kept = strength > 1e-6 * strength[0]
    rows = left * np.sqrt(strength) * kept * ppmi.any(axis=1, keepdims=True)
    expected = unit_rows(rows.astype(np.float32))
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=2e-3)


def test_histories_do_not_run_into_each_other() -> None:
    apart = cooccurrence_vectors(*flat([0, 1], [2, 3]), 4, dimension=4)
    assert abs(float(apart[1] @ apart[2])) < 1e-6


def test_the_window_ends_where_it_says() -> None:
    history = [0, 1, 2, 3, 4, 5]
    near = cooccurrence_vectors(*flat(history, [0, 1]), 6, window=1, dimension=6)
    wide = cooccurrence_vectors(*flat(history, [0, 1]), 6, window=5, dimension=6)
    assert not np.allclose(near @ near.T, wide @ wide.T, atol=1e-2)


def test_a_seed_decides_the_vectors() -> None:
    generator = np.random.default_rng(0)
    histories = flat(*(generator.integers(0, 50, 6).tolist() for _ in range(200)))
    one, same = (cooccurrence_vectors(*histories, 50, dimension=8, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one, same)


def test_no_histories_give_zero_vectors_of_the_asked_dimension() -> None:
    vectors = cooccurrence_vectors(*flat(), 3, dimension=16)
    assert vectors.shape == (3, 16)
    assert not vectors.any()


def test_a_cold_item_lands_where_its_text_neighbours_are() -> None:
    text = unit_rows(np.array([[1, 0.1], [1, 0], [0, 1], [0.9, 0.1]], np.float32))
    cooccurrence = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], np.float32)
    filled = fill_cold(text, cooccurrence, neighbours=2)
    np.testing.assert_array_equal(filled[:3], cooccurrence[:3])
    assert filled[3, 0] > filled[3, 1] > 0.6  # item 0 is a little nearer in text than item 1
    assert filled[3, 2] == 0
    np.testing.assert_allclose(np.linalg.norm(filled[3]), 1, rtol=1e-6)
    assert not cooccurrence[3].any()  # the input is not written to


def test_a_cold_item_like_nothing_stays_zero() -> None:
    text = np.array([[1, 0], [-1, 0]], np.float32)
    assert not fill_cold(text, np.array([[1], [0]], np.float32))[1].any()


def test_fused_distances_are_the_weighted_sum_of_both() -> None:
    text, cooccurrence = unit_text(5, seed=1), unit_text(5, seed=2)
    fused = fuse(text, cooccurrence, weight=0.5)
    expected = ((text[0] - text[1]) ** 2).sum() + 0.25 * ((cooccurrence[0] - cooccurrence[1]) ** 2).sum()
    np.testing.assert_allclose(((fused[0] - fused[1]) ** 2).sum(), expected, rtol=1e-5)


def test_a_catalogs_vectors_are_centred_and_a_new_twin_of_a_cold_item_lands_on_it() -> None:
    text = unit_text(7)
    fitted = fit_item_vectors(text, *TWO_WORLDS, VectorRecipe(dimension=4, neighbours=3))
    vectors = fitted.vectors()
    assert vectors.shape == (7, 6 + 4)
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(fitted.vectorise(text[6:]), vectors[6:], atol=1e-6)


def test_without_histories_only_text_speaks() -> None:
    text = unit_text(7)
    vectors = fit_item_vectors(text, *flat()).vectors()
    np.testing.assert_allclose(vectors[:, :6], text - text.mean(axis=0), atol=1e-6)
    assert not vectors[:, 6:].any()


def test_item_vectors_come_back_from_disk(tmp_path: Path) -> None:
    recipe = VectorRecipe(window=2, dimension=4, weight=0.5, neighbours=3, seed=9)
    fitted = fit_item_vectors(unit_text(7), *TWO_WORLDS, recipe)
    fitted.save(tmp_path)
    loaded = load_item_vectors(tmp_path)
    assert loaded.recipe == recipe
    np.testing.assert_array_equal(loaded.vectors(), fitted.vectors())
    np.testing.assert_array_equal(
        loaded.vectorise(unit_text(2, seed=4)), fitted.vectorise(unit_text(2, seed=4))
    )


def test_damaged_item_vectors_are_told(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match=r"item_vectors\.json, got FileNotFoundError"):
        load_item_vectors(tmp_path)
    fitted = fit_item_vectors(unit_text(7), *TWO_WORLDS)
    fitted.save(tmp_path)
    np.save(tmp_path / "centre.npy", np.zeros(3, np.float32))
    with pytest.raises(IndexFormatError, match=r"got \[7, 6\], \[7, 64\] and \[3\]"):
        load_item_vectors(tmp_path)
    (tmp_path / "item_vectors.json").write_text(json.dumps({"windows": 5}))
    with pytest.raises(IndexFormatError, match="windows"):
        load_item_vectors(tmp_path)


def test_bad_input_is_told() -> None:
    offsets, items = flat([0, 1], [2])
    with pytest.raises(HistoryError, match=r"rows in \[0, 2\), got 0 to 2"):
        cooccurrence_vectors(offsets, items, 2)
    with pytest.raises(HistoryError, match="offsets that rise from 0 to the 3 events"):
        cooccurrence_vectors(offsets[:-1], items, 3)
    with pytest.raises(HistoryError, match="window >= 1 and dimension >= 1, got 0"):
        cooccurrence_vectors(offsets, items, 3, window=0)
    fitted = FusedVectors(
        VectorRecipe(), unit_text(2), np.zeros((2, 4), np.float32), np.zeros(10, np.float32)
    )
    with pytest.raises(IdentifierError, match=r"shape \[M, 6\], got \[1, 5\]"):
        fitted.vectorise(unit_text(1, 5))

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import IdentifierError, IndexFormatError
from index.semantic_ids import (
    Codebooks,
    Collisions,
    code_new_items,
    fit_codebooks,
    level_tokens,
    load_codebooks,
    unique_codes,
)
from index.types import Float32Array

# Two levels on a line: the first tells tens, the second tells units.
LINE = Codebooks(np.array([[0], [10], [20], [-1], [0], [1]], np.float32), (3, 3))


def points(*values: float) -> Float32Array:
    return np.array(values, np.float32)[:, None]


def random_vectors(count: int, dimension: int = 8, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def test_a_code_is_the_nearest_centroid_then_that_of_the_residual() -> None:
    assert LINE.encode(points(9, 10, 21.2, -1)).tolist() == [[1, 0], [1, 1], [2, 2], [0, 0]]


def test_of_two_centroids_equally_near_the_lower_code_wins() -> None:
    assert LINE.encode(points(5)).tolist()[0][0] == 0


def test_encoding_equals_a_loop_over_items_and_centroids() -> None:
    vectors = random_vectors(200)
    codebooks = fit_codebooks(vectors, levels=3, size=16)
    for vector, codes in zip(vectors[:50], codebooks.encode(vectors), strict=False):
        residual = vector.astype(np.float64)
        for level, code in enumerate(codes):
            distances = [float(((residual - c) ** 2).sum()) for c in codebooks.level(level)]
            assert distances[code] <= min(distances) + 1e-5
            residual = residual - codebooks.level(level)[code]


def test_every_level_brings_the_codes_nearer_to_the_vectors() -> None:
    vectors = random_vectors(400)
    codebooks = fit_codebooks(vectors, levels=3, size=16)
    codes, rebuilt, error = codebooks.encode(vectors), np.zeros_like(vectors), [float((vectors**2).sum())]
    for level in range(3):
        rebuilt += codebooks.level(level)[codes[:, level]]
        error.append(float(((vectors - rebuilt) ** 2).sum()))
    assert error == sorted(error, reverse=True)
    assert error[3] < 0.6 * error[0]


def test_well_apart_groups_get_one_first_code_each() -> None:
    group = np.repeat(np.arange(4), 25)
    vectors = np.eye(4, dtype=np.float32)[group] * 10 + random_vectors(100, 4) * 0.1
    first = fit_codebooks(vectors, levels=2, size=4).encode(vectors)[:, 0]
    assert len(np.unique(first)) == 4
    assert len(np.unique(np.stack([first, group], axis=1), axis=0)) == 4


def test_a_seed_decides_the_codebooks() -> None:
    vectors = random_vectors(300)
    one, same, other = (fit_codebooks(vectors, size=16, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.centroids, same.centroids)
    assert one.sizes == same.sizes
    assert not np.array_equal(one.centroids, other.centroids)


def test_a_large_catalog_is_sampled_and_the_sample_is_decided_by_the_seed() -> None:
    vectors = random_vectors(3000, 2)
    one, same = (fit_codebooks(vectors, levels=1, size=4, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.centroids, same.centroids)
    assert one.sizes == (4,)


@pytest.mark.parametrize(("count", "size"), [(5, 2), (600, 60), (2600, 256)])
def test_codebooks_shrink_with_the_catalog(count: int, size: int) -> None:
    assert fit_codebooks(random_vectors(count, 4), levels=1).sizes == (size,)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_tiny_catalogs_get_distinct_codes(count: int) -> None:
    vectors = random_vectors(count)
    codes = unique_codes(fit_codebooks(vectors), vectors)
    assert len(np.unique(codes, axis=0)) == count


def test_equal_items_need_no_more_than_one_centroid_a_level() -> None:
    vectors = np.ones((30, 3), np.float32)
    codebooks = fit_codebooks(vectors, levels=3)
    assert codebooks.sizes == (1, 1, 1)
    assert unique_codes(codebooks, vectors).tolist() == [[0, 0, 0, i] for i in range(30)]


def test_an_extra_code_numbers_the_items_of_a_path_in_row_order() -> None:
    codes = unique_codes(LINE, points(9, 10, 9, 9.1))
    assert codes.tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 0, 2]]


def test_the_nearest_free_code_goes_to_the_item_that_loses_least() -> None:
    # 10.1 and 10.4 both want the code of 10; 10.4 is nearer to the code of 11.
    assert unique_codes(LINE, points(10.1, 10.4), collisions="nearest").tolist() == [[1, 1], [1, 2]]
    assert unique_codes(LINE, points(10.4, 10.1), collisions="nearest").tolist() == [[1, 2], [1, 1]]


def test_nearest_leaves_items_alone_whose_paths_are_unique() -> None:
    assert unique_codes(LINE, points(9, 10, 11, 20), collisions="nearest").tolist() == [
        [1, 0],
        [1, 1],
        [1, 2],
        [2, 1],
    ]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-4, 24), min_size=1, max_size=9),
    taken=st.lists(st.integers(-4, 24), max_size=9),
    collisions=st.sampled_from(["extra", "nearest"]),
)
def test_all_paths_are_distinct_or_the_overflow_is_told(
    values: list[int], taken: list[int], collisions: Collisions
) -> None:
    """Old and new items alike; and it is only told where there are in truth too many."""
    limit = 4 if collisions == "extra" else 3
    both = LINE.encode(points(*taken, *values))
    prefixes = [tuple(c) if collisions == "extra" else (c[0],) for c in both.tolist()]
    too_many = max(prefixes.count(p) for p in prefixes) > limit

    def code() -> list[list[int]]:
        old = unique_codes(LINE, points(*taken), collisions=collisions, extra_size=4)
        new = code_new_items(LINE, points(*values), old, collisions=collisions, extra_size=4)
        assert new[:, : len(prefixes[0])].tolist() == [list(p) for p in prefixes[len(taken) :]]
        return [*map(list, old.tolist()), *map(list, new.tolist())]

    if too_many:
        with pytest.raises(IdentifierError, match="expected at most"):
            code()
    else:
        codes = code()
        assert len({tuple(c) for c in codes}) == len(codes)
        assert all(0 <= c[-1] < limit for c in codes)


@pytest.mark.parametrize("collisions", ["extra", "nearest"])
def test_codes_of_a_real_size_are_distinct(collisions: Collisions) -> None:
    vectors = np.round(random_vectors(3000, 6), 1)  # rounding makes many near and some equal items
    codebooks = fit_codebooks(vectors, levels=3, size=32)
    raw = codebooks.encode(vectors)
    codes = unique_codes(codebooks, vectors, collisions=collisions)
    assert len(np.unique(raw, axis=0)) < 3000
    assert len(np.unique(codes, axis=0)) == 3000
    np.testing.assert_array_equal(codes[:, :2], raw[:, :2])
    np.testing.assert_array_equal(codes, code_new_items(codebooks, vectors, codes[:0], collisions=collisions))


def test_a_new_item_shares_the_codes_of_its_twin_and_moves_nobody() -> None:
    vectors = random_vectors(300)
    codebooks = fit_codebooks(vectors, levels=3, size=16)
    codes = unique_codes(codebooks, vectors)
    new = code_new_items(codebooks, vectors[[17]] + np.float32(1e-5), codes)
    np.testing.assert_array_equal(new[0, :3], codes[17, :3])
    assert new[0, 3] == (codes[:, :3] == codes[17, :3]).all(axis=1).sum()


def test_a_number_left_by_a_removed_item_is_given_out_again() -> None:
    taken = np.array([[1, 0, 0], [1, 0, 2]])
    assert code_new_items(LINE, points(9, 9), taken).tolist() == [[1, 0, 1], [1, 0, 3]]


def test_tokens_of_different_levels_never_coincide() -> None:
    assert level_tokens(np.array([[0, 0, 0], [2, 1, 3]]), (3, 2, 4)).tolist() == [[0, 3, 5], [2, 4, 8]]


def test_codebooks_come_back_from_disk(tmp_path: Path) -> None:
    vectors = random_vectors(100)
    codebooks = fit_codebooks(vectors, levels=2)
    codebooks.save(tmp_path)
    loaded = load_codebooks(tmp_path)
    assert loaded.sizes == codebooks.sizes
    np.testing.assert_array_equal(loaded.encode(vectors), codebooks.encode(vectors))


def test_damaged_codebooks_are_told(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match=r"centroids\.npy"):
        load_codebooks(tmp_path)
    LINE.save(tmp_path)
    np.save(tmp_path / "codebook_sizes.npy", np.array([3, 4]))
    with pytest.raises(IndexFormatError, match="expected one centroid row per code"):
        load_codebooks(tmp_path)


def test_bad_input_is_told() -> None:
    with pytest.raises(IdentifierError, match="at least one vector"):
        fit_codebooks(np.zeros((0, 3), np.float32))
    with pytest.raises(IdentifierError, match="levels >= 1"):
        fit_codebooks(random_vectors(5), levels=0)
    with pytest.raises(IdentifierError, match="NaN or infinity in row 1"):
        fit_codebooks(np.array([[0, 1], [np.nan, 1]], np.float32))
    with pytest.raises(IdentifierError, match=r"shape \[N, 1\], got \[5, 8\]"):
        LINE.encode(random_vectors(5))
    with pytest.raises(
        IdentifierError, match=r"at most 2 items with the codes \[1, 1\], got 3; raise extra_size"
    ):
        unique_codes(LINE, points(10, 10, 10), extra_size=2)
    with pytest.raises(
        IdentifierError, match=r"at most 3 items with the codes \[1\], got 4; use more levels"
    ):
        unique_codes(LINE, points(10, 10, 10, 9), collisions="nearest")
    with pytest.raises(IdentifierError, match=r"shape \[N, 3\] for collisions='extra', got \[1, 2\]"):
        code_new_items(LINE, points(9), np.array([[1, 0]]))
    with pytest.raises(IdentifierError, match=r"level 1 in \[0, 2\), got 2 in row 1"):
        level_tokens(np.array([[0, 1], [0, 2]]), (2, 2))
    with pytest.raises(IdentifierError, match=r"shape \[N, 3\], got \[1, 2\]"):
        level_tokens(np.array([[0, 1]]), (2, 2, 2))


def test_one_level_moves_within_the_whole_codebook() -> None:
    """With one level every item has the empty prefix; sorting by no column once failed."""
    one_level = Codebooks(np.array([[0], [10], [20]], np.float32), (3,))
    assert unique_codes(one_level, points(1, 4, 19), collisions="nearest").tolist() == [[0], [1], [2]]

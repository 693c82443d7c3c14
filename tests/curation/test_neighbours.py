"""Distances between embeddings, in tiles and without."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pbe.curation import neighbours
from pbe.curation.neighbours import NUM_NEAREST, centre, search, typicality, uniqueness


def unit_vectors(number: int, width: int = 6) -> NDArray[np.float32]:
    vectors = np.random.default_rng(number).normal(size=(number, width)).astype(np.float32)
    centre(vectors)
    return vectors


def test_centred_vectors_have_unit_norm_and_no_common_part() -> None:
    vectors = np.array([[5, 1], [5, -1], [5, 3], [5, -3]], np.float32)
    centre(vectors)
    np.testing.assert_allclose(vectors, [[0, 1], [0, -1], [0, 1], [0, -1]], atol=1e-6)
    same = np.ones((3, 2), np.float32)
    centre(same)
    np.testing.assert_array_equal(same, 0)


@pytest.mark.parametrize("number", [2, 3, 40])
def test_tiles_give_the_results_of_the_full_matrix(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, within = unit_vectors(number), 0.5
    distances = 1 - vectors @ vectors.T
    expected = [(i, j) for i in range(number) for j in range(i + 1, number) if distances[i, j] <= within]
    np.fill_diagonal(distances, np.inf)
    k = min(NUM_NEAREST, number - 1)
    monkeypatch.setattr(neighbours, "_ROWS", 7)
    monkeypatch.setattr(neighbours, "_COLUMNS", 11)
    blocks = list(search(vectors, within))
    assert sorted(map(tuple, np.concatenate([b.pairs for b in blocks]).tolist())) == expected
    assert [b.rows.start for b in blocks] == list(range(0, number, 7))
    groups = np.arange(number) % 3
    of_groups = np.concatenate([b.pairs for b in search(vectors, within, groups)])
    assert sorted(map(tuple, of_groups.tolist())) == [(i, j) for i, j in expected if groups[i] == groups[j]]
    nearest = np.concatenate([b.nearest for b in blocks])
    np.testing.assert_allclose(nearest, np.sort(distances, axis=1)[:, :k].mean(axis=1), atol=1e-6)


def test_the_image_farthest_from_all_is_the_most_unusual() -> None:
    vectors = np.concatenate([unit_vectors(20)[:1] + 0.05 * unit_vectors(20), -unit_vectors(20)[:1]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    unusual = uniqueness(np.concatenate([b.nearest for b in search(vectors.astype(np.float32), 0.1)]))
    assert unusual.argmax() == 20
    assert unusual.max() == 1
    assert (unusual[:20] < 0.1).all()


def test_the_centre_of_a_cluster_is_typical_and_its_edge_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "NUM_CENTRES", 2)
    offsets = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -3]], np.float32)
    apart = np.array([100, 0], np.float32)
    vectors = np.concatenate([offsets + apart, offsets - apart])
    typical = typicality(vectors)
    assert typical.reshape(2, 5).argmax(axis=1).tolist() == [0, 0]
    np.testing.assert_allclose(typical[[4, 9]], 0, atol=1e-6)
    np.testing.assert_array_equal(typicality(vectors), typical)


def test_the_only_image_of_a_cluster_is_not_typical() -> None:
    np.testing.assert_array_equal(typicality(np.eye(4, dtype=np.float32)), 0)

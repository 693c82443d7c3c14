"""Distances between embeddings: pairs of close images, and how unusual or typical an image is.

The search is exact: every vector is compared with every other in tiles of a matrix product. Time grows with the square
of the number of images; memory does not. scikit-learn's NearestNeighbors would need one search for the pairs and
another for the nearest three. Vectors are centred first, because most of a tower's embedding is common to all images.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NUM_NEAREST = 3
NUM_CENTRES = 20
_ROWS, _COLUMNS = 1024, 8192
_NUM_FITTED = 20_000


class Block(NamedTuple):
    """The result for a block of rows: `pairs` (P, 2) with i < j; `nearest`, the mean distance to the nearest three."""

    rows: slice
    pairs: Ints
    nearest: Floats


def centre(vectors: Floats) -> None:
    """Subtract the mean from (N, D) vectors and scale them to unit norm, in place; a vector at the mean becomes 0."""
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    for start in range(0, len(vectors), _COLUMNS):
        part = vectors[start : start + _COLUMNS]
        part -= mean
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), np.float32(1e-12))


Search = Callable[[Floats, float, Ints | None], Iterator[Block]]


def search(vectors: Floats, within: float, groups: Ints | None = None) -> Iterator[Block]:
    """Compare every two of (N, D) unit-norm vectors; yield the results block by block.

    A pair is listed, in the block of its smaller row, when its cosine distance is at most `within`, and when both have
    the same of the (N,) `groups`, where these are given. The nearest vectors are those among all.
    """
    for rows in blocks(len(vectors)):
        yield search_rows(rows, vectors, within, groups)


def blocks(num_vectors: int) -> Iterator[slice]:
    """Yield the rows of each block."""
    for start in range(0, num_vectors, _ROWS):
        yield slice(start, min(start + _ROWS, num_vectors))


def search_rows(rows: slice, vectors: Floats, within: float, groups: Ints | None) -> Block:
    """Compare the vectors of a block with all; see `search`."""
    closest = np.full((rows.stop - rows.start, NUM_NEAREST), np.inf, np.float32)
    pairs = [np.zeros((0, 2), np.int64)]
    for left in range(0, len(vectors), _COLUMNS):
        distances = 1 - vectors[rows] @ vectors[left : left + _COLUMNS].T
        i, j = np.arange(rows.start, rows.stop), np.arange(left, left + distances.shape[1])
        own = np.intersect1d(i, j)
        distances[own - rows.start, own - left] = np.inf
        closest = _smallest(np.concatenate([closest, _smallest(distances)], axis=1))
        is_close = distances <= within
        if groups is not None:
            is_close &= groups[rows, None] == groups[None, left : left + _COLUMNS]
        found = np.argwhere(is_close) + np.array((rows.start, left))
        pairs.append(found[found[:, 0] < found[:, 1]])
    return Block(rows, np.concatenate(pairs), _mean_of_finite(closest))


def uniqueness(nearest: Floats) -> Floats:
    """Scale (N,) mean distances to the nearest images to 0..1, with 1 for the most unusual image."""
    return np.asarray(np.maximum(nearest, 0) / max(float(nearest.max(initial=0.0)), 1e-12), np.float32)


def typicality(vectors: Floats, seed: int = 0) -> Floats:
    """Return how close each of (N, D) vectors is to the centre of its cluster: 1 at the centre, 0 for the farthest.

    K-means finds 20 clusters among at most 20,000 vectors. The only vector of a cluster gets 0.
    """
    rng = np.random.default_rng(seed)
    fitted = vectors[np.sort(rng.permutation(len(vectors))[:_NUM_FITTED])]
    means = MiniBatchKMeans(min(NUM_CENTRES, len(vectors)), random_state=seed, n_init=3).fit(fitted)
    cluster, distance = np.zeros(len(vectors), np.int64), np.zeros(len(vectors), np.float32)
    for start in range(0, len(vectors), _COLUMNS):
        part = np.ascontiguousarray(vectors[start : start + _COLUMNS])
        rows = slice(start, start + len(part))
        cluster[rows] = means.predict(part)
        distance[rows] = np.linalg.norm(part - means.cluster_centers_[cluster[rows]], axis=1)
    farthest = np.zeros(means.n_clusters, np.float32)
    np.maximum.at(farthest, cluster, distance)
    alone = np.bincount(cluster, minlength=means.n_clusters) < 2
    scaled = 1 - distance / np.maximum(farthest[cluster], np.float32(1e-12))
    return np.where(alone[cluster], np.float32(0), scaled).astype(np.float32)


def _smallest(values: Floats) -> Floats:
    """Return the NUM_NEAREST smallest values of each row, unsorted."""
    if values.shape[1] <= NUM_NEAREST:
        return values
    return np.asarray(np.partition(values, NUM_NEAREST - 1, axis=1)[:, :NUM_NEAREST], np.float32)


def _mean_of_finite(values: Floats) -> Floats:
    finite = np.isfinite(values)
    total = np.where(finite, values, 0).sum(axis=1)
    return np.asarray(total / np.maximum(finite.sum(axis=1), 1), np.float32)

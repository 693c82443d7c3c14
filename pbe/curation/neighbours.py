"""Which images the image tower maps close together, how unusual each is, and how typical of its kind.

Exact: every vector is compared with every other, in tiles of a matrix product, so that the time grows with the square
of the images and the memory does not. Vectors are centred first: a tower's embeddings share most of their length.
"""

from collections.abc import Iterator
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
    """What a block of rows found: `pairs` is (P, 2), each i < j; `nearest` is each row's mean distance to its three."""

    rows: slice
    pairs: Ints
    nearest: Floats


def centre(vectors: Floats) -> None:
    """Make (N, D) vectors, in place, their unit-norm differences from their mean; a vector at the mean becomes 0."""
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    for start in range(0, len(vectors), _COLUMNS):
        part = vectors[start : start + _COLUMNS]
        part -= mean
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), np.float32(1e-12))


def search(vectors: Floats, within: float) -> Iterator[Block]:
    """Compare (N, D) unit-norm vectors with one another; yields a block of rows after the other.

    A pair is listed where the cosine distance is at most `within`, in the block of its smaller row.
    """
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, min(start + _ROWS, len(vectors)))
        closest = np.full((rows.stop - start, NUM_NEAREST), np.inf, np.float32)
        pairs = [np.zeros((0, 2), np.int64)]
        for left in range(0, len(vectors), _COLUMNS):
            distances = 1 - vectors[rows] @ vectors[left : left + _COLUMNS].T
            i, j = np.arange(start, rows.stop), np.arange(left, left + distances.shape[1])
            own = np.intersect1d(i, j)
            distances[own - start, own - left] = np.inf
            closest = _smallest(np.concatenate([closest, _smallest(distances)], axis=1))
            found = np.argwhere(distances <= within) + np.array((start, left))
            pairs.append(found[found[:, 0] < found[:, 1]])
        yield Block(rows, np.concatenate(pairs), _mean_of_finite(closest))


def uniqueness(nearest: Floats) -> Floats:
    """Scale (N,) mean distances to the nearest to 0..1, the most unusual image 1."""
    return np.asarray(np.maximum(nearest, 0) / max(float(nearest.max(initial=0.0)), 1e-12), np.float32)


def typicality(vectors: Floats, seed: int = 0) -> Floats:
    """How near each of (N, D) vectors is to the centre of its cluster, 0..1: 1 at the centre, 0 for the farthest.

    20 clusters by k-means, fitted on at most 20,000 vectors. A cluster of one is typical of nothing: 0.
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
    """The NUM_NEAREST smallest of each row, in no order."""
    if values.shape[1] <= NUM_NEAREST:
        return values
    return np.asarray(np.partition(values, NUM_NEAREST - 1, axis=1)[:, :NUM_NEAREST], np.float32)


def _mean_of_finite(values: Floats) -> Floats:
    finite = np.isfinite(values)
    total = np.where(finite, values, 0).sum(axis=1)
    return np.asarray(total / np.maximum(finite.sum(axis=1), 1), np.float32)

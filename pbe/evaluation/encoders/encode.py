"""Features of images of any size, batch by batch, as the protocol `corrected` defines them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.encoders.protocol import FeatureEncoder, Features
from pbe.evaluation.encoders.resizing import clip_input, stretch
from pbe.types import Image


def encode_images(encoder: FeatureEncoder, images: Iterable[Image], batch_size: int) -> Features:
    """Return the features (N, D) of whole images of any size; raises ValueError when there are no images."""
    encoded = [encode_whole(encoder, batch) for batch in batches(images, batch_size)]
    if not encoded:
        raise ValueError("no images to encode")
    return np.concatenate(encoded)


def encode_whole(encoder: FeatureEncoder, images: Sequence[Image]) -> Features:
    """Return the features (B, D) of whole images of any size: of their centre squares.

    An encoder that sees tiles gets the square at the nearest multiple of its input, cut into tiles.
    """
    side = encoder.input_px
    if not encoder.sees_tiles:
        return encoder(np.stack([clip_input(image, side) for image in images]))
    tiles = [_tiles(image, side) for image in images]
    ends = np.cumsum([len(t) for t in tiles])[:-1]
    return np.stack([part.mean(0) for part in np.split(encoder(np.concatenate(tiles)), ends)])


def _tiles(image: Image, side: int) -> NDArray[np.uint8]:
    """Return the centre square of the image, resized to n x n tiles of `side`: (n * n, side, side, 3)."""
    n = max(1, round(min(image.shape[:2]) / side))
    rows = clip_input(image, n * side).reshape(n, side, n, side, 3)
    return rows.swapaxes(1, 2).reshape(-1, side, side, 3)


def encode_batch(encoder: FeatureEncoder, images: Sequence[Image]) -> Features:
    """Return the features (B, D) of exemplars or crops of any size and shape, each stretched to a square."""
    return encoder(np.stack([stretch(image, encoder.input_px) for image in images]))


def batches(images: Iterable[Image], batch_size: int) -> Iterator[list[Image]]:
    """Yield lists of `batch_size` images, the last one shorter."""
    iterator = iter(images)
    while batch := list(islice(iterator, batch_size)):
        yield batch

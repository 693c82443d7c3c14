"""Features of images of any size, batch by batch."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.encoders.protocol import FeatureEncoder, Features
from pbe.method.exemplars import resize
from pbe.types import Image


def encode_images(encoder: FeatureEncoder, images: Iterable[Image], batch_size: int) -> Features:
    """Return the features (N, D) of whole images of any size; raises ValueError when there are no images."""
    batches = [encode_whole(encoder, batch) for batch in _batches(images, batch_size)]
    if not batches:
        raise ValueError("no images to encode")
    return np.concatenate(batches)


def encode_whole(encoder: FeatureEncoder, images: Sequence[Image]) -> Features:
    """Return the features (B, D) of whole images of any size: each resized, or cut into tiles if the encoder asks."""
    if not encoder.sees_tiles:
        return encode_batch(encoder, images)
    tiles = [_tiles(image, encoder.input_px) for image in images]
    ends = np.cumsum([len(t) for t in tiles])[:-1]
    return np.stack([part.mean(0) for part in np.split(encoder(np.concatenate(tiles)), ends)])


def _tiles(image: Image, side: int) -> NDArray[np.uint8]:
    """Resize the image to a square of the nearest multiple of `side`, and cut it into tiles (N, side, side, 3)."""
    n = max(1, round(min(image.shape[:2]) / side))
    rows = resize(image, n * side, n * side).reshape(n, side, n, side, 3)
    return rows.swapaxes(1, 2).reshape(-1, side, side, 3)


def encode_batch(encoder: FeatureEncoder, images: Sequence[Image]) -> Features:
    """Return the features (B, D) of images of any size, each resized to the encoder's input."""
    side = encoder.input_px
    return encoder(np.stack([resize(image, side, side) for image in images]))


def _batches(images: Iterable[Image], batch_size: int) -> Iterator[list[Image]]:
    iterator = iter(images)
    while batch := list(islice(iterator, batch_size)):
        yield batch

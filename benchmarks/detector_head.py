"""The detector of `detector.py`: EfficientNet-Lite0's features on a grid, frozen, and a linear layer for each cell.

    p(class | cell) = softmax(W f + b),   f = 112 channels at stride 16 beside 192 at stride 32 (304, on 20 x 20 cells)

A class's detection is the region around its most probable cell in which the class has at least half of that
probability; its box is the region's, its score the probability. There is one detection of a class in a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from detector_data import Example, image_sides
from numpy.typing import NDArray
from torch.nn import functional as F

from pbe.dataset.images import read_image
from pbe.evaluation.encoders.efficientnet import load_efficientnet
from pbe.method.exemplars import resize
from pbe.runtime.files import atomic_file, digest_files
from pbe.types import Box, Image, Progress, no_progress

INPUT_PX, GRID = 320, 20
NUM_CHANNELS = 112 + 192
_STRIDE_16, _STRIDE_32 = 13, 17  # layers up to block 10 and up to block 14, after stem and activation
CELLS_PER_STEP, LEARNING_RATE, WEIGHT_DECAY = 512, 3e-3, 1e-2
REGION_FRAC = 0.5

Features = NDArray[np.float16]  # (N, GRID, GRID, 304)
Probabilities = NDArray[np.float32]  # (N, GRID, GRID, classes); the background is left out


@dataclass(frozen=True)
class TrainingSet:
    """Features (N, GRID, GRID, C) and the class of each cell (N, GRID, GRID), 0 = background."""

    features: torch.Tensor
    targets: torch.Tensor


class FeatureGrid:
    """EfficientNet-Lite0, for one picture after another, so that a picture's features do not depend on its batch."""

    def __init__(self) -> None:
        layers = load_efficientnet(INPUT_PX)
        self._first, self._second = layers[:_STRIDE_16], layers[_STRIDE_16:_STRIDE_32]

    @torch.inference_mode()
    def __call__(self, image: Image) -> Features:
        pixels = torch.from_numpy(resize(image, INPUT_PX, INPUT_PX)).permute(2, 0, 1)[None].float()
        fine = self._first((pixels - 127) / 128)
        coarse = F.interpolate(self._second(fine), size=(GRID, GRID), mode="bilinear")
        return np.asarray(torch.cat([fine, coarse], 1)[0].permute(1, 2, 0).numpy(), np.float16)


def cached_features(
    cache: Path, images: Sequence[Path], grid: FeatureGrid, progress: Progress = no_progress
) -> Features:
    """Return the features of pictures, from the file `cache` when it holds those of the same bytes."""
    key = digest_files(images)
    if cache.is_file():
        with np.load(cache) as stored:
            if str(stored["key"]) == key:
                return np.asarray(stored["features"])
    features = np.empty((len(images), GRID, GRID, NUM_CHANNELS), np.float16)
    for place, path in enumerate(images):
        features[place] = grid(read_image(path))
        progress(place + 1, len(images))
    with atomic_file(cache) as part, part.open("wb") as file:
        np.savez(file, key=key, features=features)
    return features


def training_set(features: Features, examples: Sequence[Example], labels: Sequence[str]) -> TrainingSet:
    """Return features with the class of each cell whose centre lies in the object's box."""
    targets = np.zeros((len(examples), GRID, GRID), np.int64)
    for target, example in zip(targets, examples, strict=True):
        sides = image_sides(example.image)
        for label, box in (*example.others, (example.label, example.box)):
            x0, y0, x1, y1 = box_in_cells(box, sides)
            target[y0:y1, x0:x1] = labels.index(label) + 1
    return TrainingSet(torch.from_numpy(features).float(), torch.from_numpy(targets))


def box_in_cells(box: Box, sides: tuple[int, int]) -> Box:
    """Return the cells whose centres lie in a box of a picture (w, h), at least one."""
    sizes = (sides[0] / GRID, sides[1] / GRID)
    lows = [min(int(np.ceil(v / s - 0.5)), GRID - 1) for v, s in zip(box[:2], sizes, strict=True)]
    highs = [int(np.ceil(v / s - 0.5)) for v, s in zip(box[2:], sizes, strict=True)]
    return lows[0], lows[1], max(highs[0], lows[0] + 1), max(highs[1], lows[1] + 1)


@dataclass(frozen=True)
class Head:
    """A trained linear layer on standardised features."""

    weight: torch.Tensor  # (classes + 1, C)
    bias: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    @torch.inference_mode()
    def __call__(self, features: Features) -> Probabilities:
        x = (torch.from_numpy(features).float() - self.mean) / self.scale
        return np.asarray(F.linear(x, self.weight, self.bias).softmax(-1)[..., 1:].numpy())


class CellDraw:
    """Draws cells of a set, first a picture and then one of its cells, so that large objects do not count more."""

    def __init__(self, marked: torch.Tensor) -> None:
        """`marked` (N, GRID, GRID) says which cells to draw from; a picture without any is left out."""
        counts = marked.flatten(1).sum(1)
        starts = counts.cumsum(0) - counts
        self._cells = marked.flatten().nonzero()[:, 0]
        self._counts, self._starts = counts[counts > 0], starts[counts > 0]

    def __call__(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return `count` numbers of cells, counted through the whole set."""
        pictures = torch.randint(len(self._counts), (count,), generator=generator)
        shares = torch.rand(count, generator=generator)
        return self._cells[self._starts[pictures] + (shares * self._counts[pictures]).long()]


def train_head(real: TrainingSet, extra: TrainingSet | None, num_classes: int, num_steps: int, seed: int) -> Head:
    """Train on cells of the real pictures, or half of them of the `extra` ones; half of all are background."""
    generator = torch.Generator().manual_seed(seed)
    cells = real.features.flatten(0, 2)
    mean, scale = cells.mean(0), cells.std(0) + 1e-3
    weight = torch.zeros(num_classes + 1, cells.shape[1]).normal_(0, 0.01, generator=generator).requires_grad_()
    bias = torch.zeros(num_classes + 1).requires_grad_()
    optimizer = torch.optim.AdamW([weight, bias], LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    draws = [
        (part, draw)
        for part in (real, extra)
        if part is not None
        for draw in (CellDraw(part.targets > 0), CellDraw(part.targets == 0))
    ]
    for _ in range(num_steps):
        drawn = [(part, draw(CELLS_PER_STEP // len(draws), generator)) for part, draw in draws]
        x = torch.cat([part.features.flatten(0, 2)[places] for part, places in drawn])
        targets = torch.cat([part.targets.flatten()[places] for part, places in drawn])
        loss = F.cross_entropy(F.linear((x - mean) / scale, weight, bias), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return Head(weight.detach(), bias.detach(), mean, scale)


def detect(probabilities: NDArray[np.float32]) -> tuple[float, tuple[float, float, float, float]]:
    """Return score and box, in shares of the sides, of a class's detection in its probabilities (GRID, GRID)."""
    row, column = np.unravel_index(int(probabilities.argmax()), probabilities.shape)
    score = float(probabilities[row, column])
    _, regions = cv2.connectedComponents((probabilities >= REGION_FRAC * score).astype(np.uint8), connectivity=4)
    rows, columns = np.nonzero(regions == regions[row, column])
    x0, x1, y0, y1 = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    return score, (x0 / GRID, y0 / GRID, x1 / GRID, y1 / GRID)

"""How far the FID of a perfect model is from 0, by the number of results and of real images.

    .venv/bin/python benchmarks/fid_bias.py --images FOLDER [FOLDER ...] [--draws 20]
    .venv/bin/python benchmarks/fid_bias.py --statistics FILE

A perfect model's results and the real images are samples of one distribution: the Gaussian with the moments of the
features of photographs (EfficientNet-Lite0's, 192 dimensions), or with those in a file of reference statistics. With
images, the photographs themselves are divided at random as well, at the sizes that they allow. Prints FID, and its
share of the features' total variance, in which encoders compare. Asserts nothing about them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pbe.dataset.images import read_image
from pbe.evaluation.benches.bench_folder import IMAGE_SUFFIXES
from pbe.evaluation.encoders.efficientnet import EfficientNetEncoder
from pbe.evaluation.encoders.encode import encode_images
from pbe.evaluation.metrics.frechet import Moments, fit_moments, frechet_distance, perfect_distances
from pbe.evaluation.reference.statistics import read_reference_statistics
from pbe.types import Image

RESULTS = (256, 1000, 3500, 10_000)
REAL = (1000, 4000, 10_000, 40_670)
SPLITS = ((256, 1000), (256, 4000), (1000, 1000), (1000, 4000), (2000, 4000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, nargs="+")
    source.add_argument("--statistics", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    if options.statistics:
        statistics = read_reference_statistics(options.statistics)
        print(f"{statistics.num_images} images, {statistics.encoder}")
        print_table(statistics.moments, options.draws, rng)
        return
    encoder = EfficientNetEncoder()
    features = encode_images(encoder, photographs(options.images), 32)
    print(f"{len(features)} images, {encoder.name}, {features.shape[1]} dimensions")
    moments = fit_moments(features)
    print_table(moments, options.draws, rng)
    print_splits(features, moments, options.draws, rng)


def photographs(folders: list[Path]) -> Iterator[Image]:
    paths = (path for folder in folders for path in sorted(folder.rglob("*")))
    return (read_image(path) for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)


def print_table(moments: Moments, draws: int, rng: np.random.Generator) -> None:
    """Print a row for each number of results and a column for each number of real images."""
    variance = float(np.trace(moments.covariance))
    print(f"total variance {variance:.4g}; FID of a perfect model (% of the variance)\n")
    print("| results | " + " | ".join(f"{m:,} real" for m in REAL) + " |")
    print("|---:|" + "---:|" * len(REAL))
    for n in RESULTS:
        biases = [perfect_distances(moments, n, m, draws, rng).mean() for m in REAL]
        print(f"| {n:,} | " + " | ".join(f"{bias:.3g} ({100 * bias / variance:.2g} %)" for bias in biases) + " |")


def print_splits(features: NDArray[np.float32], moments: Moments, draws: int, rng: np.random.Generator) -> None:
    """Print the FID between disjoint random parts of the photographs beside that of Gaussian samples."""
    print("\n| results | real | photographs | Gaussian |\n|---:|---:|---:|---:|")
    for n, m in SPLITS:
        if n + m > len(features):
            continue
        orders = [rng.permutation(len(features)) for _ in range(draws)]
        real = np.mean([frechet_distance(features[o[:n]], features[o[n : n + m]]) for o in orders])
        print(f"| {n:,} | {m:,} | {real:.3g} | {perfect_distances(moments, n, m, draws, rng).mean():.3g} |")


if __name__ == "__main__":
    main()

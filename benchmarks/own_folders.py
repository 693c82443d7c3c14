"""Images/s of `acquire` on a folder of your own, in one process and in a process for each core.

    python benchmarks/own_folders.py [--images 600]

The folder has 1024 x 768 JPEGs, each with a mask of two objects. Three kinds of work are timed in both ways: reading
masks, copying images into shards, and copying reduced images (`acquire.short_side_px: 512`). Starting the processes is
part of the time. Prints rates and their ratio; exits with 1 when the two ways leave different files.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image, ImageDraw

from pbe.acquisition import download, shard_packing
from pbe.acquisition.importers import mask_folders
from pbe.acquisition.importers.mask_folders import read_masks
from pbe.acquisition.importers.placement import ImportCounts
from pbe.runtime.files import digest_folder
from pbe.settings import Acquire, load_settings

ROOT = Path(__file__).parents[1]
SIDES = (1024, 768)


def write_folder(root: Path, number: int) -> None:
    """Write images that differ, and their masks."""
    (root / "images/Cat").mkdir(parents=True)
    (root / "masks/Cat").mkdir(parents=True)
    rough = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(rough).resize(SIDES, Image.Resampling.BICUBIC))
    for i in range(number):
        Image.fromarray(np.roll(picture, 7 * i, axis=1)).save(root / f"images/Cat/{i:06d}.jpg", quality=90)
        mask = Image.new("L", SIDES)
        draw = ImageDraw.Draw(mask)
        draw.ellipse((100 + i % 300, 100, 500, 600), fill=1)
        draw.rectangle((700, 50, 900, 300 + i % 200), fill=2)
        mask.save(root / f"masks/Cat/{i:06d}.png")


@contextmanager
def processes(used: bool) -> Iterator[None]:
    """Let every number of files be divided among processes, or none."""
    least = 1 if used else sys.maxsize
    with (
        mock.patch.object(mask_folders, "MIN_IN_PROCESSES", least),
        mock.patch.object(shard_packing, "MIN_IN_PROCESSES", least),
    ):
        yield


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure each kind of work in both ways, and compare what they leave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    number = parser.parse_args().images
    folder = Path(tempfile.mkdtemp(prefix="own-folders-"))
    try:
        write_folder(folder / "own", number)
        masks = load_settings(ROOT / "params.yaml").acquire.replace(source="masks", root=str(folder / "own"))
        print(f"{number} images, {len(os.sched_getaffinity(0))} cores; images/s")
        report("masks read", number, lambda: list(read_masks(masks, ImportCounts())))
        same = [
            compare(folder, "copied", number, masks),
            compare(folder, "reduced", number, masks.replace(short_side_px=512)),
        ]
    finally:
        shutil.rmtree(folder)
    sys.exit(0 if all(same) else 1)


def report(name: str, number: int, work: Callable[[], object]) -> None:
    seconds = {}
    for used in (False, True):
        with processes(used):
            seconds[used] = timed(work)
    print(f"{name:12s} one {number / seconds[False]:8.1f}   several {number / seconds[True]:8.1f}"
          f"   ratio {seconds[False] / seconds[True]:.2f}", flush=True)  # fmt: skip


def compare(folder: Path, name: str, number: int, masks: Acquire) -> bool:
    """Time the copying of a folder in OpenImages' layout that the masks' import made; return whether it is the same."""
    annotated = folder / "annotated"
    if not annotated.exists():
        download.acquire(masks.replace(short_side_px=None), 0, annotated)
    settings = masks.replace(source="folder", root=str(annotated_folder(folder, annotated)))
    outs = [folder / f"{name}-{used}" for used in (False, True)]
    remaining = iter(outs)
    report(name, number, lambda: download.acquire(settings, 0, next(remaining)))
    return digest_folder(outs[0]) == digest_folder(outs[1])


def annotated_folder(folder: Path, annotated: Path) -> Path:
    """Return a folder in OpenImages' layout with the annotations of `annotated` and the images as files."""
    root = folder / "layout"
    if not root.exists():
        shutil.copytree(annotated / "annotations", root / "annotations")
        for split in ("train", "validation"):
            (root / split).symlink_to(folder / "own/images/Cat")
    return root


if __name__ == "__main__":
    main()

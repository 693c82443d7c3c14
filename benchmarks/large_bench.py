"""Draw a bench as large as COCOEE, 3,500 cases at 512 px, in the layout of its authors' download.

    .venv/bin/python benchmarks/large_bench.py OUT [--num-cases 3500] [--image-px 512] [--num-real 2000]

Leaves OUT/COCOEE/test_bench/ without id_list.npy, and OUT/real/, photographs' stand-ins for FID. The pictures are
enlarged scenes of the demo world with grain; each exemplar is an object of another scene.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pbe.demo.scenes import ObjectBox, Scene, draw_scene
from pbe.evaluation.benches.bench import Case, write_case, write_image
from pbe.types import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num-cases", type=int, default=3500)
    parser.add_argument("--image-px", type=int, default=512)
    parser.add_argument("--num-real", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    draw_real = partial(write_real, options.out / "real", options.image_px)
    draw_case = partial(write_drawn_case, options.out / "COCOEE" / "test_bench", options.image_px)
    (options.out / "real").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        for draw, count in ((draw_real, options.num_real), (draw_case, options.num_cases)):
            list(tqdm(pool.map(draw, range(count), chunksize=16), total=count))


def write_drawn_case(folder: Path, image_px: int, case_id: int) -> None:
    """Write a case: repaint one object's box of a scene with an object of another scene."""
    rng = np.random.default_rng([1, case_id])
    (source, box), (other, other_box) = (enlarged(draw_scene(rng, rare_kinds=False), image_px, rng) for _ in range(2))
    mask = np.zeros((image_px, image_px), np.uint8)
    mask[box.y0 : box.y1, box.x0 : box.x1] = 1
    exemplar = other[other_box.y0 : other_box.y1, other_box.x0 : other_box.x1]
    write_case(folder, Case(case_id, source, mask, exemplar))


def write_real(folder: Path, image_px: int, number: int) -> None:
    rng = np.random.default_rng([2, number])
    image, _ = enlarged(draw_scene(rng, rare_kinds=False), image_px, rng)
    write_image(folder / f"{number:012d}.png", image)


def enlarged(scene: Scene, image_px: int, rng: np.random.Generator) -> tuple[Image, ObjectBox]:
    """Return a square of the scene that holds its last object, enlarged with grain, and that object's box in it."""
    height, width = scene.image.shape[:2]
    box, side = scene.objects[-1].box, min(height, width)
    left = int(np.clip((box.x0 + box.x1 - side) // 2, 0, width - side))
    top = int(np.clip((box.y0 + box.y1 - side) // 2, 0, height - side))
    square = scene.image[top : top + side, left : left + side]
    large = cv2.resize(square, (image_px, image_px), interpolation=cv2.INTER_CUBIC)
    grain = rng.integers(-3, 4, large.shape, dtype=np.int16)
    image = np.clip(large.astype(np.int16) + grain, 0, 255).astype(np.uint8)
    edges = np.array([box.x0 - left, box.y0 - top, box.x1 - left, box.y1 - top]) * image_px // side
    x0, y0, x1, y1 = (int(edge) for edge in np.clip(edges, 0, image_px))
    return image, ObjectBox(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))


if __name__ == "__main__":
    main()

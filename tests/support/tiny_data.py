"""A few curated scenes on disk: what encoding, and training from images, read."""

from pathlib import Path

import numpy as np
import polars as pl

from pbe.dataset.curated_boxes import BOXES_FILE
from pbe.dataset.image_shards import LOCATION, ImageRef, write_tar
from pbe.demo import scenes
from pbe.demo.faults import encode_jpeg
from pbe.types import Box, Image

BoxData = tuple[str, str, str, Box, ImageRef]  # box_id, image_id, split, xyxy, where the image is


def write_scenes(root: Path, num_scenes: int = 12) -> Path:
    """Write `num_scenes` scenes of each split with one box each, as `images/` and `boxes.parquet`; always the same."""
    rows: list[BoxData] = []
    for split in ("train", "validation"):
        rngs = {f"{split[0]}{i:015x}": np.random.default_rng([len(split), i]) for i in range(num_scenes)}
        drawn = {name: scenes.draw_scene(rng, 1) for name, rng in rngs.items()}
        places = write_images(root, split, {name: scene.image for name, scene in drawn.items()})
        for name, scene in drawn.items():
            x0, y0, x1, y1 = map(int, scene.objects[0].box)
            rows.append((f"{name}_000", name, split, (x0, y0, x1, y1), places[name]))
    write_boxes(root, rows)
    return root


def write_images(root: Path, split: str, images: dict[str, Image]) -> dict[str, ImageRef]:
    """Write the images as JPEGs in one shard of `images/`; return where each is."""
    (root / "images").mkdir(exist_ok=True)
    files = [(name, encode_jpeg(image)) for name, image in images.items()]
    places = write_tar(root / "images" / f"{split}-00000.tar", files)
    return {name: ImageRef(*place) for name, place in places.items()}


def write_boxes(root: Path, rows: list[BoxData]) -> None:
    """Write the boxes as `boxes.parquet`."""
    columns = ["box_id", "image_id", "split", "x0", "y0", "x1", "y1", *LOCATION]
    root.mkdir(parents=True, exist_ok=True)
    flat = [(box_id, image_id, split, *xyxy, *place) for box_id, image_id, split, xyxy, place in rows]
    pl.DataFrame(flat, schema=columns, orient="row").write_parquet(root / BOXES_FILE)

"""A few curated scenes on disk: what training from images reads."""

from pathlib import Path

import cv2
import numpy as np
import polars as pl

from pbe.data import world


def write_scenes(root: Path, num_scenes: int = 12) -> Path:
    """`num_scenes` scenes of each split with one box each, as `images/` and `boxes.parquet`; the same at each call."""
    rows = []
    for split in ("train", "validation"):
        (root / "images" / split).mkdir(parents=True)
        for i in range(num_scenes):
            scene = world.draw_scene(np.random.default_rng([len(split), i]), 1)
            name = f"{split[0]}{i:015x}"
            cv2.imwrite(str(root / "images" / split / f"{name}.jpg"), scene.image[..., ::-1])
            rows.append((f"{name}_000", name, split, *map(int, scene.objects[0].box)))
    columns = ["box_id", "image_id", "split", "x0", "y0", "x1", "y1"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(root / "boxes.parquet")
    return root

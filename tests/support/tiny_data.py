"""A few curated scenes on disk: what training from images reads."""

from pathlib import Path

import numpy as np
import polars as pl

from pbe.dataset.image_shards import LOCATION, write_tar
from pbe.demo import scenes
from pbe.demo.faults import encode_jpeg


def write_scenes(root: Path, num_scenes: int = 12) -> Path:
    """`num_scenes` scenes of each split with one box each, as `images/` and `boxes.parquet`; the same at each call."""
    rows = []
    (root / "images").mkdir()
    for split in ("train", "validation"):
        rngs = {f"{split[0]}{i:015x}": np.random.default_rng([len(split), i]) for i in range(num_scenes)}
        scenes = {name: scenes.draw_scene(rng, 1) for name, rng in rngs.items()}
        images = [(name, encode_jpeg(scene.image)) for name, scene in scenes.items()]
        at = write_tar(root / "images" / f"{split}-00000.tar", images)
        rows += [(f"{n}_000", n, split, *map(int, s.objects[0].box), *at[n]) for n, s in scenes.items()]
    columns = ["box_id", "image_id", "split", "x0", "y0", "x1", "y1", *LOCATION]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(root / "boxes.parquet")
    return root

"""Images/s of curation's decoding and embedding: in threads of one machine, and on a Ray cluster of two nodes.

    python benchmarks/examination.py [--images 512]

The images are 1024 x 768 JPEGs, the tower is the bundled one (32 px), so that the time is that of decoding, measuring
and writing thumbnails. The cluster is simulated on this machine; its time includes the start of an actor on each node.
Then every two of 8,192 embeddings of CLIP ViT-L/14's width are compared, as the search for near duplicates does. Exits
with 1 when the results of threads and cluster differ in a bit.
"""

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from flows import environment

environment.apply()

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
from PIL import Image  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from pbe.curation import neighbours  # noqa: E402
from pbe.curation.examination import ExamineBlocks, ExaminedBlock, Examiner, in_threads  # noqa: E402
from pbe.curation.ray_examination import Tower, on_cluster  # noqa: E402
from pbe.curation.thumbnails import encode_jpeg, thumbnail_path  # noqa: E402
from pbe.dataset.image_shards import ImageShards, write_tar  # noqa: E402
from pbe.method.conditioner import Conditioner  # noqa: E402
from pbe.runtime.ray_cluster import ray_cluster  # noqa: E402
from pbe.settings import load_settings  # noqa: E402

ROOT = Path(__file__).parents[1]
ENCODER = ROOT / "data/tiny/image_encoder"
BLOCK = 64
NUM_VECTORS, WIDTH = 8_192, 1024


def write_images(folder: Path, number: int) -> list[pl.DataFrame]:
    """Write a shard of images that differ; return the rows of the examination in blocks."""
    (folder / "images").mkdir()
    rough = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(rough).resize((1024, 768), Image.Resampling.BICUBIC))
    files = ((f"{i:06d}", encode_jpeg(np.roll(picture, 7 * i, axis=1), 1024)) for i in range(number))
    refs = write_tar(folder / "images/train-00000.tar", files)
    rows = [{"image_id": name, "split": "train", **ref._asdict(), "size": None} for name, ref in refs.items()]
    return list(pl.DataFrame(rows, schema_overrides={"size": pl.List(pl.Int64)}).iter_slices(BLOCK))


def timed(examine: ExamineBlocks, examiner: Examiner, blocks: list[pl.DataFrame]) -> tuple[float, list[ExaminedBlock]]:
    list(examine(examiner, blocks[:2]))  # loads the tower, and starts an actor
    began = time.perf_counter()
    results = list(examine(examiner, blocks))
    return time.perf_counter() - began, results


def same(a: ExaminedBlock, b: ExaminedBlock) -> bool:
    arrays = np.array_equal(a.thumbnails, b.thumbnails) and np.array_equal(a.embeddings, b.embeddings)
    return arrays and a.images.equals(b.images)


def compare_all() -> float:
    """Return how many seconds the comparison of every two of NUM_VECTORS embeddings takes."""
    vectors = np.random.default_rng(0).standard_normal((NUM_VECTORS, WIDTH), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    began = time.perf_counter()
    list(neighbours.search(vectors, 0.1))
    return time.perf_counter() - began


def main() -> None:
    """Measure both ways on the same images, and compare the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    number = parser.parse_args().images
    cores = len(os.sched_getaffinity(0))
    seconds = compare_all()
    print(f"near duplicates: {NUM_VECTORS**2 / seconds / 1e6:.1f} million pairs/s, {cores} cores", flush=True)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        blocks = write_images(home, number)
        settings = load_settings(ROOT / "params.yaml").curate
        examiner = Examiner(ImageShards(home / "images"), partial(thumbnail_path, home), settings, 32)
        embed = Conditioner.from_tower(ENCODER, context_dim=1).embed
        for threads in (1, cores):
            seconds, here = timed(in_threads(embed, threads), examiner, blocks)
            print(f"{threads} threads: {number / seconds:.1f} images/s", flush=True)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        cluster.add_node(num_cpus=1)
        try:
            with ray_cluster(cluster.address, 0):
                seconds, there = timed(on_cluster(Tower(ENCODER, "fp32", use_gpu=False), home), examiner, blocks)
        finally:
            cluster.shutdown()
        print(f"two nodes of Ray, two actors: {number / seconds:.1f} images/s", flush=True)
    agree = all(same(a, b) for a, b in zip(here, there, strict=True))
    print("the same bits" if agree else "DIFFERENT results")
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()

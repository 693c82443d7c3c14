"""How long curation takes, how much memory, and where the time goes, over the number of images.

    .venv/bin/python benchmarks/curate.py [--images 5000 20000 50000] [--figure docs/curate.png]

Worlds are drawn here (64 px scenes, 7 % of them with a planted fault), acquired and filtered by the project's own code,
and curated in a process of their own into a FiftyOne database in a temporary folder. At the smallest size the same
images then go through FiftyOne's own way, in the same process: `add_samples` against our documents, Brain's uniqueness
and near-duplicates against our tiles. Prints times, peaks, ratios and the faults found; asserts nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from pbe.acquisition.download import acquire
from pbe.curation.selection import PHASES, curate
from pbe.dataset.openimages import ANNOTATIONS_BUCKET, IMAGES_BUCKET
from pbe.demo.bucket import name_image, write_bucket
from pbe.demo.faults import plan_faults
from pbe.filtering.box_filter import filter_boxes
from pbe.settings import Acquire, Curate, Filter, World

ROOT = Path(__file__).parents[1]
SEED = 0
DATASET = "measured"


def write_world(folder: Path, num_images: int) -> World:
    """Draw `num_images`, a tenth of them for validation, into `folder`/raw and `folder`/boxes."""
    num_validation = num_images // 10
    world = World(train_images=num_images - num_validation, validation_images=num_validation, fault_frac=0.01)
    write_bucket(folder / "bucket", world, SEED, num_workers=os.cpu_count() or 1)
    source = folder / "source"
    (source / "annotations").mkdir(parents=True)
    (source / "images").symlink_to(folder / "bucket" / IMAGES_BUCKET)
    for file in (folder / "bucket" / ANNOTATIONS_BUCKET).rglob("*.csv"):
        (source / "annotations" / file.name).symlink_to(file)
    acquire(Acquire(source="folder", root=str(source), workers=2), SEED, folder / "raw")
    filter_boxes(folder / "raw", folder / "boxes", Filter(max_boxes_per_image=None), seed=SEED)
    return world


def run_measured(folder: Path, compare: bool) -> None:
    """Curate what `folder` holds and print what it took, as JSON."""
    from flows.progress import shown
    from pbe.method.conditioner import Conditioner
    from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.mongod import running_mongod

    tower = Conditioner.from_tower(ROOT / "data/tiny/image_encoder", context_dim=1)
    home, begun, bars = folder / ".fiftyone", [], shown("curate")

    def timed(what: str) -> Callable[[int, int], None]:
        begun.append(time.perf_counter())
        return bars(what)

    with running_mongod(home) as uri:
        mongod = int((home / "db/mongod.lock").read_text())
        with connected_fiftyone(uri, home):  # seconds of imports are not curation
            before = peak_mb(os.getpid())
        curate(
            folder / "raw",
            folder / "boxes/boxes.parquet",
            folder / "curated",
            Curate(),
            tower.embed,
            database_uri=uri,
            home=home,
            dataset=DATASET,
            embed_px=tower.exemplar_px,
            num_workers=os.cpu_count() or 1,
            bars=timed,
        )
        begun.append(time.perf_counter())
        told: dict[str, Any] = {
            "seconds": [end - start for start, end in pairwise(begun)],
            "before": before,
            "python": peak_mb(os.getpid()),
            "mongod": peak_mb(mongod),
        }
        if compare:
            with connected_fiftyone(uri, home) as fo:
                told["peer"] = fiftyones_way(fo)
    print(json.dumps(told))


def peak_mb(process: int) -> float:
    """The most memory that the process ever had resident, its mapped files included."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def fiftyones_way(fo: Any) -> dict[str, float]:
    """Seconds of FiftyOne's `add_samples` and of Brain's uniqueness and near-duplicates, on the curated samples."""
    import fiftyone.brain as fob
    import numpy as np

    ours = fo.load_dataset(DATASET)
    view = ours.exists("uniqueness")
    embeddings = ours.load_brain_results("tower").get_embeddings(sample_ids=view.values("id"))[0]
    rows = ours.values(["filepath", "tags", "ground_truth.detections.label", "ground_truth.detections.bounding_box"])
    theirs = fo.Dataset("peer")
    started = time.perf_counter()
    samples = []
    for path, tags, labels, boxes in zip(*rows, strict=True):
        found = [fo.Detection(label=n, bounding_box=b) for n, b in zip(labels, boxes, strict=True)]
        samples.append(fo.Sample(filepath=path, tags=tags, ground_truth=fo.Detections(detections=found)))
    theirs.add_samples(samples)
    added = time.perf_counter()
    index = fob.compute_similarity(view, embeddings=np.array(embeddings, np.float64), brain_key="peer")
    fob.compute_uniqueness(view, uniqueness_field="peer_uniqueness", similarity_index=index)
    fob.compute_near_duplicates(view, threshold=Curate().near_duplicate_distance, similarity_index=index)
    return {"add_samples": added - started, "brain": time.perf_counter() - added}


def found_faults(folder: Path, world: World) -> tuple[int, int, int]:
    """Planted faults, those of them that were found, and images rejected for another reason.

    Of a copy and its original the one with the smaller id stays, so that either may be the one that is rejected.
    """
    counts = {"train": world.train_images, "validation": world.validation_images}
    kinds = {
        (split, name_image(SEED, split, index)): {"truncated": "undecodable"}.get(fault.kind, fault.kind)
        for (split, index), fault in plan_faults(counts, world.fault_frac, SEED).items()
    }
    rejected = pl.read_parquet(folder / "curated/images.parquet").filter(verdict="reject")
    columns = rejected.select("split", "image_id", "duplicate_of", "reason")
    right = sum(said in (kinds.get((split, key)), kinds.get((split, of))) for split, key, of, said in columns.rows())
    return len(kinds), right, rejected.height - right


def measure(num_images: int, compare: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        world = write_world(folder, num_images)
        print(
            f"{num_images:,} images drawn, acquired and filtered in {time.perf_counter() - started:.0f} s", flush=True
        )
        command = [sys.executable, __file__, "--run", name, *(["--compare"] if compare else [])]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        measured: dict[str, Any] = json.loads(told.splitlines()[-1])
        measured["faults"] = found_faults(folder, world)
        measured["boxes"] = pl.read_parquet(folder / "boxes/boxes.parquet").height
    return measured


def tell(num_images: int, measured: dict[str, Any]) -> None:
    seconds = measured["seconds"]
    phases = ", ".join(
        f"{what} {took:.0f} s ({num_images / took:,.0f}/s)" for what, took in zip(PHASES, seconds, strict=True)
    )
    planted, right, more = measured["faults"]
    print(f"{num_images:>8,} images, {measured['boxes']:,} boxes: {sum(seconds) / 60:.2f} minutes: {phases}")
    print(f"{'':9}peak memory: python {measured['python']:,.0f} MB ({measured['before']:,.0f} before it began), "
          f"mongod {measured['mongod']:,.0f} MB; {right} of {planted} planted faults found, "
          f"{more} rejected for another reason", flush=True)  # fmt: skip
    if "peer" in measured:
        add, brain = measured["peer"]["add_samples"], measured["peer"]["brain"]
        print(
            f"{'':9}FiftyOne's own: add_samples {add:.1f} s, {add / seconds[2]:.1f} times ours with index and views; "
            f"Brain {brain:.1f} s, {brain / seconds[1]:.1f} times ours with the pixels' check",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[5000, 20000, 50000])
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw minutes and memory over the images")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_measured(options.run, options.compare)
        return
    print(f"{os.cpu_count()} cores")
    measured: dict[int, dict[str, Any]] = {}
    for number in options.images:
        measured[number] = measure(number, compare=number == min(options.images))
        tell(number, measured[number])
    if options.figure:
        draw(measured, options.figure)


def draw(measured: dict[int, dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (times, memory) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    thousands = [number / 1000 for number in measured]
    minutes = [[m["seconds"][phase] / 60 for m in measured.values()] for phase in range(len(PHASES))]
    times.stackplot([0, *thousands], [[0, *each] for each in minutes], labels=PHASES, alpha=0.85)
    for which, label in (("python", "python"), ("mongod", "mongod")):
        memory.plot(thousands, [m[which] for m in measured.values()], marker="o", label=label)
    memory.plot(thousands, [m["before"] for m in measured.values()], ":", color="grey", label="python, imports alone")
    for axis, title in ((times, "minutes"), (memory, "peak memory, MB")):
        axis.set(xlabel="thousand images", title=title, xlim=(0, None), ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

"""Time and memory of curation by the number of images, and the time of each phase.

    .venv/bin/python benchmarks/curate.py [--images 5000 20000 50000] [--figure docs/curate.png]

The script draws worlds (64 px scenes, 7 % of them with a planted fault), acquires and filters them, and curates each in
a separate process into a FiftyOne database in a temporary folder. At the smallest size, the same process then runs
FiftyOne's functions on the same images: `add_samples`, and Brain's uniqueness and near-duplicates. Prints times, peaks,
ratios and the faults found; asserts nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from pbe.acquisition.download import acquire
from pbe.curation.examination import in_threads
from pbe.curation.selection import PHASES, curate
from pbe.dataset.openimages import ANNOTATIONS_BUCKET, IMAGES_BUCKET
from pbe.demo.bucket import name_image, write_bucket
from pbe.demo.faults import plan_faults
from pbe.filtering.box_filter import filter_boxes
from pbe.settings import World, load_settings
from pbe.types import Progress

ROOT = Path(__file__).parents[1]
SETTINGS = load_settings(ROOT / "params.yaml")
SEED = 0
DATASET = "measured"


def write_world(folder: Path, num_images: int) -> World:
    """Draw, acquire and filter `num_images`, a tenth of them for validation, into `folder`/raw and `folder`/boxes."""
    num_validation = num_images // 10
    world = SETTINGS.acquire.world.replace(
        train_images=num_images - num_validation, validation_images=num_validation, fault_frac=0.01
    )
    write_bucket(folder / "bucket", world, SEED, num_workers=os.cpu_count() or 1)
    source = folder / "source"
    (source / "annotations").mkdir(parents=True)
    (source / "images").symlink_to(folder / "bucket" / IMAGES_BUCKET)
    for file in (folder / "bucket" / ANNOTATIONS_BUCKET).rglob("*.csv"):
        (source / "annotations" / file.name).symlink_to(file)
    acquire(SETTINGS.acquire.replace(source="folder", root=str(source), workers=2), SEED, folder / "raw")
    filter_boxes(folder / "raw", folder / "boxes", SETTINGS.filter.replace(max_boxes_per_image=None), seed=SEED)
    return world


def run_measured(folder: Path, compare: bool) -> None:
    """Curate the world in `folder` and print the time and memory as JSON."""
    from flows.progress import stage_progress
    from pbe.method.conditioner import Conditioner
    from pbe.runtime.fiftyone_connection import connected_fiftyone
    from pbe.runtime.mongod import running_mongod

    tower = Conditioner.from_tower(ROOT / "data/tiny/image_encoder", context_dim=1)
    home, started, bars = folder / ".fiftyone", [], stage_progress("curate")

    def timed(name: str) -> Progress:
        started.append(time.perf_counter())
        return bars(name)

    with running_mongod(home) as uri:
        mongod = int((home / "db/mongod.lock").read_text())
        with connected_fiftyone(uri, home):  # its imports take seconds, which are not counted
            before = peak_mb(os.getpid())
        curate(
            folder / "raw",
            folder / "boxes/boxes.parquet",
            folder / "curated",
            SETTINGS.curate,
            in_threads(tower.embed, os.cpu_count() or 1),
            database_uri=uri,
            home=home,
            dataset=DATASET,
            embed_px=tower.exemplar_px,
            bars=timed,
        )
        started.append(time.perf_counter())
        measured: dict[str, Any] = {
            "seconds": [end - start for start, end in pairwise(started)],
            "before": before,
            "python": peak_mb(os.getpid()),
            "mongod": peak_mb(mongod),
        }
        if compare:
            with connected_fiftyone(uri, home) as fo:
                measured["peer"] = time_fiftyone(fo)
    print(json.dumps(measured))


def peak_mb(process: int) -> float:
    """Return the process's peak of resident memory, mapped files included."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def time_fiftyone(fo: Any) -> dict[str, float]:
    """Return the seconds of FiftyOne's `add_samples` and of Brain's functions, on the curated samples."""
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
    fob.compute_near_duplicates(view, threshold=SETTINGS.curate.near_duplicate_distance, similarity_index=index)
    return {"add_samples": added - started, "brain": time.perf_counter() - added}


def found_faults(folder: Path, world: World) -> tuple[int, int, int]:
    """Count planted faults, those of them that were found, and images rejected for another reason.

    Of a copy and its original the image with the smaller id is kept, so either of them may be the rejected one.
    """
    counts = {"train": world.train_images, "validation": world.validation_images}
    kinds = {
        (split, name_image(SEED, split, index)): {"truncated": "undecodable"}.get(fault.kind, fault.kind)
        for (split, index), fault in plan_faults(counts, world.fault_frac, SEED).items()
    }
    rejected = pl.read_parquet(folder / "curated/images.parquet").filter(verdict="reject")
    columns = rejected.select("split", "image_id", "duplicate_of", "reason")
    right = sum(
        reason in (kinds.get((split, key)), kinds.get((split, of))) for split, key, of, reason in columns.rows()
    )
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
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        measured: dict[str, Any] = json.loads(output.splitlines()[-1])
        measured["faults"] = found_faults(folder, world)
        measured["boxes"] = pl.read_parquet(folder / "boxes/boxes.parquet").height
    return measured


def print_result(num_images: int, measured: dict[str, Any]) -> None:
    seconds = measured["seconds"]
    phases = ", ".join(
        f"{name} {took:.0f} s ({num_images / took:,.0f}/s)" for name, took in zip(PHASES, seconds, strict=True)
    )
    planted, right, more = measured["faults"]
    print(f"{num_images:>8,} images, {measured['boxes']:,} boxes: {sum(seconds) / 60:.2f} minutes: {phases}")
    print(f"{'':9}peak memory: python {measured['python']:,.0f} MB ({measured['before']:,.0f} after the imports), "
          f"mongod {measured['mongod']:,.0f} MB; {right} of {planted} planted faults found, "
          f"{more} rejected for another reason", flush=True)  # fmt: skip
    if "peer" in measured:
        add, brain = measured["peer"]["add_samples"], measured["peer"]["brain"]
        print(
            f"{'':9}FiftyOne: add_samples {add:.1f} s, {add / seconds[2]:.1f} times ours with index and views; "
            f"Brain {brain:.1f} s, {brain / seconds[1]:.1f} times ours with the check of pixels",
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
        print_result(number, measured[number])
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

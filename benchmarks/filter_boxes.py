"""Time and memory of filtering, against a bare polars scan, filter and sink of the same columns.

    .venv/bin/python benchmarks/filter_boxes.py [--rows 1000000 14600000] [--figure docs/filter.png]

The script draws annotation files with OpenImages' columns and proportions (8.4 boxes per image). Each of the two runs
in its own process, whose peak memory the kernel reports. Prints times and ratios; asserts nothing.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from pbe.acquisition.download import MANIFEST_SCHEMA
from pbe.dataset import openimages
from pbe.filtering.box_filter import filter_boxes
from pbe.settings import load_settings

ROOT = Path(__file__).parents[1]
BOXES_PER_IMAGE = 8.4
CHUNK_IMAGES = 100_000


def write_annotations(raw: Path, num_rows: int) -> None:
    """Draw `num_rows` boxes for train and a fiftieth of that for validation, and a manifest of their images."""
    rng = np.random.default_rng(0)
    (raw / "annotations").mkdir(parents=True)
    classes = [f"/m/{n:05d}" for n in range(600)]
    pl.DataFrame({"LabelName": classes, "DisplayName": [f"Class {n}" for n in range(600)]}).write_csv(
        raw / "annotations" / openimages.CLASSES_FILE.name
    )
    manifests = []
    for split, rows in (("train", num_rows), ("validation", max(1000, num_rows // 50))):
        num_images = max(1, int(rows / BOXES_PER_IMAGE))
        with (raw / "annotations" / openimages.BOX_FILES[split].name).open("wb") as file:
            for start in range(0, num_images, CHUNK_IMAGES):
                ids = [f"{split[0]}{i:015x}" for i in range(start, min(start + CHUNK_IMAGES, num_images))]
                draw_chunk(rng, ids, classes).write_csv(file, include_header=start == 0, float_precision=6)
                manifests.append(pl.DataFrame({"image_id": ids, "split": [split] * len(ids)}))
    columns = {
        "outcome": "ok",
        "shard": "train-00000.tar",
        "offset": 512,
        "num_bytes": 300_000,
        "md5": "",
        "width": 1024,
        "height": 768,
    }
    columns |= dict.fromkeys(openimages.CREDITS, "")
    manifest = pl.concat(manifests).with_columns(pl.lit(v).alias(k) for k, v in columns.items())
    manifest.select(*MANIFEST_SCHEMA).cast(MANIFEST_SCHEMA).write_parquet(raw / "manifest.parquet")  # type: ignore[arg-type]


def draw_chunk(rng: np.random.Generator, ids: list[str], classes: list[str]) -> pl.DataFrame:
    counts = rng.poisson(BOXES_PER_IMAGE - 1, len(ids)) + 1
    n = int(counts.sum())
    x0, y0 = rng.uniform(0, 0.8, n), rng.uniform(0, 0.8, n)
    width, height = rng.beta(1, 2, n) * (1 - x0), rng.beta(1, 2, n) * (1 - y0)
    flags = {name: (rng.random(n) < 0.1).astype(np.int8) for name in openimages.FLAGS}
    columns = {
        "ImageID": np.repeat(ids, counts),
        "Source": np.full(n, "xclick"),
        "LabelName": np.asarray(classes)[rng.integers(len(classes), size=n)],
        "Confidence": np.ones(n, np.int8),
        **dict(zip(openimages.COORDINATES, (x0, x0 + width, y0, y0 + height), strict=True)),
        **flags,
        "IsInside": np.zeros(n, np.int8),
    }
    return pl.DataFrame(columns)


def run_ours(raw: Path, out: Path) -> None:
    filter_boxes(raw, out, load_settings(ROOT / "params.yaml").filter, seed=0)


def run_bare(raw: Path, out: Path) -> None:
    """Read the same columns, apply the area rule and write parquet: the minimum that any filter does."""
    out.mkdir(parents=True, exist_ok=True)
    for split in openimages.SPLITS:
        boxes = pl.scan_csv(raw / "annotations" / openimages.BOX_FILES[split].name)
        area = (pl.col("XMax") - pl.col("XMin")) * (pl.col("YMax") - pl.col("YMin"))
        boxes.select(openimages.REQUIRED_COLUMNS).filter(area.is_between(0.02, 0.8)).sink_parquet(
            out / f"{split}.parquet"
        )


def measure(which: str, raw: Path, out: Path) -> tuple[float, float]:
    """Return the wall seconds, without imports, and the peak MB of one run in its own process."""
    result = subprocess.run(
        [sys.executable, __file__, "--run", which, str(raw), str(out)], check=True, capture_output=True, text=True
    )
    seconds, megabytes = result.stdout.split()[-2:]
    return float(seconds), float(megabytes)


def run_measured(which: str, raw: Path, out: Path) -> None:
    import resource

    started = time.perf_counter()
    {"ours": run_ours, "bare": run_bare}[which](raw, out)
    seconds = time.perf_counter() - started
    print(f"{seconds:.3f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 14_600_000])
    parser.add_argument("--run", nargs=3, metavar=("WHICH", "RAW", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw seconds and memory over the rows")
    options = parser.parse_args()
    if options.run:
        run_measured(options.run[0], Path(options.run[1]), Path(options.run[2]))
        return
    print(f"polars {pl.__version__}, {os.cpu_count()} cores")
    measured: dict[int, dict[str, tuple[float, float]]] = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw"
            write_annotations(raw, rows)
            times = {which: measure(which, raw, Path(folder) / which) for which in ("bare", "ours")}
        measured[rows] = times
        (bare_s, bare_mb), (ours_s, ours_mb) = times["bare"], times["ours"]
        print(
            f"{rows:>11,} rows: ours {ours_s:6.2f} s, {rows / ours_s:,.0f} boxes/s, {ours_mb:,.0f} MB; "
            f"bare {bare_s:6.2f} s, {bare_mb:,.0f} MB; ratio {ours_s / bare_s:.2f}"
        )
    if options.figure:
        draw(measured, options.figure)


def draw(measured: dict[int, dict[str, tuple[float, float]]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    labels = {"ours": "all rules, caps, numbering", "bare": "bare scan, one rule, sink"}
    millions = [rows / 1e6 for rows in measured]
    for axis, place, title in zip(axes, (0, 1), ("seconds", "peak memory, MB"), strict=True):
        for which, label in labels.items():
            axis.plot(millions, [times[which][place] for times in measured.values()], marker="o", label=label)
        axis.set(xlabel="million boxes", title=title, ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    axes[1].axhline(1000, color="grey", linestyle=":", linewidth=1)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

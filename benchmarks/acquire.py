"""Measures speed, CPU time and memory of acquiring images against the stock OpenImages downloader.

    .venv/bin/python benchmarks/acquire.py  # 200 KB and 15 KB objects, medians of 3 rounds
    .venv/bin/python benchmarks/acquire.py --numbers 1000 10000 100000 --sizes 15000 --rounds 1 --figure FILE.png

The peer follows OpenImages' `downloader.py`: five threads share one boto3 resource and call `download_file` for each
object, which sends a HEAD before its GET. All download from nginx on loopback (Debian's package `nginx-light`), which
serves JPEGs by sendfile under OpenImages' keys, with their MD5 as ETag, as S3 does. This project is measured twice: the
store alone, which writes each object to a separate file as the peer does, and the complete `acquire` with selection,
packing and manifest. Each measurement runs in a new process. CPU time and memory include its child processes, and its
imports are not timed. Afterwards the bytes of every object are hashed again. Prints ratios, asserts nothing about time.
"""

import argparse
import hashlib
import io
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from PIL import Image

from pbe.dataset import openimages

BUCKET = openimages.IMAGES_BUCKET
ROOT = Path(__file__).parents[1]
NUM_BODIES = 16  # the last digit of an image's id is the number of its body
STOCK_THREADS = 5
RUNS = {
    "stock": "stock: boto3 resource, 5 threads",
    "store": "ours, store alone",
    "acquire": "ours, complete acquire",
}


class Cost(NamedTuple):
    """The speed, CPU time per object and peak memory of one run."""

    objects_per_s: float
    cpu_ms: float
    peak_mb: float


def draw_bodies(num_bytes: int) -> list[bytes]:
    """Return `NUM_BODIES` JPEGs of noise of about `num_bytes` each."""
    rng = np.random.default_rng(0)

    def draw(side: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    side = int(64 * (num_bytes / len(draw(64))) ** 0.5)
    return [draw(side) for _ in range(NUM_BODIES)]


def name_images(number: int) -> list[str]:
    """Return `number` sorted image ids, whose last digits spread evenly over the bodies."""
    return sorted(f"{hashlib.md5(str(i).encode()).hexdigest()[:15]}{i % NUM_BODIES:x}" for i in range(number))


def write_bucket(root: Path, bodies: list[bytes], ids: list[str]) -> None:
    """Write each image under its key, as a link to one of the bodies, and OpenImages' annotation files."""
    train, validation = ids[:-1], ids[-1:]
    for split, images in (("train", train), ("validation", validation)):
        folder = root / BUCKET / split
        folder.mkdir(parents=True)
        for number, body in enumerate(bodies):
            (folder / f"{number:x}").write_bytes(body)
        for image_id in images:
            os.link(folder / image_id[-1], folder / f"{image_id}.jpg")
        write_annotations(root, split, images)


def write_annotations(root: Path, split: str, images: list[str]) -> None:
    """Write OpenImages' class descriptions with one class, and a box of that class for each image."""
    columns: dict[str, object] = dict.fromkeys(openimages.BOX_COLUMNS, 0)
    columns |= {"LabelName": "/m/0", "XMin": 0.1, "XMax": 0.9, "YMin": 0.1, "YMax": 0.9}
    boxes = pl.DataFrame({"ImageID": images}).with_columns(
        pl.lit(value).alias(name) for name, value in columns.items() if name != "ImageID"
    )
    folder = root / openimages.ANNOTATIONS_BUCKET
    path, classes = folder / openimages.BOX_FILES[split].key, folder / openimages.CLASSES_FILE.key
    for file in (path, classes):
        file.parent.mkdir(parents=True, exist_ok=True)
    boxes.select(openimages.BOX_COLUMNS).write_csv(path)
    classes.write_text(",".join(openimages.CLASS_COLUMNS) + "\n/m/0,Thing\n")


@contextmanager
def serve(root: Path, work: Path, bodies: list[bytes]) -> Iterator[str]:
    """Serve `root` with nginx on a free port of 127.0.0.1, with two workers; yields the URL."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        sys.exit("nginx not found: apt-get install nginx-light")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    etags = "".join(f"~{n:x}\\.jpg$ '\"{hashlib.md5(b).hexdigest()}\"';\n" for n, b in enumerate(bodies))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (work / "nginx.conf").write_text(
        f"""{"user root;" if os.getuid() == 0 else ""}
        worker_processes 2; daemon off; pid {work}/pid; error_log {work}/error.log;
        events {{ worker_connections 1024; }}
        http {{
          {" ".join(f"{kind}_temp_path {work}/{kind};" for kind in kinds)}
          map $uri $md5 {{ {etags} }}
          types {{}} default_type image/jpeg;
          access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; etag off; add_header ETag $md5;
          server {{ listen 127.0.0.1:{port}; root {root}; }}
        }}"""
    )
    server = subprocess.Popen([nginx, "-c", str(work / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if server.poll() is not None:
                    sys.exit((work / "error.log").read_text())
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def in_threads(num_threads: int, work: Callable[[str], object], ids: list[str]) -> None:
    """Call `work` for each id, a thousand at a time: a longer queue would take memory that is not the downloader's."""
    with ThreadPoolExecutor(num_threads) as threads:
        for start in range(0, len(ids), 1000):
            list(threads.map(work, ids[start : start + 1000]))


def run_stock(url: str, ids: list[str], out: Path) -> None:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(signature_version=UNSIGNED, s3={"addressing_style": "path"})
    bucket = boto3.resource("s3", endpoint_url=url, region_name="us-east-1", config=config).Bucket(BUCKET)
    in_threads(STOCK_THREADS, lambda i: bucket.download_file(f"train/{i}.jpg", str(out / f"{i}.jpg")), ids)


def run_store(url: str, ids: list[str], out: Path, workers: int) -> None:
    from pbe.acquisition.remote_stores import S3Store

    store = S3Store(BUCKET, "train/", 5, url, unsigned=True)
    in_threads(workers, lambda i: store.fetch(f"{i}.jpg", out / f"{i}.jpg"), ids)


def run_acquire(url: str, out: Path, workers: int) -> None:
    from pbe.acquisition.download import acquire
    from pbe.settings import load_settings

    acquire(
        load_settings(ROOT / "params.yaml").acquire.replace(
            source="openimages",
            endpoint_url=url,
            annotations_url=f"{url}/{openimages.ANNOTATIONS_BUCKET}",
            workers=workers,
        ),
        0,
        out / "raw",
    )


def run_measured(which: str, url: str, ids: list[str], out: Path, workers: int) -> None:
    """Run one way in this process; prints its wall and CPU seconds."""
    import boto3  # noqa: F401  imported before the clock starts

    import pbe.acquisition.download  # noqa: F401

    before, started = cpu_s(), time.perf_counter()
    if which == "stock":
        run_stock(url, ids, out)
    elif which == "store":
        run_store(url, ids, out, workers)
    else:
        run_acquire(url, out, workers)
    print(time.perf_counter() - started, cpu_s() - before)


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(which: str, url: str, root: Path, ids: list[str], workers: int) -> Cost:
    """Return the cost of one run in a new process; its memory and its children's is sampled 20 times a second."""
    out = root / "out"
    out.mkdir()
    command = [sys.executable, __file__, "--run", which]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        json.dump({"url": url, "ids": ids, "out": str(out), "workers": workers}, process.stdin)
        process.stdin.close()
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, resident_mb(process.pid))
            time.sleep(0.05)
        if process.returncode:
            sys.exit(f"{which} failed")
        seconds, cpu = (float(word) for word in process.stdout.read().split()[-2:])
    verify(out, ids, which)
    shutil.rmtree(out)
    return Cost(len(ids) / seconds, 1e3 * cpu / len(ids), peak)


def resident_mb(pid: int) -> float:
    """Return the proportional set size of a process and its children: memory that they share counts once."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    kilobytes = next((line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:")), "0")
    return int(kilobytes) / 1024 + sum(resident_mb(int(child)) for child in children)


def verify(out: Path, ids: list[str], which: str) -> None:
    """Hash the bytes of every image again, and exit if they differ from the server's."""
    expected = {f"{n:x}": md5 for n, md5 in enumerate(json.loads((out.parent / "md5.json").read_text()))}
    found = dict(md5_of_shards(out / "raw") if which.startswith("acquire") else md5_of_files(out))
    wrong = [image_id for image_id in ids if found.get(image_id) != expected[image_id[-1]]]
    if wrong or len(found) != len(ids):
        sys.exit(f"{which}: {len(found)} objects of {len(ids)}, {len(wrong)} of them with wrong bytes")


def md5_of_files(folder: Path) -> Iterator[tuple[str, str]]:
    for entry in os.scandir(folder):
        yield entry.name.removesuffix(".jpg"), hashlib.md5(Path(entry.path).read_bytes()).hexdigest()


def md5_of_shards(raw: Path) -> Iterator[tuple[str, str]]:
    from pbe.dataset.image_shards import ImageRef, ImageShards

    shards = ImageShards(raw / "images")
    for row in pl.read_parquet(raw / "manifest.parquet").iter_rows(named=True):
        content = shards.read_bytes(ImageRef(row["shard"], row["offset"], row["num_bytes"]))
        yield row["image_id"], hashlib.md5(content).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200_000, 15_000], help="bytes of an object")
    parser.add_argument("--numbers", type=int, nargs="+", default=[3000], help="objects")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=8, help="threads of this project's runs")
    parser.add_argument(
        "--stock-most", type=int, default=100_000, help="the stock downloader fetches at most this many objects"
    )
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw objects/s and memory over the numbers")
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        request = json.load(sys.stdin)
        request["out"] = Path(request["out"])
        run_measured(options.run, **request)
        return
    print(f"{os.cpu_count()} cores, {options.workers} threads, medians of {options.rounds}")
    for size in options.sizes:
        costs = {number: compare(size, number, options) for number in options.numbers}
        if options.figure:
            draw(costs, options.figure)


def compare(size: int, number: int, options: argparse.Namespace) -> dict[str, Cost]:
    """Measure each way once in every round, and print the medians."""
    costs: dict[str, list[Cost]] = {which: [] for which in options.runs}
    bodies, ids = draw_bodies(size), name_images(number)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_bucket(root / "www", bodies, ids)
        (root / "md5.json").write_text(json.dumps([hashlib.md5(body).hexdigest() for body in bodies]))
        with serve(root / "www", root, bodies) as url:
            for _ in range(options.rounds):
                for which, measured in costs.items():
                    all_train = ids if which.startswith("acquire") else ids[:-1]
                    wanted = all_train[: options.stock_most] if which == "stock" else all_train
                    measured.append(measure(which, url, root, wanted, options.workers))
    medians = {which: Cost(*map(statistics.median, zip(*measured, strict=True))) for which, measured in costs.items()}
    print(f"\n{number:,} objects of {statistics.mean(map(len, bodies)) / 1000:.0f} KB, all verified")
    for which, cost in medians.items():
        ratio = f"{cost.objects_per_s / medians['stock'].objects_per_s:6.2f} x" if "stock" in medians else ""
        print(
            f"{RUNS[which]:34} {cost.objects_per_s:7,.0f} objects/s {ratio}"
            f" {cost.cpu_ms:6.2f} ms CPU per object {cost.peak_mb:6.0f} MB",
            flush=True,
        )
    return medians


def draw(costs: dict[int, dict[str, Cost]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for axis, field, title in zip(axes, ("objects_per_s", "peak_mb"), ("objects/s", "peak memory, MB"), strict=True):
        for which in next(iter(costs.values())):
            values = [getattr(of_number[which], field) for of_number in costs.values()]
            axis.plot(list(costs), values, marker="o", label=RUNS[which])
        axis.set(xlabel="images", xscale="log", title=title, ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize="small"
    )
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

"""Checks that acquire writes the same bytes when the server fails and acquire itself is killed repeatedly.

    .venv/bin/python benchmarks/acquire_faults.py --images 3000 --kills 5 --seed 0
    .venv/bin/python benchmarks/acquire_faults.py --images 20000 --kills 0 --fault-share 0  # measures memory

The baseline is a quiet run. The other runs read from a server that fails a tenth of the requests (`faulty_endpoint`)
and are killed (SIGKILL) a moment after a random number of images; the last run is not killed. Every file below
data/raw must equal the quiet run's; otherwise the exit code is 1. Each run is a separate process with the parameters
of params.yaml, except for the numbers below.
"""

import argparse
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from acquire import draw_bodies, name_images, write_annotations
from tqdm import tqdm

from pbe.dataset import openimages
from pbe.demo.faulty_endpoint import FAULTS, FaultyEndpoint, serve_faulty

ROOT = Path(__file__).parents[1]
IMAGES_PER_SHARD = 100
VALIDATION_FRAC = 0.1
GONE_WITHIN_S = 5.0
LONGEST_WAIT_S = 0.05  # a random wait, so that kills do not fall only on completed images


class Run:
    """One run of `acquire` in a new process.

    `peaks_mb` is the peak memory of it and of its child processes, `held_mb` its memory at each tenth of the images.
    """

    def __init__(self, url: str, out: Path, options: argparse.Namespace, title: str) -> None:
        self.out, self.title, self.total = out, title, options.images
        self.peaks_mb: dict[int, float] = {}
        self.held_mb: list[float] = []
        request = {name: getattr(options, name) for name in ("seed", "workers")}
        command = [sys.executable, __file__, "--run", json.dumps({"url": url, "out": str(out), **request})]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._watch_memory, daemon=True).start()

    def wait(self, num_images: int | None = None) -> None:
        """Wait until it ends, or until `num_images` images are done."""
        assert self.process.stdout is not None
        with tqdm(total=self.total, desc=self.title) as bar:
            for line in self.process.stdout:
                bar.update(int(line) - bar.n)
                if 10 * bar.n >= (len(self.held_mb) + 1) * self.total:
                    self.held_mb.append(memory_mb(self.process.pid, "VmRSS"))
                if bar.n == num_images:
                    return
        if num_images is not None or self.process.wait():
            sys.exit(f"{self.title}: ended with {self.process.wait()}")

    def kill(self) -> int:
        """Kill it with SIGKILL; return how many of its processes still run after `GONE_WITHIN_S`."""
        self.process.kill()
        self.process.communicate()
        killed = time.monotonic()
        while (left := len(find_processes(self.out))) and time.monotonic() - killed < GONE_WITHIN_S:
            time.sleep(0.01)
        return left

    def describe_memory(self) -> str:
        own = self.peaks_mb.pop(self.process.pid)
        held = ", ".join(f"{mb:.0f}" for mb in self.held_mb)
        return f"{own:.0f} MB; at each tenth of the images {held} MB"

    def _watch_memory(self) -> None:
        while self.process.returncode is None:
            for pid in find_processes(self.out):
                self.peaks_mb[pid] = max(memory_mb(pid, "VmHWM"), self.peaks_mb.get(pid, 0.0))
            time.sleep(0.1)


def find_processes(out: Path) -> list[int]:
    """Return the processes that have `out` among their arguments: the run and its child processes."""
    return [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and str(out) in arguments(entry)
    ]


def arguments(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""  # the process has ended


def memory_mb(pid: int, which: str) -> float:
    """Return the resident memory of a process (`which` is VmRSS) or its peak (VmHWM); 0 when the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{which}:")), 0.0)


def write_bucket(root: Path, number: int, num_bytes: int) -> None:
    """Write JPEGs of noise under OpenImages' keys, each with its id as a comment, and the annotation files."""
    ids, bodies = name_images(number), draw_bodies(num_bytes)
    num_train = number - max(1, round(VALIDATION_FRAC * number))
    for split, images in (("train", ids[:num_train]), ("validation", ids[num_train:])):
        folder = root / openimages.IMAGES_BUCKET / split
        folder.mkdir(parents=True)
        for place, image_id in enumerate(tqdm(images, f"{split} images")):
            comment = image_id.encode() * (1 + place % 50)
            jpeg = bodies[place % len(bodies)]
            marked = jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]
            (folder / f"{image_id}.jpg").write_bytes(marked)
        write_annotations(root, split, images)


def run_acquire(url: str, out: str, seed: int, workers: int) -> None:
    from pbe.acquisition.download import acquire
    from pbe.settings import load_settings

    settings = load_settings(ROOT / "params.yaml").acquire.replace(
        source="openimages",
        endpoint_url=url,
        annotations_url=f"{url}/{openimages.ANNOTATIONS_BUCKET}",
        workers=workers,
        images_per_shard=IMAGES_PER_SHARD,
    )
    acquire(settings, seed, Path(out), progress=lambda done, total, note="": print(done, flush=True))


def count_complete(out: Path) -> int:
    """Return the number of complete images that a killed run leaves for the next one."""
    from pbe.dataset.image_shards import scan_shard

    shards = [*out.glob("images/*.tar"), *out.parent.glob(f".{out.name}.parts/[no][el][wd]/*")]
    return len({(path.name.split("-")[0], member.image_id) for path in shards for member in scan_shard(path)})


def run_killed(server: FaultyEndpoint, out: Path, options: argparse.Namespace) -> Run:
    """Kill a run `options.kills` times, then complete it; prints a line for each kill."""
    rng = random.Random(options.seed)
    rows = []
    for number in range(1, options.kills + 1):
        run = Run(server.url, out, options, f"run {number}, to be killed")
        started = time.monotonic()
        run.wait(rng.randrange(1, options.images))
        time.sleep(rng.uniform(0.0, LONGEST_WAIT_S))
        lasted_s, left = time.monotonic() - started, run.kill()
        rows.append(f"{number:4} {lasted_s:9.2f} {count_complete(out):15,} {left:22}")
    last = Run(server.url, out, options, "last run")
    last.wait()
    if rows:
        print("kill   after s complete images processes left running", *rows, sep="\n")
    return last


def hash_tree(folder: Path) -> dict[str, str]:
    def files() -> Iterator[Path]:
        return (path for path in sorted(folder.rglob("*")) if path.is_file())

    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in tqdm(list(files()), f"sha256 of {folder.parent.name}")
    }


def compare(quiet: Path, faulty: Path) -> bool:
    """Print whether the two trees are bit-identical, and return it."""
    left, right = hash_tree(quiet), hash_tree(faulty)
    different = sorted(name for name in left | right if left.get(name) != right.get(name))
    beside = {path.name for path in faulty.parent.iterdir()} - {faulty.name, f".{faulty.name}.lock"}
    print("\n".join(f"differs: {name}" for name in different) or f"bit-identical: {len(left)} files")
    print("\n".join(f"left beside it: {name}" for name in sorted(beside)) or "nothing left beside them")
    return not different and not beside


def print_faults(server: FaultyEndpoint) -> None:
    share = server.faults.total() / server.num_requests
    print(f"{server.num_requests:,} requests, {100 * share:.1f} % of them failed:")
    for fault, description in FAULTS.items():
        print(f"{server.faults[fault]:6} {description}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--bytes", type=int, default=10_000, help="of an image")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--fault-share", type=float, default=0.1, help="of the requests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=8, help="concurrent requests")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_acquire(**json.loads(options.run))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_bucket(root / "bucket", options.images, options.bytes)
        with serve_faulty(root / "bucket", 0.0, options.seed) as server:
            quiet = Run(server.url, root / "quiet" / "raw", options, "quiet run")
            quiet.wait()
        with serve_faulty(root / "bucket", options.fault_share, options.seed) as server:
            last = run_killed(server, root / "faulty" / "raw", options)
            print_faults(server)
        print(f"quiet run: at most {quiet.describe_memory()}")
        print(f"last run: at most {last.describe_memory()}; {os.cpu_count()} cores, {options.images:,} images")
        same = compare(quiet.out, last.out)
    sys.exit(not same)


if __name__ == "__main__":
    main()

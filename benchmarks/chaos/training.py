"""Kill training at random moments, and check that it ends with the weights of an undisturbed run.

    python -m benchmarks.chaos.training --runs 10

A Ray cluster of a head and two nodes is simulated on this machine. Each node has room for one of the two workers, so
that every step needs both. Each run suffers several kills, at moments drawn from `--seed`: of a worker, of a raylet
(its node is lost with all its processes, and another joins), of the driver, or of everything. If its driver was killed,
it is started again. The first run is undisturbed, and the others must end with the same SHA-256 over the model's files.
Exits with 1 if one does not.
"""

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from flows import environment

environment.apply()
# A lost node is noticed within two seconds instead of fifteen.
os.environ.setdefault("RAY_health_check_period_ms", "500")
os.environ.setdefault("RAY_health_check_failure_threshold", "4")
os.environ.setdefault("RAY_health_check_initial_delay_ms", "0")

import psutil  # noqa: E402
from ray._private.node import Node  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from pbe import layout  # noqa: E402
from pbe.dataset.curated_boxes import BOXES_FILE  # noqa: E402
from pbe.dataset.image_shards import LOCATION, write_tar  # noqa: E402
from pbe.demo.faults import encode_jpeg  # noqa: E402
from pbe.demo.scenes import draw_scene  # noqa: E402
from pbe.settings import load_settings  # noqa: E402
from pbe.training.journal import JOURNAL, read_journal  # noqa: E402

KINDS = ("worker", "raylet", "driver", "all")
ROOT = Path(__file__).parents[2]
WORKER = "ray::RayTrainWorker"  # Ray's name for the processes of training workers


def drive(root: Path, name: str, steps: int, strategy: Literal["ddp", "fsdp"]) -> None:
    """Train on the cluster that RAY_ADDRESS names: the driver's process."""
    from pbe.runtime.ray_cluster import ray_cluster
    from pbe.training import run
    from pbe.training.job import TrainJob

    settings = load_settings(ROOT / layout.PARAMS)
    train = settings.train.replace(
        cache=False, num_workers=2, steps=steps, batch_size=2, checkpoint_every=5, validate_every=40,
        validation_samples=4, lr=1e-3, strategy=strategy,
    )  # fmt: skip
    backbone, runs = ROOT / layout.TINY, root / f"runs-{name}"
    job = TrainJob(root / "images", root, backbone, root / "none", runs, settings.method, train, seed=0)
    with ray_cluster(os.environ["RAY_ADDRESS"], 0):
        run.train(job, root / f"model-{name}")


def write_scenes(root: Path, num_scenes: int = 16) -> None:
    """Write demo scenes of each split, with one box each, as curated images and boxes."""
    rows = []
    (root / "images").mkdir()
    for split in ("train", "validation"):
        drawn = {
            f"{split[0]}{i:015x}": draw_scene(np.random.default_rng([len(split), i]), 1) for i in range(num_scenes)
        }
        files = [(name, encode_jpeg(scene.image)) for name, scene in drawn.items()]
        places = write_tar(root / "images" / f"{split}-00000.tar", files)
        rows += [(f"{n}_000", n, split, *map(int, s.objects[0].box), *places[n]) for n, s in drawn.items()]
    columns = ["box_id", "image_id", "split", "x0", "y0", "x1", "y1", *LOCATION]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(root / BOXES_FILE)


class Fleet:
    """The simulated cluster and the driver that trains on it."""

    def __init__(self, root: Path, name: str, steps: int, strategy: str) -> None:
        self.root, self.name, self.steps, self.strategy = root, name, steps, strategy
        self.cluster = self._new_cluster()
        self.driver = self._new_driver()

    @staticmethod
    def _new_cluster() -> Cluster:
        options = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
        for _ in range(2):
            cluster.add_node(num_cpus=1, **options)
        return cluster

    def _new_driver(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "benchmarks.chaos.training", "--drive", self.name, str(self.root)]
        command += ["--steps", str(self.steps), "--strategy", self.strategy]
        variables = os.environ | {"RAY_ADDRESS": self.cluster.address, "PYTHONPATH": str(ROOT)}
        log = (self.root / f"{self.name}.log").open("ab")
        return subprocess.Popen(command, env=variables, stdout=log, stderr=log, cwd=ROOT)

    def steps_done(self) -> int:
        """Return the number of steps in the journal; a kill undoes those since the last checkpoint."""
        return max((len(read_journal(path)) for path in self.root.glob(f"runs-{self.name}/*/{JOURNAL}")), default=0)

    def kill(self, kind: str, rng: np.random.Generator) -> bool:
        """Kill immediately; return False when no process of the kind runs."""
        actions: dict[str, Callable[[np.random.Generator], bool]] = {
            "worker": self._kill_worker, "raylet": self._kill_raylet,
            "driver": self._kill_driver, "all": self._kill_all,
        }  # fmt: skip
        return actions[kind](rng)

    def _kill_worker(self, rng: np.random.Generator) -> bool:
        workers = [p for node in self.cluster.worker_nodes for p in _children(node, WORKER)]
        if not workers:
            return False
        workers[rng.integers(len(workers))].kill()
        return True

    def _kill_raylet(self, rng: np.random.Generator) -> bool:
        nodes = sorted(self.cluster.worker_nodes, key=lambda node: node.unique_id)
        node = nodes[rng.integers(len(nodes))]
        lost = _children(node)
        self.cluster.remove_node(node, allow_graceful=False)
        for process in lost:  # as when a machine is lost
            _kill(process)
        self.cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20)
        return True

    def _kill_driver(self, rng: np.random.Generator) -> bool:
        self.driver.kill()
        self.driver.wait()
        self.driver = self._new_driver()
        return True

    def _kill_all(self, rng: np.random.Generator) -> bool:
        nodes = self.cluster.list_all_nodes()
        lost = [p for node in nodes for p in [*_own(node), *_children(node)]]
        self.driver.kill()
        for process in lost:
            _kill(process)
        self.driver.wait()
        self.cluster.shutdown()
        self.cluster = self._new_cluster()
        self.driver = self._new_driver()
        return True

    def finish(self, limit_s: float) -> int:
        """Wait for the driver; return its exit code."""
        try:
            return self.driver.wait(limit_s)
        finally:
            self.close()

    def close(self) -> None:
        self.driver.kill()
        self.driver.wait()
        self.cluster.shutdown()


def _children(node: Node, title: str = "") -> list[psutil.Process]:
    """Return the descendants of a node's processes whose command line starts with `title`."""
    found = [child for process in _own(node) for child in process.children(recursive=True)]
    return [p for p in found if " ".join(_command(p)).startswith(title)]


def _own(node: Node) -> list[psutil.Process]:
    """Return the processes that Ray started for a node: its raylet, and on the head the cluster's store."""
    pids = [info.process.pid for infos in node.all_processes.values() for info in infos]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def digest(model: Path) -> str:
    """Return the SHA-256 over the weights of a saved model, or "none" if there is none."""
    files = sorted(model.rglob("*.safetensors"))
    if not files:
        return "none"
    total = hashlib.sha256()
    for file in files:
        total.update(file.relative_to(model).as_posix().encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def plan(seed: int, number: int, steps: int, num_kills: int) -> list[tuple[int, str, float]]:
    """Return the kills of a run: (number of steps in the journal, kind, seconds to wait then, up to 0.3).

    The kind of the first kill follows from the run's number, so that ten runs see each kind; the others are drawn.
    """
    rng = np.random.default_rng([seed, number])
    moments = sorted(int(m) for m in rng.choice(np.arange(1, steps - 1), num_kills, replace=False))
    kinds = [KINDS[number % len(KINDS)], *rng.choice(KINDS, num_kills - 1)]
    return [(m, str(k), float(rng.uniform(0, 0.3))) for m, k in zip(moments, kinds, strict=True)]


def disturbed_run(root: Path, number: int, args: argparse.Namespace) -> tuple[list[str], int]:
    """Run once with kills; return what was killed at which step, and the exit code of the last driver."""
    fleet = Fleet(root, f"run{number}", args.steps, args.strategy)
    rng = np.random.default_rng([args.seed, number, 1])
    killed = []
    for moment, kind, pause_s in plan(args.seed, number, args.steps, args.kills):
        while fleet.steps_done() < moment and fleet.driver.poll() is None:
            time.sleep(0.02)
        time.sleep(pause_s)
        at = fleet.steps_done()
        if fleet.driver.poll() is None and fleet.kill(kind, rng):
            killed.append(f"{kind}@{at}")
    return killed, fleet.finish(args.limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="disturbed runs")
    parser.add_argument("--first", type=int, default=0, help="number of the first run, to continue a series")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--kills", type=int, default=2, help="in each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=240.0, help="seconds after the last kill")
    parser.add_argument("--strategy", choices=["ddp", "fsdp"], default="ddp")
    parser.add_argument("--drive", nargs=2, metavar=("NAME", "ROOT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        drive(Path(args.drive[1]), args.drive[0], args.steps, args.strategy)
        return
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        root = Path(folder)
        write_scenes(root)
        began = time.monotonic()
        code = Fleet(root, "quiet", args.steps, args.strategy).finish(args.limit)
        wanted = digest(root / "model-quiet")
        if code or wanted == "none":
            sys.exit(f"the undisturbed run failed:\n{(root / 'quiet.log').read_text()[-2000:]}")
        print("| run | killed, at which step | seconds | weights | |\n|---|---|---|---|---|")
        print(f"| quiet | | {time.monotonic() - began:.0f} | {wanted[:16]} | |", flush=True)
        num_wrong = 0
        for number in range(args.first, args.first + args.runs):
            began = time.monotonic()
            killed, code = disturbed_run(root, number, args)
            got = digest(root / f"model-run{number}")
            same = code == 0 and got == wanted
            num_wrong += not same
            row = f"| {number} | {', '.join(killed)} | {time.monotonic() - began:.0f} | {got[:16]} |"
            print(row, "same |" if same else f"DIFFERS (exit code {code}) |", flush=True)
            if code:
                print((root / f"run{number}.log").read_text()[-2000:], file=sys.stderr)
    print(f"{args.runs - num_wrong} of {args.runs} ended with the weights of the undisturbed run")
    sys.exit(bool(num_wrong))


if __name__ == "__main__":
    main()

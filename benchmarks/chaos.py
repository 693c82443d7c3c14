"""Kill training at random moments and see that it ends with the weights of a run that nothing disturbed.

    python -m benchmarks.chaos --runs 10

A Ray cluster of a head and two nodes is simulated on this machine, each node with room for one of the two workers, so
that every step goes over both. Each run is killed several times, at moments drawn from `--seed`: a worker, a raylet
(its node is lost with all its processes, and another joins), the driver, or everything there is, and is started again
where its driver is gone. The first run is not disturbed; the SHA-256 over its model's files is what the others must
end with.
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

import numpy as np

from flows import environment

environment.apply()
# A lost node is noticed within two seconds instead of fifteen.
os.environ.setdefault("RAY_health_check_period_ms", "500")
os.environ.setdefault("RAY_health_check_failure_threshold", "4")
os.environ.setdefault("RAY_health_check_initial_delay_ms", "0")

import psutil  # noqa: E402
from ray._private.node import Node  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from pbe.training.journal import JOURNAL, read_journal  # noqa: E402
from tests.support.tiny_data import write_scenes  # noqa: E402
from tests.support.tiny_models import write_backbone  # noqa: E402

KINDS = ("worker", "raylet", "driver", "all")
ROOT = Path(__file__).parents[1]
WORKER = "ray::RayTrainWorker"  # how Ray names the processes of a training's workers


def drive(root: Path, name: str, steps: int) -> None:
    """The driver's process: train on the cluster that RAY_ADDRESS names."""
    from pbe.runtime.ray_cluster import ray_cluster
    from pbe.settings import Method, Train
    from pbe.training import run
    from pbe.training.job import TrainJob

    train = Train(
        cache=False, steps=steps, batch_size=2, checkpoint_every=5, validate_every=40, validation_samples=4, lr=1e-3
    )
    job = TrainJob(
        root / "images", root, root / "backbone", root / "none", root / f"runs-{name}", Method(), train, seed=0
    )
    with ray_cluster(os.environ["RAY_ADDRESS"], 0):
        run.train(job, root / f"model-{name}")


class Fleet:
    """The simulated cluster and the driver that trains on it."""

    def __init__(self, root: Path, name: str, steps: int) -> None:
        self.root, self.name, self.steps = root, name, steps
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
        command = [sys.executable, "-m", "benchmarks.chaos", "--drive", self.name, str(self.root), str(self.steps)]
        variables = os.environ | {"RAY_ADDRESS": self.cluster.address, "PYTHONPATH": str(ROOT)}
        log = (self.root / f"{self.name}.log").open("ab")
        return subprocess.Popen(command, env=variables, stdout=log, stderr=log, cwd=ROOT)

    def steps_done(self) -> int:
        """Steps written to the journal, of which a kill may take back those since the last checkpoint."""
        return max((len(read_journal(path)) for path in self.root.glob(f"runs-{self.name}/*/{JOURNAL}")), default=0)

    def kill(self, kind: str, rng: np.random.Generator) -> bool:
        """Kill at once; False when there is nothing of the kind to be killed."""
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
        for process in lost:  # a machine that goes takes all with it
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
        """Wait for the driver; returns its exit code."""
        try:
            return self.driver.wait(limit_s)
        finally:
            self.close()

    def close(self) -> None:
        self.driver.kill()
        self.driver.wait()
        self.cluster.shutdown()


def _children(node: Node, title: str = "") -> list[psutil.Process]:
    """The processes below a node's own, those with a title that begins so."""
    found = [child for process in _own(node) for child in process.children(recursive=True)]
    return [p for p in found if " ".join(_command(p)).startswith(title)]


def _own(node: Node) -> list[psutil.Process]:
    """The processes that Ray started for a node: its raylet, on the head also the cluster's store."""
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
    """SHA-256 over the weights of a saved model, or "none" where there is none."""
    files = sorted(model.rglob("*.safetensors"))
    if not files:
        return "none"
    total = hashlib.sha256()
    for file in files:
        total.update(file.relative_to(model).as_posix().encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def plan(seed: int, number: int, steps: int, num_kills: int) -> list[tuple[int, str, float]]:
    """What a run suffers: when so many steps were written, kill one of a kind after a pause of up to 0.3 s.

    The first kill's kind goes round with the run's number, so that ten runs see each; the others are drawn.
    """
    rng = np.random.default_rng([seed, number])
    moments = sorted(int(m) for m in rng.choice(np.arange(1, steps - 1), num_kills, replace=False))
    kinds = [KINDS[number % len(KINDS)], *rng.choice(KINDS, num_kills - 1)]
    return [(m, str(k), float(rng.uniform(0, 0.3))) for m, k in zip(moments, kinds, strict=True)]


def disturbed_run(root: Path, number: int, args: argparse.Namespace) -> tuple[list[str], int]:
    """One run with its kills; returns what was killed when, and the exit code of the last driver."""
    fleet = Fleet(root, f"run{number}", args.steps)
    rng = np.random.default_rng([args.seed, number, 1])
    told = []
    for moment, kind, pause_s in plan(args.seed, number, args.steps, args.kills):
        while fleet.steps_done() < moment and fleet.driver.poll() is None:
            time.sleep(0.02)
        time.sleep(pause_s)
        at = fleet.steps_done()
        if fleet.driver.poll() is None and fleet.kill(kind, rng):
            told.append(f"{kind}@{at}")
    return told, fleet.finish(args.limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="disturbed runs")
    parser.add_argument("--first", type=int, default=0, help="number of the first run, to do them in pieces")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--kills", type=int, default=2, help="a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=240.0, help="seconds after the last kill")
    parser.add_argument("--drive", nargs=3, metavar=("NAME", "ROOT", "STEPS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        drive(Path(args.drive[1]), args.drive[0], int(args.drive[2]))
        return
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        root = Path(folder)
        write_scenes(root, 16)
        write_backbone(root / "backbone")
        began = time.monotonic()
        code = Fleet(root, "quiet", args.steps).finish(args.limit)
        wanted = digest(root / "model-quiet")
        if code or wanted == "none":
            sys.exit(f"the undisturbed run failed:\n{(root / 'quiet.log').read_text()[-2000:]}")
        print("| run | killed, at which step | seconds | weights | |\n|---|---|---|---|---|")
        print(f"| quiet | | {time.monotonic() - began:.0f} | {wanted[:16]} | |", flush=True)
        num_wrong = 0
        for number in range(args.first, args.first + args.runs):
            began = time.monotonic()
            told, code = disturbed_run(root, number, args)
            got = digest(root / f"model-run{number}")
            same = code == 0 and got == wanted
            num_wrong += not same
            row = f"| {number} | {', '.join(told)} | {time.monotonic() - began:.0f} | {got[:16]} |"
            print(row, "same |" if same else f"DIFFERS (exit code {code}) |", flush=True)
            if code:
                print((root / f"run{number}.log").read_text()[-2000:], file=sys.stderr)
    print(f"{args.runs - num_wrong} of {args.runs} ended with the undisturbed run's weights")
    sys.exit(bool(num_wrong))


if __name__ == "__main__":
    main()

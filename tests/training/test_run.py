"""Training on a Ray cluster of simulated nodes: neither their number nor a kill changes what is learnt."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.cluster_utils import Cluster

from pbe.method.painter import Painter
from tests.tiny_data import write_scenes

pytestmark = pytest.mark.slow

STEPS = 12
SCRIPT = f"""
import json, os, sys
from pathlib import Path
from pbe.data.cluster import ray_cluster
from pbe.settings import Method, Train
from pbe.training import run
from pbe.training.job import TrainJob
root, backbone, name, shares = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4].split()
for workers in map(int, shares):
    settings = Train(
        cache=False, num_workers=workers, batch_size=4 // workers, steps={STEPS}, checkpoint_every=2, validate_every=6,
        validation_samples=4, lr=1e-3,
    )
    with ray_cluster(os.environ["RAY_ADDRESS"], 0):
        folder = root / f"runs-{{name}}"
        job = TrainJob(root / "images", root, backbone, root / "none", folder, Method(), settings, 0)
        told = lambda r: print(json.dumps([workers, r.step, r.loss]), flush=True)
        run.train(job, root / f"model-{{name}}-{{workers}}", told)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray cluster of a head, which trains nothing, and two nodes with room for two workers each."""
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    for _ in range(2):
        cluster.add_node(num_cpus=2, **options)
    yield cluster.address
    cluster.shutdown()


def start(project: Path, backbone: Path, address: str, name: str, workers: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(project), str(backbone), name, workers]
    log = (project / f"{name}.log").open("w")
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | {"RAY_ADDRESS": address}
    )


def losses_told(process: subprocess.Popen[str], until: int | None = None) -> dict[int, list[float]]:
    """The losses that the process tells of, by number of workers, up to step `until` or to its end."""
    told: dict[int, list[float]] = {}
    assert process.stdout is not None
    for line in process.stdout:
        workers, step, loss = json.loads(line)
        told.setdefault(workers, []).append(loss)
        assert step + 1 == len(told[workers])
        if step == until:
            break
    return told


def run_to_end(project: Path, backbone: Path, address: str, name: str, workers: str) -> dict[int, list[float]]:
    with start(project, backbone, address, name, workers) as process:
        told = losses_told(process)
        assert process.wait(120) == 0, (project / f"{name}.log").read_text()[-2000:]
    return told


def weights(folder: Path) -> dict[str, torch.Tensor]:
    painter = Painter.from_pretrained(folder)
    return {**painter.unet.state_dict(), **painter.conditioner.state_dict()}


def test_nodes_and_kills_change_nothing(project: Path, backbone: Path, address: str) -> None:
    """The same global batch on 1, 2 and 4 workers gives the same losses; a killed driver's run the same weights."""
    losses = run_to_end(project, backbone, address, "quiet", "2 1 4")
    assert len(losses[2]) == STEPS
    for workers in (1, 4):
        assert losses[workers] == pytest.approx(losses[2], rel=1e-4), workers
    with start(project, backbone, address, "killed", "2") as killed:
        losses_told(killed, until=4)
        killed.send_signal(signal.SIGKILL)
    assert not (project / "model-killed-2").exists()
    again = run_to_end(project, backbone, address, "killed", "2")
    assert again == {2: losses[2]}  # those before the checkpoint are told again, from the journal
    wanted, got = weights(project / "model-quiet-2"), weights(project / "model-killed-2")
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[k], got[k]) for k in wanted)
    assert len(list(project.glob("runs-killed/*/panel-*.png"))) == 2

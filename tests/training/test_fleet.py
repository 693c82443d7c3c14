"""Training on a Ray cluster of simulated nodes: the same global batch on 1 and 4 workers gives the same losses."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.support.tiny_data import write_scenes
from tests.support.toy_project import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long]

STEPS = 6
GLOBAL_BATCH = 4
TIMEOUT_S = 400  # for a machine that is busy with other tests
SCRIPT = f"""
import json, sys
from pathlib import Path
from pbe.runtime.ray_cluster import ray_cluster
from pbe.training import run
from pbe.training.job import TrainJob
from tests.support import parameters

root, backbone, address = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
method = parameters.method(close_up_probability=0.0)
train_worker = run.train_worker

def train_and_note_the_node(config):
    import ray
    rank = ray.train.get_context().get_world_rank()
    config["out"].with_suffix(f".node{{rank}}").write_text(ray.get_runtime_context().get_node_id())
    return train_worker(config)

run.train_worker = train_and_note_the_node
with ray_cluster(address, 0):
    for workers in (1, 4):
        settings = parameters.train(
            cache=False, num_workers=workers, batch_size={GLOBAL_BATCH} // workers, steps={STEPS}, lr=2e-3,
            conv_in_lr_factor=1.0, warmup_steps=0, decay="constant", validation_samples=4, loader_threads=1,
        )
        job = TrainJob(root / "images", root, backbone, root / "none", root / "runs", method, settings, 0)
        out = root / f"model-{{workers}}"
        records = [record.__dict__ for record in run.train(job, out)]
        nodes = [out.with_suffix(f".node{{rank}}").read_text() for rank in range(workers)]
        print(json.dumps(dict(workers=workers, records=records, nodes=nodes)), flush=True)
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray cluster of a head without CPUs and two nodes with room for two workers each."""
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2, **options)
        yield cluster.address
    finally:
        cluster.shutdown()


def test_the_losses_do_not_depend_on_the_number_of_workers_and_nodes(
    tmp_path: Path, backbone: Path, address: str
) -> None:
    write_scenes(tmp_path)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(backbone), address]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    driver = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert driver.returncode == 0, driver.stderr[-2000:]
    one, four = (json.loads(line) for line in driver.stdout.splitlines() if line.startswith("{"))

    losses = [record["loss"] for record in one["records"]]
    assert len(set(losses)) == STEPS
    assert [record["loss"] for record in four["records"]] == pytest.approx(losses, rel=1e-4)
    norms = [record["grad_norm"] for record in four["records"]]
    assert norms == pytest.approx([record["grad_norm"] for record in one["records"]], rel=1e-3)
    validated = four["records"][-1]["validation_loss"]
    assert validated == pytest.approx(one["records"][-1]["validation_loss"], rel=1e-4)

    assert [len(run["nodes"]) for run in (one, four)] == [1, 4]
    assert sorted(Counter(four["nodes"]).values()) == [2, 2]

"""Training on a Ray cluster of two workers: kills, bugs, user errors, and the model that results."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from pbe.method.painter import Painter
from tests.support.tiny_data import write_scenes
from tests.support.toy_project import ROOT

pytestmark = pytest.mark.slow

STEPS = 12
SCRIPT = f"""
import json, sys
from pathlib import Path
from pbe.errors import UserError
from pbe.runtime.ray_cluster import ray_cluster
from pbe.training import run
from pbe.training.job import TrainJob
from tests.support import parameters

root, backbone, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
settings = parameters.train(
    cache=False, num_workers=2, steps={STEPS}, batch_size=2, checkpoint_every=2, validate_every=6, lr=1e-3,
    conv_in_lr_factor=1.0,
)
method = parameters.method(close_up_probability=0.0)
if name in ("bug", "mistake"):
    run.MAX_FAILURES = 0
with ray_cluster(None, 3):
    job = TrainJob(root / "images", root, backbone, root / "none", root / f"runs-{{name}}", method, settings, 0)
    try:
        run.train(job, root / f"model-{{name}}", lambda record: print(json.dumps(record.__dict__), flush=True))
    except UserError as error:
        sys.exit(f"USER ERROR {{error}}")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("training"))


def start(project: Path, backbone: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(project), str(backbone), name]
    log = (project / f"{name}.log").open("w")
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


def read_steps(process: subprocess.Popen[str], last: int) -> list[int]:
    """Return the steps that the process prints, up to `last` or its end."""
    steps: list[int] = []
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            steps.append(json.loads(line)["step"])
        if steps and steps[-1] >= last:
            break
    return steps


def run_to_end(project: Path, backbone: Path, name: str) -> list[int]:
    with start(project, backbone, name) as process:
        steps = read_steps(process, STEPS - 1)
        assert process.wait(120) == 0, (project / f"{name}.log").read_text()[-2000:]
    return steps


def weights(folder: Path) -> dict[str, torch.Tensor]:
    painter = Painter.from_pretrained(folder)
    return {**painter.unet.state_dict(), **painter.conditioner.state_dict()}


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(project: Path, backbone: Path) -> None:
    assert run_to_end(project, backbone, "uninterrupted") == list(range(STEPS))
    with start(project, backbone, "killed") as killed:
        assert read_steps(killed, 4)[-1] >= 4
        killed.send_signal(signal.SIGKILL)
    assert not (project / "model-killed").exists()
    steps = run_to_end(project, backbone, "killed")
    assert steps == list(range(STEPS))  # the journal has those from before the checkpoint
    uninterrupted, resumed = weights(project / "model-uninterrupted"), weights(project / "model-killed")
    assert uninterrupted.keys() == resumed.keys()
    assert all(torch.equal(uninterrupted[k], resumed[k]) for k in uninterrupted)
    assert len(list(project.glob("runs-uninterrupted/*/validation-*.png"))) == 2


def test_a_bug_in_a_worker_fails_with_its_traceback(project: Path, backbone: Path, tmp_path: Path) -> None:
    spoiled = copy_inputs(project, tmp_path / "spoiled")
    boxes = pl.read_parquet(spoiled / "boxes.parquet")  # impossible boxes: numpy fails to place their windows
    boxes.with_columns(x0=pl.lit(-500), x1=pl.lit(-400)).write_parquet(spoiled / "boxes.parquet")
    with start(spoiled, backbone, "bug") as process:
        assert process.wait(200) == 1
    log = (spoiled / "bug.log").read_text()
    assert "USER ERROR" not in log
    assert "WorkerGroupError" in log
    assert "pbe/method/windows.py" in log
    assert "ValueError" in log


def test_a_damaged_file_in_a_worker_is_a_user_error_in_one_line(project: Path, backbone: Path, tmp_path: Path) -> None:
    damaged = copy_inputs(project, tmp_path / "damaged")
    shard = damaged / "images" / "train-00000.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    with start(damaged, backbone, "mistake") as process:
        assert process.wait(200) == 1
    lines = (damaged / "mistake.log").read_text().splitlines()
    assert lines[-1].startswith("USER ERROR")
    assert "train-00000.tar" in lines[-1]


def copy_inputs(project: Path, out: Path) -> Path:
    return shutil.copytree(project, out, ignore=shutil.ignore_patterns("runs-*", "model-*", "*.log"))

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

pytestmark = [pytest.mark.slow, pytest.mark.long]

STEPS = 12
SCRIPT = f"""
import json, sys, traceback
from pathlib import Path
from pbe.errors import UserError
from pbe.runtime.ray_cluster import ray_cluster
from pbe.training import run
from pbe.training.job import TrainJob
from tests.support import parameters

backbone, roots = Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]]
settings = parameters.train(
    cache=False, num_workers=2, steps={STEPS}, batch_size=2, checkpoint_every=2, validate_every=6, lr=1e-3,
    conv_in_lr_factor=1.0,
)
method = parameters.method(close_up_probability=0.0)
with ray_cluster(None, 3):
    for root in roots:
        job = TrainJob(root / "images", root, backbone, root / "none", root / "runs", method, settings, 0)
        if root.name in ("bug", "mistake"):
            run.MAX_FAILURES = 0
        try:
            run.train(job, root / "model", lambda record: print(json.dumps(record.__dict__), flush=True))
        except UserError as error:
            (root / "user-error").write_text(str(error))
        except Exception:
            (root / "error").write_text(traceback.format_exc())
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def ended(scenes: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of three trainings in one cluster: one that completes, a bug, and a user's mistake."""
    root = tmp_path_factory.mktemp("training")
    complete, bug, mistake = (shutil.copytree(scenes, root / name) for name in ("complete", "bug", "mistake"))
    boxes = pl.read_parquet(bug / "boxes.parquet")  # impossible boxes: numpy fails to place their windows
    boxes.with_columns(x0=pl.lit(-500), x1=pl.lit(-400)).write_parquet(bug / "boxes.parquet")
    shard = mistake / "images/train-00000.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    assert run_to_end(backbone, complete, bug, mistake) == list(range(STEPS))
    return root


def start(backbone: Path, *folders: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(backbone), *map(str, folders)]
    log = (folders[0] / "log").open("w")
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


def run_to_end(backbone: Path, *folders: Path) -> list[int]:
    with start(backbone, *folders) as process:
        steps = read_steps(process, STEPS - 1)
        assert process.wait(300) == 0, (folders[0] / "log").read_text()[-2000:]
    return steps


def weights(folder: Path) -> dict[str, torch.Tensor]:
    painter = Painter.from_pretrained(folder)
    return {**painter.unet.state_dict(), **painter.conditioner.state_dict()}


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    ended: Path, scenes: Path, backbone: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(scenes, tmp_path / "killed")
    with start(backbone, root) as killed:
        assert read_steps(killed, 4)[-1] >= 4
        killed.send_signal(signal.SIGKILL)
    assert not (root / "model").exists()
    steps = run_to_end(backbone, root)
    assert steps == list(range(STEPS))  # the journal has those from before the checkpoint
    uninterrupted, resumed = weights(ended / "complete/model"), weights(root / "model")
    assert uninterrupted.keys() == resumed.keys()
    assert all(torch.equal(uninterrupted[k], resumed[k]) for k in uninterrupted)


def test_a_training_ends_with_a_model_and_pictures_of_each_validation(ended: Path) -> None:
    assert weights(ended / "complete/model")
    assert len(list(ended.glob("complete/runs/*/validation-*.png"))) == 2


def test_a_bug_in_a_worker_fails_with_its_traceback(ended: Path) -> None:
    error = (ended / "bug/error").read_text()
    assert "WorkerGroupError" in error
    assert "pbe/method/windows.py" in error
    assert "ValueError" in error


def test_a_damaged_file_in_a_worker_is_a_user_error_in_one_line(ended: Path) -> None:
    error = (ended / "mistake/user-error").read_text()
    assert "train-00000.tar" in error
    assert "\n" not in error

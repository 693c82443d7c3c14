"""Training on a real Ray cluster of two workers: a killed run ends with the undisturbed run's weights."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pbe.method.painter import Painter
from tests.support.tiny_data import write_scenes

pytestmark = pytest.mark.slow

STEPS = 12
SCRIPT = f"""
import json, sys
from pathlib import Path
from pbe.runtime.ray_cluster import ray_cluster
from pbe.settings import Method, Train
from pbe.training import run
from pbe.training.job import TrainJob
root, backbone, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
settings = parameters.train(cache=False, steps={STEPS}, batch_size=2, checkpoint_every=2, validate_every=6, lr=1e-3)
with ray_cluster(None, 3):
    job = TrainJob(root / "images", root, backbone, root / "none", root / f"runs-{{name}}", parameters.method(), settings, 0)
    run.train(job, root / f"model-{{name}}", lambda r: print(json.dumps(r.__dict__), flush=True))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("training"))


def start(project: Path, backbone: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(project), str(backbone), name]
    log = (project / f"{name}.log").open("w")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ))


def steps_told(process: subprocess.Popen[str], last: int) -> list[int]:
    """The steps that the process tells of, up to `last` or its end."""
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
        steps = steps_told(process, STEPS - 1)
        assert process.wait(120) == 0, (project / f"{name}.log").read_text()[-2000:]
    return steps


def weights(folder: Path) -> dict[str, torch.Tensor]:
    painter = Painter.from_pretrained(folder)
    return {**painter.unet.state_dict(), **painter.conditioner.state_dict()}


def test_a_killed_run_ends_with_the_undisturbed_runs_weights(project: Path, backbone: Path) -> None:
    assert run_to_end(project, backbone, "quiet") == list(range(STEPS))
    with start(project, backbone, "killed") as killed:
        assert steps_told(killed, 4)[-1] >= 4
        killed.send_signal(signal.SIGKILL)
    assert not (project / "model-killed").exists()
    steps = run_to_end(project, backbone, "killed")
    assert steps == list(range(STEPS))  # those before the checkpoint are told again, from the journal
    quiet, again = weights(project / "model-quiet"), weights(project / "model-killed")
    assert quiet.keys() == again.keys()
    assert all(torch.equal(quiet[k], again[k]) for k in quiet)
    assert len(list(project.glob("runs-quiet/*/panel-*.png"))) == 2

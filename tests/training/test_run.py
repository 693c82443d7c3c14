"""Training on a real Ray cluster of two workers: a killed run ends with the undisturbed run's weights."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pbe.method.painter import Painter

SCRIPT = """
import json, sys
from pathlib import Path
from pbe.data import shards
from pbe.data.cluster import ray_cluster
from pbe.settings import Encode, Method, Train
from pbe.training import run
root, backbone, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
train = Train(steps=14, batch_size=2, checkpoint_every=2, validate_every=7, lr=1e-3)
with ray_cluster(None, 3):
    shards.encode(root / "images", root, backbone, root / "latents", Method(), Encode(variants=1, shard_rows=8), 0)
    job = run.TrainJob(root / "images", root, backbone, root / "latents", root / f"runs-{name}", Method(), train, 0)
    run.train(job, root / f"model-{name}", lambda r: print(json.dumps(r.__dict__), flush=True))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    import cv2
    import numpy as np
    import polars as pl

    from pbe.data import world

    root = tmp_path_factory.mktemp("training")
    rows = []
    for split in ("train", "validation"):
        (root / "images" / split).mkdir(parents=True)
        for i in range(12):
            scene = world.draw_scene(np.random.default_rng([len(split), i]), 1)
            name = f"{split[0]}{i:015x}"
            cv2.imwrite(str(root / "images" / split / f"{name}.jpg"), scene.image[..., ::-1])
            rows.append((f"{name}_000", name, split, *map(int, scene.objects[0].box)))
    columns = ["box_id", "image_id", "split", "x0", "y0", "x1", "y1"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(root / "boxes.parquet")
    return root


def start(project, backbone, name):
    environment = os.environ | {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", SCRIPT, str(project), str(backbone), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def weights(folder: Path):
    painter = Painter.from_pretrained(folder)
    return {**painter.unet.state_dict(), **painter.conditioner.state_dict()}


def test_a_killed_run_ends_with_the_undisturbed_runs_weights(project, backbone):
    quiet = start(project, backbone, "quiet")
    told, _ = quiet.communicate(timeout=200)
    assert quiet.returncode == 0, told[-2000:]
    killed = start(project, backbone, "killed")
    for line in killed.stdout:
        if line.startswith("{") and json.loads(line)["step"] >= 4:
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    time.sleep(1)
    again = start(project, backbone, "killed")
    told, _ = again.communicate(timeout=200)
    assert again.returncode == 0, told[-2000:]
    a, b = weights(project / "model-quiet"), weights(project / "model-killed")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert len(list(project.glob("runs-quiet/*/panel-*.png"))) == 2

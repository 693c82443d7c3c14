"""The service on Ray Serve: two replicas answer as the editor does, and no request is lost when one is killed."""

import base64
import io
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import ray
import yaml
from PIL import Image as PillowImage
from ray import serve
from ray.serve.schema import ServeDeploySchema

from pbe.runtime.ports import LOOPBACK, free_port
from pbe.serving.editor import Editor
from pbe.serving.service.models import Models
from pbe.serving.service.ray_serve import RayServeSettings, application
from pbe.types import Image
from tests.support.service_edits import DEADLINE_S, small_edit

CONFIG = Path(__file__).parents[3] / "docs/examples/ray-serve.yaml"
NUM_REQUESTS, NUM_STEPS = 24, 3


@pytest.fixture
def url(model_folder: Path) -> Iterator[str]:
    port = free_port()
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": LOOPBACK, "port": port})
        settings = RayServeSettings(
            models=(str(model_folder),), device="cpu", precision="fp32", num_replicas=2, num_cpus=0.5
        )
        address = f"http://{LOOPBACK}:{port}"
        serve.run(application(settings), name=app_name(address))
        yield address
    finally:
        serve.shutdown()
        ray.shutdown()


def png(pixels: Image) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def answer(url: str, seed: int) -> httpx.Response:
    edit = small_edit(seed, num_steps=NUM_STEPS)
    mask, exemplar = edit.regions[0].mask * 255, edit.regions[0].exemplars[0].image
    files = [
        ("image[]", ("source.png", png(edit.source.shown))),
        ("image[]", ("exemplar.png", png(exemplar))),
        ("mask", ("mask.png", png(mask))),
    ]
    data = {"seed": str(seed), "num_steps": str(NUM_STEPS)}
    return httpx.post(f"{url}/v1/images/edits", files=files, data=data, timeout=DEADLINE_S)


def replica_pids(url: str) -> list[int]:
    """Return the process of each replica of this test's application."""
    title = f"ray::ServeReplica:{app_name(url)}:"
    return [each.pid for each in psutil.process_iter() if "".join(each.cmdline()[:1]).startswith(title)]


def app_name(url: str) -> str:
    return f"pbe-{url.rpartition(':')[2]}"


@pytest.mark.slow
@pytest.mark.long
def test_no_request_is_lost_when_a_replica_is_killed(url: str, model_folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(answer, url, seed) for seed in range(NUM_REQUESTS)]
        answered = [waiting[0].result(DEADLINE_S)]
        os.kill(replica_pids(url)[0], signal.SIGKILL)
        answered += [each.result(DEADLINE_S) for each in waiting[1:]]

    statuses = Counter(each.status_code for each in answered)
    assert set(statuses) <= {200, 500, 502, 503}
    assert statuses[200] >= NUM_REQUESTS - 8  # at most what the killed replica had
    models = Models({"alone": model_folder}, device="cpu", precision="fp32")
    models.start()
    editor: Editor = models.resolve(None).editor
    for seed, each in enumerate(answered):
        if each.status_code == 200:
            data = base64.b64decode(each.json()["data"][0]["b64_json"])
            expected = editor.edit(small_edit(seed, num_steps=NUM_STEPS)).picture.shown
            assert png(expected) == png(np.asarray(PillowImage.open(io.BytesIO(data))))
    assert answer(url, 0).status_code == 200


def test_the_documented_configuration_is_valid() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text()))
    (app,) = config.applications
    assert app.import_path == "pbe.serving.service.ray_serve:application"
    settings = RayServeSettings.model_validate(app.args)
    assert settings.num_replicas == 2
    deployment = application(settings)._bound_deployment
    assert deployment.name == "paint-by-example"
    assert deployment.num_replicas == 2


def test_arguments_may_come_from_the_command_line() -> None:
    settings = RayServeSettings.model_validate({"models": "photo,models/pbe", "num_replicas": "2", "num_cpus": "0.5"})
    assert settings.model_names == ("photo", "models/pbe")
    assert settings.num_cpus == 0.5

"""Load on the served model: parallel requests to `mlflow models serve`, each compared with the same request alone.

    .venv/bin/python benchmarks/serve_load.py [--model FOLDER] [--parallel 16] [--seconds 60]

Registers the model in a registry in a temporary folder, serves it, and prints one line: how many requests were
answered, how many failed, how many images differ from those of requests alone, and the times. The exit code is 1 when
any failed or differed.
"""

import argparse
import base64
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from pbe.runtime.ports import free_port
from pbe.serving.registry.evaluations import read_evaluation
from pbe.serving.registry.versions import register
from pbe.settings import load_settings

PROJECT = Path(__file__).parents[1]
SEEDS = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=PROJECT / "models/pbe")
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--num-steps", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(options.model, Path(folder)) as url:
        bodies = [request_body(seed, options.num_steps) for seed in range(SEEDS)]
        alone = [ask(url, body)[0] for body in bodies]
        assert all(alone), "a request alone failed"
        end, started = time.monotonic() + options.seconds, time.monotonic()
        with ThreadPoolExecutor(options.parallel) as pool:
            answers = list(pool.map(lambda first: ask_until(end, url, bodies, first), range(options.parallel)))
        took = time.monotonic() - started
    flat = [answer for client in answers for answer in client]
    failed = sum(image is None for _, image, _ in flat)
    different = sum(image is not None and image != alone[seed] for seed, image, _ in flat)
    seconds = sorted(each for _, _, each in flat)
    print(
        f"{len(flat)} requests from {options.parallel} clients in {took:.0f} s: {failed} failed, {different} differ "
        f"from the image alone; median {seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.2f} s"
    )
    return int(failed + different > 0)


@contextmanager
def served(model: Path, folder: Path) -> Iterator[str]:
    """Register the model and serve it on a free port; yield the address for requests."""
    uri, port = f"sqlite:///{folder / 'mlflow.db'}", free_port()
    settings = load_settings(PROJECT / "params.yaml").register_
    evaluation = read_evaluation(PROJECT)  # of `make demo`
    register(model, evaluation, settings, seed=0, tracking_uri=uri, artifact_location=(folder / "mlruns").as_uri())
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{settings.name}@champion",
               "--env-manager", "local", "--port", str(port)]  # fmt: skip
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))  # MLflow starts uvicorn
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            if not is_up(server, f"http://127.0.0.1:{port}/ping"):
                raise SystemExit(f"error: the server did not start\n{(folder / 'server.log').read_text()}")
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def is_up(server: subprocess.Popen[bytes], url: str) -> bool:
    """Wait up to two minutes for the server's answer."""
    for _ in range(240):
        if server.poll() is not None:
            return False
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return True
        except OSError:
            time.sleep(0.5)
    return False


def request_body(seed: int, num_steps: int) -> bytes:
    rng = np.random.default_rng(0)
    source, mask = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8), np.zeros((96, 128), np.uint8)
    mask[20:70, 30:90] = 255
    row = {"source": encoded(source), "mask": encoded(mask), "exemplar": encoded(source[:40, :40])}
    return json.dumps({"dataframe_records": [row], "params": {"num_steps": num_steps, "seed": seed}}).encode()


def encoded(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def ask_until(end: float, url: str, bodies: list[bytes], first: int) -> list[tuple[int, str | None, float]]:
    """Ask one request after another; return the seed, the image or None, and the seconds of each."""
    answers = []
    while time.monotonic() < end:
        seed = (first + len(answers)) % len(bodies)
        answers.append((seed, *ask(url, bodies[seed])))
    return answers


def ask(url: str, body: bytes) -> tuple[str | None, float]:
    before = time.monotonic()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            image = json.load(answer)["predictions"][0]["image"]
    except urllib.error.HTTPError as error:
        print(f"{error.code}: {error.read()[:300]!r}", file=sys.stderr)
        image = None
    return image, time.monotonic() - before


if __name__ == "__main__":
    sys.exit(main())

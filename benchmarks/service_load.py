"""Load on `pbe serve`: right and hostile requests at once, what batching brings, and memory over ten minutes.

    .venv/bin/python benchmarks/service_load.py mixed [--model FOLDER] [--requests 200] [--parallel 16]
    .venv/bin/python benchmarks/service_load.py flood [--model FOLDER] [--requests 1000]
    .venv/bin/python benchmarks/service_load.py batching [--model FOLDER] [--rounds 4]
    .venv/bin/python benchmarks/service_load.py memory [--model FOLDER] [--minutes 10] --locust .../bin/locust

`mixed` compares each right answer with the digest that `pbe edit` prints for the same edit, and counts the statuses of
the hostile requests. `flood` sends all its requests at once: each gets the right picture, or a 429 with Retry-After.
`batching` loads two services in alternation, one that paints windows one by one and one that
paints up to 8 together. `memory` runs `service_locustfile.py` and samples the service's resident memory every second.
The exit code is 1 when an answer is wrong, a process ends, or memory grows by more than 3 MB a minute.
"""

import argparse
import asyncio
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image as PillowImage
from running_pbe import PBE, PROJECT, running_pbe

from pbe.serving.edit_defaults import DEFAULT_STEPS

SEEDS = range(4)
LARGEST_GROWTH = 3.0  # MB a minute
WARM_UP_FRAC = 0.3  # of the time, in which caches fill
Files = list[tuple[str, tuple[str, bytes]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("mixed", "flood", "batching", "memory"))
    parser.add_argument("--model", default="photo")
    parser.add_argument("--num-steps", type=int, help="by default 4, and with batching an edit's default")
    parser.add_argument("--requests", type=int, help="by default 200, and with flood 1000")
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--locust", default="locust")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the services are stopped
    options.num_steps = options.num_steps or (DEFAULT_STEPS if options.what == "batching" else 4)
    options.requests = options.requests or (1000 if options.what == "flood" else 200)
    run = {"mixed": mixed, "flood": flood, "batching": batching, "memory": memory}[options.what]
    with tempfile.TemporaryDirectory() as folder:
        return run(options, Path(folder))


@dataclass(frozen=True)
class Server:
    """A running `pbe serve`."""

    url: str
    process: psutil.Process

    @property
    def rss_mb(self) -> float:
        return float(self.process.memory_info().rss / 1e6)

    def metric(self, name: str) -> float:
        """Return the value of a line in /metrics."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), 0.0)


@contextmanager
def served(options: argparse.Namespace, folder: Path, *, max_batch: int = 8) -> Iterator[Server]:
    """Start `pbe serve` on a free port; stop it at the end, which must take its exit code to 0."""
    log = folder / f"server-{max_batch}.log"
    with running_pbe(log, "serve", "--model", options.model, "--max-batch", str(max_batch)) as (url, pid):
        yield Server(url, psutil.Process(pid))


def mixed(options: argparse.Namespace, folder: Path) -> int:
    """Send right and hostile requests in a random order, and check each answer."""
    digests = digests_of_the_command(options, folder)
    rng = random.Random(0)
    plan = [rng.choice(SEEDS) if rng.random() < 0.7 else rng.choice(list(HOSTILE)) for _ in range(options.requests)]
    with served(options, folder) as server:
        with ThreadPoolExecutor(options.parallel) as pool:
            started = time.monotonic()
            answers = list(pool.map(lambda what: send(server.url, what, options.num_steps), plan))
            took = time.monotonic() - started
        lives = server.process.is_running() and httpx.get(f"{server.url}/healthz", timeout=30).status_code == 200
    right = [(what, answer) for what, answer in zip(plan, answers, strict=True) if isinstance(what, int)]
    wrong = [(what, answer) for what, answer in zip(plan, answers, strict=True) if isinstance(what, str)]
    equal = sum(answer.digest == digests[what] for what, answer in right)
    refused = sum(400 <= answer.status < 500 for _, answer in wrong)
    print(f"{len(plan)} requests, {options.parallel} at a time, {options.num_steps} steps, {took:.0f} s")
    print(f"  right: {len(right)}, of which {equal} have the digest of pbe edit; {percentiles([a for _, a in right])}")
    print(f"  hostile: {len(wrong)}, of which {refused} got 4xx; {percentiles([a for _, a in wrong])}")
    for name, statuses in sorted(by_kind(wrong).items()):
        print(f"    {name}: {', '.join(f'{count} x {status}' for status, count in sorted(statuses.items()))}")
    print(f"  the process lives: {lives}; refused while the queue was full: {sum(a.num_429 for a in answers)}")
    return int(not lives or equal < len(right) or refused < len(wrong))


def flood(options: argparse.Namespace, folder: Path) -> int:
    """Send right requests all at once, and check each answer."""
    digests = digests_of_the_command(options, folder)
    with served(options, folder) as server:
        answers = asyncio.run(send_at_once(server.url, options))
        most_mb = server.rss_mb
        last = send(server.url, SEEDS[0], options.num_steps)
    right = sum(answer.status_code == 200 and digest_of(answer) == digests[seed] for seed, answer in answers)
    refused = sum(answer.status_code == 429 and "retry-after" in answer.headers for _, answer in answers)
    print(f"{len(answers)} requests at once: {right} have the digest of pbe edit, {refused} got 429 with Retry-After; "
          f"the service then holds {most_mb:.0f} MB; the next request got {last.status}")  # fmt: skip
    return int(right + refused < len(answers) or not right or last.digest != digests[SEEDS[0]])


async def send_at_once(url: str, options: argparse.Namespace) -> list[tuple[int, httpx.Response]]:
    """Return seed and answer of each request."""
    everything = httpx.Limits(max_connections=None)

    async def ask(seed: int) -> tuple[int, httpx.Response]:
        fields = {"seed": str(seed), "num_steps": str(options.num_steps)}
        return seed, await client.post(f"{url}/v1/images/edits", files=good_files(), data=fields)

    async with httpx.AsyncClient(limits=everything, timeout=600) as client:
        seeds = [SEEDS[number % len(SEEDS)] for number in range(options.requests)]
        return await asyncio.gather(*map(ask, seeds))


def digest_of(answer: httpx.Response) -> str:
    return str(answer.json()["data"][0]["digest"])


def batching(options: argparse.Namespace, folder: Path) -> int:
    """Measure edits a second with and without batches, in alternation."""
    rates: dict[int, list[float]] = {1: [], 8: []}
    with served(options, folder, max_batch=1) as alone, served(options, folder, max_batch=8) as together:
        for number in range(options.rounds + 1):
            for size, server in ((1, alone), (8, together)):
                rate = edits_per_second(server.url, options)
                if number:  # the first round warms up
                    rates[size].append(rate)
                print(f"  round {number}, max_batch {size}: {rate:.2f} edits/s", flush=True)
        mean_size = together.metric("pbe_batch_size_sum") / max(1.0, together.metric("pbe_batch_size_count"))
    ratios = [many / one for one, many in zip(rates[1], rates[8], strict=True)]
    for size, each in rates.items():
        print(f"  max_batch {size}: median {statistics.median(each):.2f} edits/s ({min(each):.2f} to {max(each):.2f})")
    print(f"  batches of {mean_size:.1f} windows on average")
    print(
        f"batching: {statistics.median(ratios):.2f} times the edits a second ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return 0


def memory(options: argparse.Namespace, folder: Path) -> int:
    """Run Locust against the service, and fit a line to its resident memory."""
    locustfile = PROJECT / "benchmarks/service_locustfile.py"
    with served(options, folder) as server:
        samples: list[tuple[float, float]] = []
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(1):
                samples.append((time.monotonic(), server.rss_mb))

        sampler = threading.Thread(target=sample)
        sampler.start()
        command = [options.locust, "-f", str(locustfile), "--headless", "-u", str(options.users), "-r", "2",
                   "-t", f"{options.minutes * 60:.0f}s", "-H", server.url, "--only-summary"]  # fmt: skip
        environment = os.environ | {"NUM_STEPS": str(options.num_steps)}
        locust = subprocess.run(command, env=environment, check=False, text=True, capture_output=True)
        ended.set()
        sampler.join()
        lives = server.process.is_running()
    print(locust.stdout + locust.stderr)
    seconds, megabytes = np.array(samples).T
    kept = seconds > seconds[0] + WARM_UP_FRAC * (seconds[-1] - seconds[0])
    slope = float(np.polyfit(seconds[kept] / 60, megabytes[kept], 1)[0])
    minutes = [
        f"{megabytes[(seconds - seconds[0]) // 60 == minute].mean():.0f}"
        for minute in range(int((seconds[-1] - seconds[0]) // 60) + 1)
    ]
    print(f"memory: {' '.join(minutes)} MB in each minute; at most {megabytes.max():.0f} MB")
    print(f"  after {WARM_UP_FRAC:.0%} of the time it grows by {slope:+.2f} MB a minute; Locust's exit code "
          f"{locust.returncode}; the process lives: {lives}")  # fmt: skip
    return int(not lives or slope > LARGEST_GROWTH or locust.returncode != 0)


@dataclass(frozen=True)
class Answer:
    """What a request got, and after how many seconds."""

    status: int
    digest: str
    seconds: float
    num_429: int


def send(url: str, what: int | str, num_steps: int) -> Answer:
    """Send the edit of a seed, or a hostile request; come back when the queue was full, as asked."""
    started, num_429 = time.monotonic(), 0
    while True:
        if isinstance(what, int):
            response = post(url, good_files(), {"seed": str(what), "num_steps": str(num_steps)})
        else:
            response = HOSTILE[what](url)
        if response.status_code != 429:
            break
        num_429 += 1
        time.sleep(float(response.headers["retry-after"]))
    digest = digest_of(response) if response.status_code == 200 else ""
    return Answer(response.status_code, digest, time.monotonic() - started, num_429)


def edits_per_second(url: str, options: argparse.Namespace) -> float:
    """Return the rate of 2 requests from each of the parallel clients."""
    seeds = [number % len(SEEDS) for number in range(2 * options.parallel)]
    with ThreadPoolExecutor(options.parallel) as pool:
        started = time.monotonic()
        answers = list(pool.map(lambda seed: send(url, seed, options.num_steps), seeds))
        took = time.monotonic() - started
    assert all(answer.status == 200 for answer in answers)
    return len(answers) / took


def digests_of_the_command(options: argparse.Namespace, folder: Path) -> dict[int, str]:
    """Return the digest that `pbe edit` prints for each seed."""
    paths = {}
    for name, data in (("source", png(SOURCE)), ("mask", png(MASK)), ("exemplar", png(EXEMPLAR))):
        paths[name] = folder / f"{name}.png"
        paths[name].write_bytes(data)
    command = [PBE, "edit", "--json", "--model", options.model,
               "--num-steps", str(options.num_steps), "--seed", f"{SEEDS[0]}..{SEEDS[-1]}", "--out", folder / "out",
               *(part for name, path in paths.items() for part in (f"--{name}", path))]  # fmt: skip
    lines = subprocess.run(command, cwd=PROJECT, check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()
    results = [json.loads(line) for line in lines if line.startswith("{")]
    return {result["seed"]: result["digest"] for result in results}


def post(url: str, files: Files, fields: dict[str, str]) -> httpx.Response:
    return httpx.post(f"{url}/v1/images/edits", files=files, data=fields, timeout=600)


def good_files(source: bytes | None = None, mask: bytes | None = None) -> Files:
    return [
        ("image[]", ("source.png", source or png(SOURCE))),
        ("image[]", ("exemplar.png", png(EXEMPLAR))),
        ("mask", ("mask.png", mask or png(MASK))),
    ]


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@cache
def bomb() -> bytes:
    """Return a small file of 30,000 x 30,000 pixels."""
    stream = io.BytesIO()
    PillowImage.new("1", (30_000, 30_000)).save(stream, "PNG")
    return stream.getvalue()


_rng = np.random.default_rng(0)
SOURCE = _rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
MASK = np.zeros((96, 128), np.uint8)
MASK[30:60, 40:70] = 255
EXEMPLAR = SOURCE[:40, :40]
HOSTILE = {
    "bomb": lambda url: post(url, good_files(bomb()), {}),
    "damaged picture": lambda url: post(url, good_files(png(SOURCE)[:300]), {}),
    "no picture": lambda url: post(url, good_files(b"%PDF-1.7 not a picture"), {}),
    "mask of another size": lambda url: post(url, good_files(mask=png(MASK[:50])), {}),
    "empty mask": lambda url: post(url, good_files(mask=png(np.zeros_like(MASK))), {}),
    "no mask": lambda url: post(url, good_files()[:2], {}),
    "no image": lambda url: post(url, good_files()[2:], {}),
    "guidance nan": lambda url: post(url, good_files(), {"guidance_scale": "nan"}),
    "steps 1e9": lambda url: post(url, good_files(), {"num_steps": "1000000000"}),
    "n 1000": lambda url: post(url, good_files(), {"n": "1000"}),
    "other model": lambda url: post(url, good_files(), {"model": "../../etc/passwd"}),
    "not JSON": lambda url: httpx.post(
        f"{url}/v1/images/edits", content=b"{" * 1000, headers={"content-type": "application/json"}, timeout=60
    ),
    "other type": lambda url: httpx.post(
        f"{url}/v1/images/edits", content=b"<x/>", headers={"content-type": "text/xml"}, timeout=60
    ),
    "other path": lambda url: httpx.get(f"{url}/../../etc/passwd", timeout=60),
}


def by_kind(answers: list[tuple[str, Answer]]) -> dict[str, Counter[int]]:
    """Return how often each kind of request got each status."""
    kinds: dict[str, Counter[int]] = {}
    for name, answer in answers:
        kinds.setdefault(name, Counter())[answer.status] += 1
    return kinds


def percentiles(answers: list[Answer]) -> str:
    """Return p50 and p95 of the seconds, those of waiting for a full queue included."""
    p50, p95 = np.percentile([answer.seconds for answer in answers], [50, 95])
    return f"p50 {p50:.2f} s, p95 {p95:.2f} s"


if __name__ == "__main__":
    sys.exit(main())

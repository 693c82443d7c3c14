"""Users of the service for Locust, a load generator (`pip install locust`, in a separate environment).

    pbe serve --port 8000
    locust -f benchmarks/service_locustfile.py --headless -u 8 -r 2 -t 10m -H http://127.0.0.1:8000

Most requests are right; some are wrong, which the service must refuse, and some clients leave before the answer.
A request that the full queue refuses (429) is no failure; it comes again after `Retry-After`. NUM_STEPS in the
environment sets the sampling steps.
"""

import os
from pathlib import Path

import gevent
from locust import HttpUser, between, task

EXAMPLE = Path(__file__).parents[1] / "docs/examples/can"
SOURCE, MASK, EXEMPLAR = ((EXAMPLE / name).read_bytes() for name in ("source.jpg", "mask.png", "exemplar.png"))
NUM_STEPS = os.environ.get("NUM_STEPS", "4")
EDITS = "/v1/images/edits"


def form(mask: bytes = MASK, source: bytes = SOURCE) -> list[tuple[str, tuple[str, bytes]]]:
    """Return the files of an edit as OpenAI's clients send them."""
    return [
        ("image[]", ("source.jpg", source)),
        ("image[]", ("exemplar.png", EXEMPLAR)),
        ("mask", ("mask.png", mask)),
    ]


class Person(HttpUser):
    """Sends one request after another."""

    wait_time = between(0.0, 0.5)

    @task(6)
    def edit(self) -> None:
        self._ask({"n": "1", "seed": "1"}, form(), "edit", {200})

    @task(1)
    def variants(self) -> None:
        self._ask({"n": "3"}, form(), "3 variants", {200})

    @task(1)
    def wrong_mask(self) -> None:
        self._ask({}, form(mask=EXEMPLAR), "mask of another size", {400})

    @task(1)
    def no_picture(self) -> None:
        self._ask({}, form(source=b"\x89PNG\r\n\x1a\n" + bytes(5000)), "damaged source", {400})

    @task(1)
    def wrong_number(self) -> None:
        self._ask({"guidance_scale": "nan"}, form(), "not a number", {400})

    @task(1)
    def leave(self) -> None:
        with self.client.post(
            EDITS, files=form(), data={"num_steps": "50"}, name="client leaves", timeout=0.5, catch_response=True
        ) as answer:
            answer.success()

    @task(1)
    def look(self) -> None:
        for path in ("/healthz", "/readyz", "/v1/models", "/metrics"):
            self.client.get(path)

    def _ask(self, fields: dict[str, str], files: object, name: str, expected: set[int]) -> None:
        data = {"num_steps": NUM_STEPS, **fields}
        with self.client.post(EDITS, files=files, data=data, name=name, timeout=300, catch_response=True) as answer:
            if answer.status_code in expected:
                answer.success()
            elif answer.status_code == 429 and "retry-after" in answer.headers:
                answer.success()
                gevent.sleep(float(answer.headers["retry-after"]))
            else:
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")

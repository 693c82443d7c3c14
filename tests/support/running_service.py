"""The service on a free port of loopback, in a thread of the test, and requests to it."""

import base64
import io
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image as PILImage

from pbe.serving.service.application import create_application
from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.models import Models
from pbe.serving.service.server import DrainingServer, listener_of, uvicorn_config
from pbe.serving.service.service_state import ServiceState
from pbe.serving.service.settings import ServiceSettings

DEADLINE_S = 60
ALICE, BOB = "alice-has-a-long-token", "bob-has-another-token"
EDITS = "/v1/images/edits"


@dataclass(frozen=True)
class RunningService:
    """A service that listens, and what it is made of."""

    url: str
    state: ServiceState
    dispatcher: Dispatcher

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, token: str | None = ALICE) -> httpx.Client:
        """Return a client with a token."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=DEADLINE_S)

    def wait_until_idle(self) -> None:
        """Wait until no edit is queued or painted."""
        wait_for(lambda: self.dispatcher.state.queued + self.dispatcher.state.running == 0)


@contextmanager
def running_service(model_folder: Path, *, max_queue: int = 64, **settings: Any) -> Iterator[RunningService]:
    """Run a service with one tiny model; the settings are ServiceSettings'."""
    dispatcher = Dispatcher(Models({"tiny": model_folder}, device="cpu", precision="fp32"), max_queue=max_queue)
    dispatcher.start()
    chosen = ServiceSettings(port=0, **settings)
    application = create_application(dispatcher, chosen)
    addresses: list[str] = []
    server = DrainingServer(uvicorn_config(application, chosen), application.state.service, addresses.append)
    listening = threading.Thread(target=server.run, args=([listener_of(chosen)],))
    listening.start()
    try:
        wait_for(lambda: bool(addresses))
        yield RunningService(addresses[0], application.state.service, dispatcher)
    finally:
        server.should_exit = True
        listening.join(DEADLINE_S)
        dispatcher.drain(DEADLINE_S)


def write_tokens(folder: Path, text: str = f"alice:{ALICE}\nbob:{BOB}\n") -> Path:
    """Write a file of tokens."""
    path = folder / "tokens"
    path.write_text(text)
    return path


def wait_for(condition: Any) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@dataclass
class SmallEdit:
    """The files of a small edit: a source (40, 48), a mask that is transparent where to repaint, an exemplar."""

    source: bytes = field(default_factory=lambda: png(noise(40, 48, 0)))
    mask: bytes = field(default_factory=lambda: png(openai_mask(40, 48)))
    exemplar: bytes = field(default_factory=lambda: png(noise(30, 20, 1)))

    def files(self) -> list[tuple[str, tuple[str, bytes, str]]]:
        """Return the parts of a form, as httpx takes them."""
        named = (("image[]", self.source), ("image[]", self.exemplar), ("mask", self.mask))
        return [(name, (f"{name}.png", data, "image/png")) for name, data in named]

    def json(self, **fields: Any) -> dict[str, Any]:
        """Return a JSON body with two steps."""
        images = [encoded(self.source), encoded(self.exemplar)]
        return {"image": images, "mask": encoded(self.mask), "num_steps": 2} | fields


def post_form(client: httpx.Client, edit: SmallEdit, **fields: Any) -> httpx.Response:
    """Send an edit of two steps as a form."""
    data: Mapping[str, Any] = {"num_steps": "2"} | {name: str(value) for name, value in fields.items()}
    return client.post(EDITS, data=data, files=edit.files())


def noise(height: int, width: int, seed: int) -> np.ndarray[Any, Any]:
    """Return (H, W, 3) of random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def openai_mask(height: int, width: int) -> np.ndarray[Any, Any]:
    """Return (H, W, 4), black, transparent in a rectangle."""
    mask = np.zeros((height, width, 4), np.uint8)
    mask[..., 3] = 255
    mask[10:25, 8:30, 3] = 0
    return mask


def png(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    """Return the bytes of a PNG file."""
    stream = io.BytesIO()
    PILImage.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


def pixels_of(data: bytes) -> np.ndarray[Any, Any]:
    """Return the pixels of an image file."""
    return np.asarray(PILImage.open(io.BytesIO(data)))


def encoded(data: bytes) -> str:
    """Return Base64."""
    return base64.b64encode(data).decode()


def decoded(text: str) -> bytes:
    """Return the bytes of Base64."""
    return base64.b64decode(text, validate=True)

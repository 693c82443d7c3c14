"""The page on a server with the tiny painter, and headless Chromium, each started once a module."""

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageCms
from playwright.sync_api import Browser, sync_playwright

from pbe.serving.page.mounting import mount_page
from pbe.serving.page.page import Page
from pbe.serving.service.application import create_application
from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.models import Models
from pbe.serving.service.server import DrainingServer, listener_of, uvicorn_config
from pbe.serving.service.settings import ServiceSettings

STARTUP_S = 30.0


@dataclass(frozen=True)
class RunningPage:
    """A page that is served, and what its server holds."""

    url: str
    page: Page
    dispatcher: Dispatcher
    uploads: Path
    server: DrainingServer


@contextmanager
def running_page(model_folder: Path, **settings: Any) -> Iterator[RunningPage]:
    """Run the service and its page with one tiny model; the settings are ServiceSettings'."""
    dispatcher = Dispatcher(Models({"tiny": model_folder}, device="cpu", precision="fp32"))
    dispatcher.start()
    chosen = ServiceSettings(port=0, **settings)
    application = mount_page(create_application(dispatcher, chosen))
    addresses: list[str] = []
    server = DrainingServer(uvicorn_config(application, chosen), application.state.service, addresses.append)
    thread = threading.Thread(target=server.run, args=([listener_of(chosen)],))
    thread.start()
    try:
        wait_until(lambda: bool(addresses))
        uploads = Path(application.state.page_uploads.name)
        yield RunningPage(addresses[0], application.state.page, dispatcher, uploads, server)
    finally:
        if not dispatcher.state.draining:
            server.handle_exit(signal.SIGTERM, None)
        thread.join(STARTUP_S)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def running(model_folder: Path) -> Iterator[RunningPage]:
    with running_page(model_folder) as page:
        yield page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium; .ci/run installs it")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with s.png (96 x 80, half transparent, with a colour profile), m.png and e.jpg (40 x 30)."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (80, 96, 4), dtype=np.uint8)
    pixels[..., 3] = np.where(np.arange(96) < 48, 255, 128)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    PillowImage.fromarray(pixels).save(folder / "s.png", icc_profile=profile)
    PillowImage.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / "e.jpg")
    mask = np.zeros((80, 96), np.uint8)
    mask[20:50, 16:60] = 255
    PillowImage.fromarray(mask).save(folder / "m.png")
    return folder


def wait_until(condition: Any, seconds: float = STARTUP_S) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)

"""The examples of docs/clients.md, as they stand there, against a running service."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tests.support.running_service import ALICE, RunningService, noise

PAGE = Path(__file__).parents[3] / "docs" / "clients.md"
BLOCK = re.compile(r"^## (.+?)$|^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITHOUT = {"LiteLLM": "litellm is no dependency of the project: it pins versions of others; it was run by hand"}


def examples() -> dict[str, tuple[str, str]]:
    """Return the language and the code of each section that has an example."""
    found, title = {}, ""
    for match in BLOCK.finditer(PAGE.read_text()):
        title = match[1] or title
        if match[2]:
            found[title] = (match[2], match[3])
    return found


EXAMPLES = examples()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the files that the examples read."""
    PILImage.fromarray(noise(40, 48, 0)).save(tmp_path / "photo.jpg")
    PILImage.fromarray(noise(30, 20, 1)).save(tmp_path / "cup.jpg")
    mask = np.zeros((40, 48), np.uint8)
    mask[10:25, 8:30] = 255
    PILImage.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


def run(title: str, folder: Path, url: str) -> str:
    language, code = EXAMPLES[title]
    command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
    environment = {**os.environ, "PBE_URL": url, "PBE_TOKEN": ALICE, "no_proxy": "127.0.0.1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_client_has_an_example() -> None:
    assert list(EXAMPLES) == [
        "curl", "OpenAI's client", "LiteLLM", "Python, without a client library", "In the background",
    ]  # fmt: skip
    assert set(WITHOUT) < set(EXAMPLES)


@pytest.mark.parametrize("title", [title for title in EXAMPLES if title not in WITHOUT])
def test_an_example_edits_the_photograph(title: str, folder: Path, service: RunningService) -> None:
    output = run(title, folder, service.url)

    results = sorted(folder.glob("edited*.png"))
    assert len(results) == (2 if title == "OpenAI's client" else 1)
    source, mask = (np.asarray(PILImage.open(folder / name)) for name in ("photo.jpg", "mask.png"))
    for path in results:
        edited = np.asarray(PILImage.open(path))
        assert (edited[mask == 0] == source[mask == 0]).all()
        assert (edited[mask == 255] != source[mask == 255]).any()
    if title.startswith("Python"):
        seed, digest, changed = output.split()
        assert (seed, len(digest), changed) == ("7", 64, "0")
    if title == "In the background":
        assert output.splitlines()[-1] == "done 100%"

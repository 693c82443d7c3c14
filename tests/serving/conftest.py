"""A painter with random weights, small enough to build in a test, images for it, and an empty registry."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image as PILImage

from pbe.method.painter import Painter
from tests.support.random_painter import build_painter


@pytest.fixture(scope="session")
def painter() -> Painter:
    return build_painter(0)


@pytest.fixture(scope="session")
def model_folder(painter: Painter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pbe"
    painter.save_pretrained(folder)
    return folder


@pytest.fixture
def model_without_guidance(tmp_path: Path) -> Path:
    folder = tmp_path / "without guidance"
    build_painter(0, guidance=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with MLflow's tables; creating them takes seconds, so it is created once."""
    database = tmp_path_factory.mktemp("registry") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder with source s.png (48 x 40), mask m.png and exemplar e.jpg (20 x 30)."""
    rng = np.random.default_rng(0)
    PILImage.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(tmp_path / "s.png")
    PILImage.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(tmp_path / "e.jpg")
    mask = np.zeros((40, 48), np.uint8)
    mask[10:25, 8:30] = 255
    PILImage.fromarray(mask).save(tmp_path / "m.png")
    return tmp_path

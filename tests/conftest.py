"""Shared by all tests: no telemetry, a backbone with random weights, and a small demo bucket served over S3."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import environment

environment.apply()  # the libraries read it at import
if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core: more threads would compete for it
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from pbe.demo.bucket import write_bucket  # noqa: E402
from pbe.demo.endpoint import serve_bucket  # noqa: E402
from tests.support import parameters  # noqa: E402
from tests.support.tiny_models import write_backbone  # noqa: E402

SMALL_WORLD = parameters.world(train_images=80, validation_images=40, fault_frac=0.05)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first, so that no worker is still in one when the others have finished."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete backbone with random weights."""
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "bucket"
    write_bucket(folder, SMALL_WORLD, seed=3)
    return folder


@pytest.fixture(scope="session")
def endpoint(bucket: Path) -> Iterator[str]:
    with serve_bucket(bucket) as url:
        yield url


@pytest.fixture
def tracking_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URI of an MLflow store in a database of the test's folder, which is the working directory."""
    import mlflow  # takes seconds, which most tests need not wait

    monkeypatch.chdir(tmp_path)  # artifacts of a local store go into ./mlruns
    before = mlflow.get_tracking_uri()
    yield f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(before)

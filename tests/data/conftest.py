"""A small demo world, drawn once and served from a real S3 endpoint, for the tests of the data layer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pbe.data.world.bucket import write_bucket
from pbe.data.world.endpoint import serve_bucket
from pbe.settings import World

SMALL_WORLD = World(train_images=80, validation_images=40, fault_frac=0.05)


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "bucket"
    write_bucket(folder, SMALL_WORLD, seed=3)
    return folder


@pytest.fixture(scope="session")
def endpoint(bucket: Path) -> Iterator[str]:
    with serve_bucket(bucket) as url:
        yield url

"""A service with two users, started once a module."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.running_service import ALICE, BOB, RunningService, running_service, write_tokens


@pytest.fixture(scope="module")
def service(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Alice and Bob may send as much as they like."""
    quotas = "requests_per_minute=100000 max_jobs=64"
    text = f"alice:{ALICE} {quotas}\nbob:{BOB} {quotas}\n"
    tokens = write_tokens(tmp_path_factory.mktemp("service"), text)
    with running_service(model_folder, tokens_file=tokens, max_body_bytes=2**20) as running:
        yield running


@pytest.fixture
def alice(service: RunningService) -> Iterator[httpx.Client]:
    with service.client(ALICE) as client:
        yield client


@pytest.fixture
def bob(service: RunningService) -> Iterator[httpx.Client]:
    with service.client(BOB) as client:
        yield client

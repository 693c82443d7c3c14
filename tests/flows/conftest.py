"""A Prefect server for the tests, and toy projects with and without it."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pbe.runtime.ports import listen
from tests.support.toy_project import ROOT, Project, healthy, make_project, wait_for


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def api_url(prefect_home: Path) -> Iterator[str]:
    """Start a Prefect server for the tests."""
    folder, bound = prefect_home, listen(0, "--port")
    port = bound.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    env = os.environ | {"PREFECT_HOME": str(folder), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "flows.server", "--socket", str(bound.fileno())]
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, pass_fds=[bound.fileno()])
        try:
            assert wait_for(lambda: healthy(url), within_s=300), (folder / "log").read_text()
            yield url
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture
def project(tmp_path: Path, api_url: str) -> Project:
    """The toy project, with the tests' Prefect server configured."""
    return make_project(tmp_path, api_url)


@pytest.fixture
def new_project(tmp_path: Path) -> Project:
    """The toy project, with no Prefect server configured."""
    return make_project(tmp_path, None)


@pytest.fixture
def lone_project(new_project: Project, api_url: str, prefect_home: Path) -> Project:
    """The toy project, with no Prefect server configured, and a database, whose first migration takes long."""
    home = new_project.folder / ".prefect"
    home.mkdir()
    with (
        closing(sqlite3.connect(prefect_home / "prefect.db")) as of_server,
        closing(sqlite3.connect(home / "prefect.db")) as copy,
    ):
        of_server.backup(copy)
    return new_project

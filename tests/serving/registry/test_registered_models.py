"""Registered models found in MLflow's database without MLflow: the same answers, and MLflow where there is none."""

import re
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from pbe.errors import UnavailableError, UserError
from pbe.serving.registry import registered_models
from pbe.serving.registry.registered_models import (
    MissingFilesError,
    NoModelError,
    files_are_missing,
    find_version,
    painter_folder,
)
from pbe.serving.registry.tracking_servers import check_server

NAME = "paint-by-example"
CHAMPION = f"models:/{NAME}@champion"


class Registry:
    """A registry of two versions, both of folders on this disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = mlflow.MlflowClient(self.uri)
        self.client.create_registered_model(NAME)
        for number in (1, 2):
            self.client.create_model_version(NAME, str(write_model(folder / f"model {number}")))
        self.move_champion(1)

    def move_champion(self, version: int) -> None:
        self.client.set_registered_model_alias(NAME, "champion", str(version))

    def find(self, uri: str, direct: bool = True) -> Path:
        return painter_folder(uri, tracking_uri=self.uri, direct=direct)


def write_model(folder: Path) -> Path:
    (folder / "artifacts/pbe").mkdir(parents=True)
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    artifacts:\n      painter:\n        path: artifacts/pbe\n"
    )
    return folder


@pytest.fixture(scope="module")
def built(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_registry, folder / "mlflow.db")
    return Registry(folder)


@pytest.fixture
def registry(built: Registry) -> Iterator[Registry]:
    """Return the registry as it was built; the database is restored after the test."""
    saved = built.folder / "saved.db"
    shutil.copy(built.folder / "mlflow.db", saved)
    yield built
    shutil.copy(saved, built.folder / "mlflow.db")
    mlflow.set_tracking_uri("")


@pytest.fixture
def no_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when MLflow is asked."""

    def fail(model_uri: str, tracking_uri: str, cache: Path | None) -> Path:
        raise AssertionError(f"MLflow was asked for {model_uri}")

    monkeypatch.setattr(registered_models, "_download", fail)


def test_the_installed_mlflow_has_a_schema_that_can_be_read_directly(registry: Registry) -> None:
    """After an update of MLflow: compare the tables that registered_models queries, then add the new schema there."""
    with sqlite3.connect(registry.folder / "mlflow.db") as connection:
        (schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    assert schema in registered_models._SCHEMAS


@pytest.mark.parametrize("uri", [CHAMPION, f"models:/{NAME}/1", f"models:/{NAME}/2"])
def test_the_database_gives_the_folder_that_mlflow_gives(
    uri: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = registry.find(uri, direct=False)
    monkeypatch.delattr(registered_models, "_download")
    assert registry.find(uri) == asked
    assert asked.is_dir()


@pytest.mark.usefixtures("no_mlflow")
def test_an_alias_that_has_moved_is_followed(registry: Registry) -> None:
    assert registry.find(CHAMPION) == registry.folder / "model 1/artifacts/pbe"
    registry.move_champion(2)
    assert registry.find(CHAMPION) == registry.folder / "model 2/artifacts/pbe"


@pytest.mark.parametrize("direct", [True, False])
def test_the_version_that_an_alias_names(direct: bool, registry: Registry) -> None:
    registry.move_champion(2)
    find = partial(find_version, tracking_uri=registry.uri, direct=direct)

    champion = find(CHAMPION)
    assert champion is not None
    assert (champion.name, champion.version, champion.location) == (NAME, 2, str(registry.folder / "model 2"))
    assert champion == find(f"models:/{NAME}/2")
    assert champion.created_ms == int(registry.client.get_model_version(NAME, "2").creation_timestamp)
    assert find(f"models:/{NAME}@other") is None
    assert find(f"models:/{NAME}/9") is None
    assert find("models:/other/1") is None
    with pytest.raises(UserError, match=f"models:/{NAME}: give models:/NAME@ALIAS or models:/NAME/VERSION"):
        find(f"models:/{NAME}")


def test_a_version_is_found_without_mlflow(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(registered_models, "_version_of_server")
    assert find_version(CHAMPION, tracking_uri=registry.uri)
    assert find_version("models:/other/1", tracking_uri=registry.uri) is None


def test_a_version_of_a_server_that_does_not_answer_is_an_outage() -> None:
    with pytest.raises(UnavailableError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        find_version(CHAMPION, tracking_uri="http://127.0.0.1:9")


@pytest.mark.usefixtures("no_mlflow")
def test_a_location_may_be_a_file_uri(registry: Registry) -> None:
    registry.client.create_model_version(NAME, (registry.folder / "model 1").as_uri())
    assert registry.find(f"models:/{NAME}/3") == registry.folder / "model 1/artifacts/pbe"


@pytest.mark.usefixtures("no_mlflow")
@pytest.mark.parametrize(
    "uri",
    [
        f"models:/{NAME}@other",
        f"models:/{NAME}/9",
        f"models:/{NAME}/latest",
        f"models:/{NAME}",
        "models:/other/1",
        "models:/",
    ],
)
def test_mlflow_is_asked_when_the_database_has_no_answer(uri: str, registry: Registry) -> None:
    with pytest.raises(AssertionError, match="MLflow was asked"):
        registry.find(uri)


@pytest.mark.usefixtures("no_mlflow")
def test_mlflow_is_asked_when_the_schema_is_unknown(registry: Registry) -> None:
    with sqlite3.connect(registry.folder / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'unknown'")
    with pytest.raises(AssertionError, match="MLflow was asked"):
        registry.find(CHAMPION)


@pytest.mark.usefixtures("no_mlflow")
@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////nowhere/mlflow.db", "mlruns"])
def test_mlflow_is_asked_when_the_registry_is_no_database_on_this_disk(uri: str) -> None:
    with pytest.raises(AssertionError, match="MLflow was asked"):
        painter_folder(CHAMPION, tracking_uri=uri)


def test_a_deleted_version_is_not_found(registry: Registry) -> None:
    registry.client.delete_model_version(NAME, "2")
    with pytest.raises(NoModelError, match=f"no model models:/{NAME}/2 in sqlite:"):
        registry.find(f"models:/{NAME}/2")


def test_an_alias_that_nothing_has_is_not_found(registry: Registry) -> None:
    registry.client.delete_registered_model_alias(NAME, "champion")
    for uri in (CHAMPION, "models:/other@champion"):
        with pytest.raises(NoModelError, match=f"no model {uri} in sqlite:"):
            registry.find(uri)


def test_a_model_that_cannot_be_downloaded_is_not_missing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: str) -> None:
        raise MlflowException("no permission", PERMISSION_DENIED)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", fail)
    with pytest.raises(UserError, match="no permission") as error:
        registry.find(CHAMPION, direct=False)
    assert not isinstance(error.value, NoModelError)


def test_a_model_of_another_project_is_named(registry: Registry) -> None:
    other = write_model(registry.folder / "other")
    (other / "MLmodel").write_text("flavors:\n  sklearn: {}\n")
    registry.client.create_model_version(NAME, str(other))
    with pytest.raises(UserError, match=f"models:/{NAME}/3 is not a model of this project"):
        registry.find(f"models:/{NAME}/3")


def test_a_project_that_was_moved_finds_its_model(built: Registry, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(built.folder, moved)
    uri = f"sqlite:///{moved / 'mlflow.db'}"
    with sqlite3.connect(moved / "mlflow.db") as database:
        database.execute("UPDATE model_versions SET storage_location = replace(storage_location, 'registry', 'gone')")
    gone = next(built.folder.glob("model 1")).name
    assert painter_folder(f"models:/{NAME}/1", tracking_uri=uri) == moved / gone / "artifacts/pbe"


def test_a_model_whose_files_are_gone_is_named_with_its_remedy(built: Registry, tmp_path: Path) -> None:
    shutil.copy(built.folder / "mlflow.db", tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE model_versions SET storage_location = '/nowhere/m'")
    assert files_are_missing(CHAMPION, uri)
    assert not files_are_missing(f"models:/{NAME}/7", uri)
    with pytest.raises(MissingFilesError, match="its files are gone from /nowhere/m; run dvc repro --force --single"):
        painter_folder(CHAMPION, tracking_uri=uri)


def test_a_server_that_does_not_answer_is_reported_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts connections, and says nothing
        silent_uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for uri in ("http://127.0.0.1:9", "http://no-such-host.invalid", silent_uri):
            before = time.monotonic()
            with pytest.raises(UnavailableError, match=f"MLflow at {uri} does not answer: "):
                painter_folder(CHAMPION, tracking_uri=uri)
            assert time.monotonic() - before < 5 + 1


def test_a_password_is_neither_asked_for_nor_shown() -> None:
    with pytest.raises(UnavailableError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer: .*refused"):
        painter_folder(CHAMPION, tracking_uri="http://me:secret@127.0.0.1:9")


def test_a_servers_model_is_downloaded_once_for_each_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(monkeypatch, tmp_path / "artifacts")
    find = partial(painter_folder, CHAMPION, tracking_uri="http://registry.test", cache=tmp_path / "cache")
    first = find()
    assert first == find()
    assert server.downloads == 1
    assert first.is_relative_to(tmp_path / "cache")

    server.version = SimpleNamespace(name=NAME, version=2, creation_timestamp=1)
    assert find() != first
    server.version = SimpleNamespace(name=NAME, version=1, creation_timestamp=99)  # of a new database there
    assert find() != first
    assert server.downloads == 3
    mlflow.set_tracking_uri("")


class FakeServer:
    """A tracking server that answers without a network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> None:
        self.version = SimpleNamespace(name=NAME, version=1, creation_timestamp=1)
        self.downloads = 0
        self.artifacts = write_model(artifacts)
        monkeypatch.setattr(registered_models, "check_server", lambda uri: None)
        monkeypatch.setattr(mlflow.MlflowClient, "get_model_version_by_alias", lambda *_: self.version)
        monkeypatch.setattr(mlflow.artifacts, "download_artifacts", self.download)

    def download(self, artifact_uri: str, dst_path: str) -> str:
        path = artifact_uri.removeprefix(f"models:/{NAME}/{self.version.version}/")
        if path == "MLmodel":
            self.downloads += 1
            shutil.copy(self.artifacts / path, dst_path)
        else:
            assert path == "artifacts/pbe"
            shutil.copytree(self.artifacts / path, Path(dst_path) / path)
        return str(Path(dst_path) / path)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2", "mysql+pymysql"])
def test_a_database_server_that_does_not_answer_is_named_without_its_password(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}/mlflow"
        check_server(f"{scheme}://user:secret@{address}")
    with pytest.raises(UnavailableError, match=f"^MLflow at {re.escape(f'{scheme}://{address}')} does not answer"):
        check_server(f"{scheme}://user:secret@{address}")


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "postgresql:///mlflow", "mlruns"])
def test_a_registry_without_a_server_is_not_asked(uri: str) -> None:
    check_server(uri)

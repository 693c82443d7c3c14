"""Registered models found in MLflow's database without MLflow: the same answers, and MLflow where there is none."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from pbe.errors import UserError
from pbe.serving import registered_models
from pbe.serving.registered_models import painter_folder

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

    def fail(model_uri: str, tracking_uri: str) -> Path:
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
    with pytest.raises(UserError, match=f"no model models:/{NAME}/2 in sqlite:"):
        registry.find(f"models:/{NAME}/2")


def test_a_model_whose_files_are_gone_is_named(registry: Registry) -> None:
    registry.client.create_model_version(NAME, str(registry.folder / "gone"))
    with pytest.raises(UserError, match=f"no model models:/{NAME}/3 in sqlite:"):
        registry.find(f"models:/{NAME}/3")


def test_a_model_of_another_project_is_named(registry: Registry) -> None:
    other = write_model(registry.folder / "other")
    (other / "MLmodel").write_text("flavors:\n  sklearn: {}\n")
    registry.client.create_model_version(NAME, str(other))
    with pytest.raises(UserError, match=f"models:/{NAME}/3 is not a model of this project"):
        registry.find(f"models:/{NAME}/3")

"""Which version an alias names, and where its painter is: read from MLflow's SQLite database, or asked of MLflow.

Importing MLflow takes longer than importing torch, and a query takes a millisecond. The database is read at every call,
so an alias that has moved is followed. MLflow answers in every other case: a server, a database of another schema,
artifacts that are not on this disk, and models that do not exist.
"""

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import yaml

from pbe.errors import UserError, disk_error, one_line
from pbe.runtime.files import atomic_folder
from pbe.serving.registry.tracking_servers import (
    check_server,
    outages_reported,
    says_missing,
    store_errors_reported,
    unavailable,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ARTIFACT = "painter"  # the name of the painter's folder among the artifacts of a registered model
CONFIG = {"device": "auto", "precision": "auto"}  # logged with a model: MLflow lets a user change these keys at load

_SCHEMAS = ("dc11669786a5",)  # alembic_version of MLflow 3.17; a test compares it with the installed MLflow
_VERSIONS = """
    SELECT version, creation_time, storage_location
    FROM model_versions LEFT JOIN registered_model_aliases USING (workspace, name, version)
    WHERE workspace = 'default' AND current_stage IS NOT 'Deleted_Internal' AND name = ? AND """


class MissingFilesError(UserError):
    """The registry has the model, but its files are gone."""


class NoModelError(UserError):
    """The registry answers, and does not have the model."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model, when it was created (Unix time, ms), and the address of its files."""

    name: str
    version: int
    created_ms: int
    location: str


def find_version(model_uri: str, *, tracking_uri: str, direct: bool = True) -> RegisteredVersion | None:
    """Return the version that `models:/name@alias` or `models:/name/version` names, or None when there is none.

    From a local SQLite registry this takes a millisecond, without importing MLflow; without `direct`, MLflow is asked
    in any case. Raises UserError for another URI and UnavailableError when the server does not answer.
    """
    query = _query(model_uri)
    if query is None:
        raise UserError(f"{model_uri}: give models:/NAME@ALIAS or models:/NAME/VERSION")
    rows = database_rows(tracking_uri, *query) if direct else None
    if rows is None:
        return _version_of_server(model_uri, tracking_uri)
    return _registered_version(query[1][0], rows[0]) if rows else None


def painter_folder(model_uri: str, *, tracking_uri: str, direct: bool = True, cache: Path | None = None) -> Path:
    """Return the folder of a registered model's painter: in place when it is on this disk, otherwise downloaded.

    `model_uri` is `models:/name@alias` or `models:/name/version`. Without `direct`, MLflow is asked in any case. With a
    folder `cache`, each version of a server is downloaded once. Raises NoModelError when there is no such model,
    MissingFilesError when its files are gone, UserError when it is not a model of this project or cannot be downloaded,
    and UnavailableError when the server does not answer.
    """
    model = stored_folder(model_uri, tracking_uri) if direct else None
    if model is None:
        model = _download(model_uri, tracking_uri, cache)
    return model / _painter_path(model, model_uri)


def _painter_path(model: Path, model_uri: str) -> str:
    """Return where the painter is in the folder of a model, which may hold MLmodel alone."""
    flavors = yaml.safe_load((model / "MLmodel").read_text())["flavors"]
    artifacts = flavors.get("python_function", {}).get("artifacts") or {}
    if ARTIFACT not in artifacts:
        raise UserError(f"{model_uri} is not a model of this project: it has no artifact '{ARTIFACT}'")
    return str(artifacts[ARTIFACT]["path"])


def stored_folder(model_uri: str, tracking_uri: str) -> Path | None:
    """Return the folder of a model in a local SQLite registry, or None when only MLflow can tell."""
    folder = _location_in_database(model_uri, tracking_uri)
    return _moved_folder(folder, _database(tracking_uri).parent) if folder else None


def files_are_missing(model_uri: str, tracking_uri: str) -> bool:
    """Return whether a local registry has the model, but its files are neither where it says nor in the project."""
    folder = _location_in_database(model_uri, tracking_uri)
    return folder is not None and _moved_folder(folder, _database(tracking_uri).parent) is None


def database_location(model_uri: str, tracking_uri: str) -> str:
    """Return the address of a model's files in a local SQLite registry; empty when only MLflow can tell."""
    found = _version_in_database(model_uri, tracking_uri)
    return found.location if found else ""


def _location_in_database(model_uri: str, tracking_uri: str) -> Path | None:
    """Return where the files of a model in a local SQLite registry were logged, if that is on a disk."""
    location = database_location(model_uri, tracking_uri)
    return local_folder(location) if location else None


def _version_in_database(model_uri: str, tracking_uri: str) -> RegisteredVersion | None:
    query = _query(model_uri)
    rows = database_rows(tracking_uri, *query) if query else None
    return _registered_version(query[1][0], rows[0]) if query and rows else None


def _registered_version(name: str, row: tuple[Any, ...]) -> RegisteredVersion:
    return RegisteredVersion(name, int(row[0]), int(row[1] or 0), row[2] or "")


def database_rows(tracking_uri: str, query: str, values: tuple[str, ...]) -> list[tuple[Any, ...]] | None:
    """Return the rows of a query, or None when the registry is no SQLite database on this disk with known tables."""
    database = _database(tracking_uri)
    if not tracking_uri.startswith("sqlite:///") or not database.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as connection:
            schema = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return connection.execute(query, values).fetchall() if schema and schema[0] in _SCHEMAS else None
    except sqlite3.Error:
        return None


def _database(tracking_uri: str) -> Path:
    return Path(tracking_uri.removeprefix("sqlite:///"))


def _query(model_uri: str) -> tuple[str, tuple[str, str]] | None:
    """Return the query, and its values, for `models:/name@alias` or `models:/name/version`; None for other URIs."""
    model = model_uri.removeprefix("models:/")
    name, at, alias = model.rpartition("@")
    if at and name and "/" not in model and alias.lower() != "latest":
        return _VERSIONS + "alias = ?", (name, alias)
    name, slash, version = model.rpartition("/")
    if slash and name and "/" not in name and version.isdecimal():
        return _VERSIONS + "version = ?", (name, version)
    return None


def _moved_folder(folder: Path, project: Path) -> Path | None:
    """Return the folder of a model where it was logged, or in the project that was moved since; None without one.

    MLflow stores absolute paths. The files of a moved project lie at the same place relative to mlflow.db.
    """
    parts = folder.parts[1:]
    candidates = (folder, *(project.joinpath(*parts[start:]) for start in range(1, len(parts))))
    return next((each for each in candidates if (each / "MLmodel").is_file()), None)


def local_folder(location: str) -> Path | None:
    """Return the folder of an address on this disk, None for any other address."""
    address = urlsplit(location)
    if address.scheme == "file" and address.netloc in ("", "localhost"):
        return Path(unquote(address.path))
    return None if address.scheme or not location.startswith("/") else Path(location)


def _download(model_uri: str, tracking_uri: str, cache: Path | None) -> Path:
    """Return the folder of the model as MLflow finds it, downloaded unless it is on this disk.

    A model that is not on this disk is downloaded once for each version into `cache`.
    """
    check_server(tracking_uri)
    if files_are_missing(model_uri, tracking_uri):
        raise _missing_files(model_uri, str(_location_in_database(model_uri, tracking_uri)))
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(tracking_uri)
    try:
        with store_errors_reported(model_uri):
            return _downloaded(model_uri, tracking_uri, cache)
    except (MlflowException, OSError) as error:
        if isinstance(error, OSError) and (user_error := disk_error(error)):
            raise user_error from None
        if isinstance(error.__context__, OSError):
            raise unavailable(tracking_uri, error) from None
        missing = isinstance(error, MlflowException) and not _has_version(model_uri)
        kind = NoModelError if missing else UserError
        raise kind(f"no model {model_uri} in {tracking_uri}: {one_line(error)}") from None


def _downloaded(model_uri: str, tracking_uri: str, cache: Path | None) -> Path:
    import mlflow

    location = database_location(model_uri, tracking_uri)
    if cache is None or not (tracking_uri.startswith("http") or (location and local_folder(location) is None)):
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri))
    version = _version(model_uri)
    folder = cache / _cache_key(version, tracking_uri)
    if not (folder / "MLmodel").is_file():
        if location and not mlflow.artifacts.list_artifacts(artifact_uri=model_uri):
            raise _missing_files(model_uri, location)
        with atomic_folder(folder) as part:
            _download_file(version, "MLmodel", part)
            _download_file(version, _painter_path(part, model_uri), part)  # without the code, hundreds of small files
    return folder


def _download_file(version: "ModelVersion", path: str, folder: Path) -> None:
    """Download a file or folder of a version to the same path in `folder`."""
    import mlflow

    uri = f"models:/{version.name}/{version.version}/{path}"
    downloaded = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    if downloaded != folder / path:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        downloaded.rename(folder / path)


def _missing_files(model_uri: str, location: str) -> MissingFilesError:
    command = "dvc repro --force --single-item register"
    return MissingFilesError(f"{model_uri}: its files are gone from {location}; run {command}")


def _has_version(model_uri: str) -> bool:
    """Return whether the registry has the model, or gives another answer than that it has not."""
    from mlflow.exceptions import MlflowException

    try:
        return _version(model_uri) is not None
    except MlflowException as error:
        return not says_missing(error)


def _version_of_server(model_uri: str, tracking_uri: str) -> RegisteredVersion | None:
    with outages_reported(tracking_uri):
        import mlflow
        from mlflow.exceptions import MlflowException

        client = mlflow.MlflowClient(tracking_uri)
        try:
            found = _version(model_uri, client)
        except MlflowException as error:
            if not says_missing(error):
                raise
            return None
        location = client.get_model_version_download_uri(found.name, found.version)
    return RegisteredVersion(found.name, int(found.version), int(found.creation_timestamp), location)


def _version(model_uri: str, client: "MlflowClient | None" = None) -> "ModelVersion":
    import mlflow

    client = client or mlflow.MlflowClient()
    name, at, alias = model_uri.removeprefix("models:/").rpartition("@")
    if at:
        return client.get_model_version_by_alias(name, alias)
    name, _, number = model_uri.removeprefix("models:/").rpartition("/")
    return client.get_model_version(name, number)


def _cache_key(version: "ModelVersion", tracking_uri: str) -> Path:
    """Return the cache's folder of a version, which is not the same after a server's database was made anew."""
    server = hashlib.sha256(f"{tracking_uri} {version.creation_timestamp}".encode()).hexdigest()[:12]
    return Path(quote(version.name, safe="")) / f"{version.version}-{server}"

"""Where a registered model's painter is stored: read from MLflow's SQLite database, or asked of MLflow.

Importing MLflow takes longer than importing torch, and a query takes a millisecond. The database is read at every call,
so an alias that has moved is followed. MLflow answers in every other case: a server, a database of another schema,
artifacts that are not on this disk, and models that do not exist.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import yaml

from pbe.errors import UserError, one_line

ARTIFACT = "painter"  # the name of the painter's folder among the artifacts of a registered model

_SCHEMAS = ("dc11669786a5",)  # alembic_version of MLflow 3.17; a test compares it with the installed MLflow
_VERSIONS = """
    SELECT storage_location FROM model_versions LEFT JOIN registered_model_aliases USING (workspace, name, version)
    WHERE workspace = 'default' AND current_stage IS NOT 'Deleted_Internal' AND name = ? AND """


def painter_folder(model_uri: str, *, tracking_uri: str, direct: bool = True) -> Path:
    """Return the folder of a registered model's painter: in place when it is on this disk, otherwise downloaded.

    `model_uri` is `models:/name@alias` or `models:/name/version`. Without `direct`, MLflow is asked in any case. Raises
    UserError when there is no such model, or it is not a model of this project.
    """
    model = _find_in_database(model_uri, tracking_uri) if direct else None
    if model is None:
        model = _download(model_uri, tracking_uri)
    flavors = yaml.safe_load((model / "MLmodel").read_text())["flavors"]
    artifacts = flavors.get("python_function", {}).get("artifacts") or {}
    if ARTIFACT not in artifacts:
        raise UserError(f"{model_uri} is not a model of this project: it has no artifact '{ARTIFACT}'")
    return model / str(artifacts[ARTIFACT]["path"])


def _find_in_database(model_uri: str, tracking_uri: str) -> Path | None:
    """Return the folder of a model in a local SQLite registry, or None when only MLflow can tell."""
    query = _query(model_uri)
    database = Path(tracking_uri.removeprefix("sqlite:///"))
    if query is None or not tracking_uri.startswith("sqlite:///") or not database.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as connection:
            schema = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            found = connection.execute(*query).fetchone() if schema and schema[0] in _SCHEMAS else None
    except sqlite3.Error:
        return None
    folder = _local_folder(found[0]) if found and found[0] else None
    return folder if folder and (folder / "MLmodel").is_file() else None


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


def _local_folder(location: str) -> Path | None:
    address = urlsplit(location)
    if address.scheme == "file" and address.netloc in ("", "localhost"):
        return Path(unquote(address.path))
    return None if address.scheme or not location.startswith("/") else Path(location)


def _download(model_uri: str, tracking_uri: str) -> Path:
    """Return the folder of the model as MLflow finds it, downloaded unless it is on this disk."""
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(tracking_uri)
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri))
    except (MlflowException, OSError) as error:
        raise UserError(f"no model {model_uri} in {tracking_uri}: {one_line(error)}") from None

"""What a registry says of a registered model: its versions, tags and aliases, in one read.

A local SQLite registry is read without MLflow, in milliseconds; any other is asked through MLflow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pbe.errors import UserError
from pbe.serving.registry.registered_models import NoModelError, database_rows
from pbe.serving.registry.tracking_servers import outages_reported, says_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"

_MODEL = "SELECT description FROM registered_models WHERE workspace = 'default' AND name = ?"
_MODEL_TAGS = "SELECT key, value FROM registered_model_tags WHERE workspace = 'default' AND name = ?"
_ALIASES = "SELECT alias, version FROM registered_model_aliases WHERE workspace = 'default' AND name = ?"
_VERSIONS = """
    SELECT version, creation_time, description, run_id, source, storage_location FROM model_versions
    WHERE workspace = 'default' AND current_stage IS NOT 'Deleted_Internal' AND name = ? ORDER BY version"""
_VERSION_TAGS = "SELECT version, key, value FROM model_version_tags WHERE workspace = 'default' AND name = ?"


@dataclass(frozen=True)
class VersionListing:
    """A version as the registry has it; `location`, where its files are, is empty when the registry does not say it."""

    name: str
    version: int
    created_ms: int
    description: str
    run_id: str
    model_id: str
    location: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """The version's address, such as models:/paint-by-example/3."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class ModelListing:
    """A registered model; `versions` are in ascending order."""

    name: str
    description: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    versions: tuple[VersionListing, ...]

    @property
    def champion(self) -> int | None:
        """The version that has the alias champion, or None."""
        return self.aliases.get(CHAMPION)

    def aliases_of(self, version: int) -> tuple[str, ...]:
        """Return the aliases of a version in alphabetical order."""
        return tuple(sorted(alias for alias, number in self.aliases.items() if number == version))

    def version(self, version: int | str) -> VersionListing:
        """Return a version by its number or by an alias; raises NoModelError naming what there is."""
        number = self.aliases.get(str(version), version)
        found = next((each for each in self.versions if str(each.version) == str(number)), None)
        if found is None:
            numbers = ", ".join(str(each.version) for each in self.versions) or "none"
            aliases = ", ".join(sorted(self.aliases)) or "none"
            what = f"version {version}" if str(version).isdecimal() else f"version or alias {version}"
            raise NoModelError(f"{self.name} has no {what}; its versions are {numbers}, its aliases {aliases}")
        return found


def read_listing(name: str, *, tracking_uri: str, direct: bool = True) -> ModelListing:
    """Return a registered model's versions, tags and aliases.

    Without `direct`, MLflow is asked in any case. Raises NoModelError when the registry does not have the model, and
    UnavailableError when the server does not answer.
    """
    if not name or "/" in name or "@" in name:
        raise UserError(f"{name!r} is no name of a registered model")
    read = _read_database if direct else _ask_mlflow
    return read(name, tracking_uri) or _ask_mlflow(name, tracking_uri)


def _read_database(name: str, tracking_uri: str) -> ModelListing | None:
    """Return the model from a local SQLite registry, or None when only MLflow can answer."""

    def rows(query: str) -> list[tuple[Any, ...]]:
        return database_rows(tracking_uri, query, (name,)) or []

    model = rows(_MODEL)
    if not model:
        return None
    tags: dict[int, dict[str, str]] = {}
    for version, key, value in rows(_VERSION_TAGS):
        tags.setdefault(version, {})[key] = value
    versions = tuple(_listing(name, tags.get(row[0], {}), *row) for row in rows(_VERSIONS))
    aliases = {alias: int(version) for alias, version in rows(_ALIASES)}
    return ModelListing(name, model[0][0] or "", dict(rows(_MODEL_TAGS)), aliases, versions)


def _listing(
    name: str, tags: Mapping[str, str], version: int | str, created_ms: int, *rest: str | None
) -> VersionListing:
    description, run_id, source, location = (text or "" for text in rest)
    model_id = source.removeprefix("models:/") if source.startswith("models:/m-") else ""
    return VersionListing(name, int(version), int(created_ms), description, run_id, model_id, location, tags)


def _ask_mlflow(name: str, tracking_uri: str) -> ModelListing:
    with outages_reported(tracking_uri):
        import mlflow

        return listing_of(mlflow.MlflowClient(tracking_uri), name)


def listing_of(client: "MlflowClient", name: str) -> ModelListing:
    """Return the model as MLflow has it; raises NoModelError when it has not."""
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if not says_missing(error):
            raise
        raise NoModelError(f"the registry has no model {name}; run dvc repro register, or make demo") from None
    found = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda each: int(each.version))
    versions = tuple(
        _listing(
            name, dict(each.tags), each.version, each.creation_timestamp, each.description, each.run_id, each.source, ""
        )
        for each in found
    )
    aliases = {alias: int(version) for alias, version in model.aliases.items()}
    return ModelListing(name, model.description or "", dict(model.tags), aliases, versions)

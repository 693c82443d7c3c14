"""What a person does with registered models: list, show and compare versions, promote one, roll back, describe.

Only aliases move: versions are never changed or deleted here. Reading from a local SQLite registry takes milliseconds.
`version` is a number or an alias. Every function raises NoModelError for a model or version that does not exist, and
UnavailableError when the server does not answer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from pbe.errors import UserError
from pbe.serving.registry.champions import champion_history, make_champion, previous_champion
from pbe.serving.registry.descriptions import (
    MAX_TEXT_LENGTH,
    SCORES_TAG,
    describe_model,
    describe_version,
    scores_line,
    written_text,
)
from pbe.serving.registry.listings import ModelListing, VersionListing, listing_of, read_listing
from pbe.serving.registry.registered_models import MissingFilesError, files_are_missing, local_folder, stored_folder
from pbe.serving.registry.tracking_servers import outages_reported, store_errors_reported
from pbe.serving.registry.version_files import has_files
from pbe.serving.registry.version_records import (
    DATA_TAG,
    EVALUATIONS_TAG,
    PROMOTION_TAG,
    REASON_TAG,
    Origin,
    VersionRecord,
    read_record,
    record_from_tags,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pbe.serving.registry.comparisons import Difference

T = TypeVar("T")

MAX_REASON_LENGTH = 500


@dataclass(frozen=True)
class VersionSummary:
    """A row of the list of versions."""

    name: str
    version: int
    aliases: tuple[str, ...]
    created: str  # ISO 8601, UTC
    scores: str  # the headline scores with their intervals
    gate: str  # the reason of the gate's last decision
    promotion: str  # why a person made it champion, or which rollback did
    git_commit: str
    data: str  # DVC's hash of the curated boxes
    licence: str
    text: str  # that a person wrote


@dataclass(frozen=True)
class VersionDetails:
    """Everything that is known of a version."""

    summary: VersionSummary
    files_exist: bool
    location: str  # of its files
    run_id: str  # the MLflow run that trained it
    evaluations: tuple[str, ...]  # keys, the newest last
    record: VersionRecord


@dataclass(frozen=True)
class VersionComparison:
    """Two versions, and each metric of the first minus that of the second; `note` says why there are none."""

    name: str
    first: VersionSummary
    second: VersionSummary
    differences: "tuple[Difference, ...]"
    note: str


@dataclass(frozen=True)
class ModelHistory:
    """The versions that were champion, in the order of time; the present one is last."""

    name: str
    champions: tuple[int, ...]


@dataclass(frozen=True)
class Moved:
    """The alias champion has moved; `previous` is None when there was no champion."""

    name: str
    version: int
    previous: int | None
    reason: str


def list_versions(name: str, *, tracking_uri: str, direct: bool = True) -> list[VersionSummary]:
    """Return a row for each version of a registered model, the newest first."""
    listing = read_listing(name, tracking_uri=tracking_uri, direct=direct)
    return [_summary(listing, version) for version in reversed(listing.versions)]


def list_champions(name: str, *, tracking_uri: str, direct: bool = True) -> ModelHistory:
    """Return which versions were champion; a rollback returns to the last but one."""
    return ModelHistory(name, champion_history(read_listing(name, tracking_uri=tracking_uri, direct=direct)))


def show_version(name: str, version: int | str, *, tracking_uri: str, direct: bool = True) -> VersionDetails:
    """Return everything that is known of a version: scores of every method, the gate's comparisons, hashes of data."""
    listing = read_listing(name, tracking_uri=tracking_uri, direct=direct)
    found = listing.version(version)
    folder = stored_folder(found.uri, tracking_uri)
    with _reading_files(found, tracking_uri):
        exist, record = has_files(found, tracking_uri), read_record(found, tracking_uri)
    return VersionDetails(
        summary=_summary(listing, found),
        files_exist=exist,
        location=str(folder or local_folder(found.location) or found.location),
        run_id=found.run_id,
        evaluations=tuple(found.tags.get(EVALUATIONS_TAG, "").split()),
        record=record,
    )


def compare_versions(
    name: str, first: int | str, second: int | str, *, tracking_uri: str, direct: bool = True
) -> VersionComparison:
    """Return every metric of the first version minus that of the second, with paired intervals.

    Without an evaluation in the same way there are no differences, and a note that says why.
    """
    from pbe.serving.registry.version_comparisons import compare  # needs polars, which takes longer than the rest

    listing = read_listing(name, tracking_uri=tracking_uri, direct=direct)
    one, other = listing.version(first), listing.version(second)
    if one.version == other.version:
        raise UserError(f"{name}: {first} and {second} are both version {one.version}; name two versions")
    with _reading_files(one, tracking_uri), _reading_files(other, tracking_uri):
        differences, note = compare(one, other, tracking_uri)
    return VersionComparison(name, _summary(listing, one), _summary(listing, other), tuple(differences), note)


def promote(name: str, version: int | str, reason: str, *, tracking_uri: str) -> Moved:
    """Make a version champion, whatever the gate says of it, and keep the reason in its tag `promotion`.

    Raises UserError without a reason and for the champion itself, and MissingFilesError when its files are gone.
    """
    return _changing(
        tracking_uri, lambda client: _move(client, listing_of(client, name), version, reason, tracking_uri)
    )


def rollback(name: str, reason: str = "", *, tracking_uri: str) -> Moved:
    """Make the champion before the present one champion again; a second rollback returns to the present one.

    Raises UserError when there was no champion before, and what `promote` raises.
    """

    def move_back(client: "MlflowClient") -> Moved:
        listing = listing_of(client, name)
        previous = previous_champion(listing)
        if previous is None:
            present = "no champion" if listing.champion is None else f"no champion before version {listing.champion}"
            raise UserError(f"{name} has had {present}; to choose a version: pbe models promote VERSION")
        why = f"Rollback from version {listing.champion}" + (f": {reason}" if reason else "")
        return _move(client, listing, previous, why, tracking_uri)

    return _changing(tracking_uri, move_back)


def describe(name: str, text: str, version: int | str | None = None, *, tracking_uri: str) -> str:
    """Set what a person says of a version, above its generated description, or of the registered model.

    Returns the whole description. Raises UserError for a text that is too long.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise UserError(f"the description has {len(text)} characters; {MAX_TEXT_LENGTH} are kept, so shorten it")

    def change(client: "MlflowClient") -> str:
        listing = listing_of(client, name)
        if version is None:
            describe_model(client, name, text)
            return str(client.get_registered_model(name).description)
        found = listing.version(version)
        record = read_record(found, tracking_uri)
        describe_version(client, found, record, reason=found.tags.get(REASON_TAG, ""), text=text)
        return str(client.get_model_version(name, str(found.version)).description)

    return _changing(tracking_uri, change)


def _move(client: "MlflowClient", listing: ModelListing, version: int | str, reason: str, tracking_uri: str) -> Moved:
    found = listing.version(version)
    reason = " ".join(reason.split())
    if not reason or len(reason) > MAX_REASON_LENGTH:
        raise UserError(f"give a reason of 1 to {MAX_REASON_LENGTH} characters for the new champion")
    if found.version == listing.champion:
        raise UserError(f"{listing.name}: version {found.version} is the champion already")
    if not has_files(found, tracking_uri):
        raise MissingFilesError(
            f"{listing.name}: the files of version {found.version} are gone; promote another version, or register the "
            "model again: dvc repro --force --single-item register"
        )
    client.set_model_version_tag(listing.name, str(found.version), PROMOTION_TAG, reason)
    make_champion(client, listing, found.version)
    return Moved(listing.name, found.version, listing.champion, reason)


@contextmanager
def _reading_files(version: VersionListing, tracking_uri: str) -> Iterator[None]:
    """Report outages while files are read that are not on this disk, and need MLflow."""
    if stored_folder(version.uri, tracking_uri) is not None or files_are_missing(version.uri, tracking_uri):
        yield
        return
    with outages_reported(tracking_uri), store_errors_reported(version.uri):
        yield


def _changing(tracking_uri: str, change: Callable[["MlflowClient"], T]) -> T:
    with outages_reported(tracking_uri), store_errors_reported(tracking_uri):
        import mlflow

        mlflow.set_tracking_uri(tracking_uri)
        return change(mlflow.MlflowClient())


def _summary(listing: ModelListing, version: VersionListing) -> VersionSummary:
    tags, known = version.tags, record_from_tags(version.tags)
    created = datetime.fromtimestamp(version.created_ms / 1000, UTC).isoformat(timespec="seconds")
    return VersionSummary(
        name=version.name,
        version=version.version,
        aliases=listing.aliases_of(version.version),
        created=created,
        scores=tags.get(SCORES_TAG) or scores_line(known.metrics),
        gate=tags.get(REASON_TAG, ""),
        promotion=tags.get(PROMOTION_TAG, ""),
        git_commit=known.git_commit,
        data=tags.get(DATA_TAG) or Origin(data=known.data).tags.get(DATA_TAG, ""),
        licence=known.licence,
        text=written_text(version.description),
    )

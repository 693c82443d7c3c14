"""version.json: what is known of a registered version, in one artifact; its tags hold what people read.

    metrics, evaluation, picture    the newest evaluation: metrics.json, its key, and the path of its gallery
    gate, outcome, decided_on       the comparisons of the gate's last decision, the decision, and the evaluation's key
    git_commit, data, licence       where the model comes from: the code, DVC's hash of every output, and its licence

Versions that were registered before this file existed say the same in their tags.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pbe.layout import CURATED, RAW
from pbe.runtime.files import read_json, write_json
from pbe.serving.registry.version_files import Version, fetched, store

if TYPE_CHECKING:
    from mlflow import MlflowClient

RECORD = "version.json"
METRICS_TAG, TABLE_TAG, DATA_TAGS = "metrics", "gate_table", "dvc."  # of versions without a record
COMMIT_TAG, DATA_TAG, LICENCE_TAG = "git_commit", "data", "licence"
REASON_TAG = "gate"  # the reason of the gate's last decision
PROMOTION_TAG = "promotion"  # why a person made a version champion, or which rollback did
EVALUATIONS_TAG = "evaluations"  # keys, the newest last
DATA_PATHS = tuple(map(str, (CURATED, RAW)))


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: the git commit, DVC's hash of every output by its path, and the model's licence."""

    git_commit: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""

    @property
    def tags(self) -> dict[str, str]:
        """What people read of it: of the data, the hash of the curated boxes, which stands for all before them."""
        path = next((path for path in DATA_PATHS if path in self.data), "")
        data = f"{path} {self.data[path]}" if path else ""
        tags = {COMMIT_TAG: self.git_commit, DATA_TAG: data, LICENCE_TAG: self.licence}
        return {name: value for name, value in tags.items() if value}


@dataclass(frozen=True)
class VersionRecord:
    """The content of version.json."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    evaluation: str = ""
    picture: str = ""  # relative to the version's files
    gate: tuple[Mapping[str, Any], ...] = ()
    outcome: str = ""
    decided_on: str = ""
    git_commit: str = ""
    data: Mapping[str, str] = field(default_factory=dict)  # DVC's hashes by path
    licence: str = ""


def read_record(version: Version, tracking_uri: str) -> VersionRecord:
    """Return a version's record, or what its tags say of it when it has none."""
    return _stored_record(version, tracking_uri) or record_from_tags(version.tags)


def update_record(client: "MlflowClient", version: Version, tracking_uri: str, **changes: Any) -> VersionRecord:
    """Store a version's record with these changes, and return it; tags that say the same are removed."""
    stored = _stored_record(version, tracking_uri)
    record = replace(stored or record_from_tags(version.tags), **changes)
    if record != stored:
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / RECORD, asdict(record))
            store(client, version, Path(folder) / RECORD, RECORD, tracking_uri)
    for tag in version.tags:
        if tag in (METRICS_TAG, TABLE_TAG) or tag.startswith(DATA_TAGS):
            client.delete_model_version_tag(version.name, str(version.version), tag)
    return record


def _stored_record(version: Version, tracking_uri: str) -> VersionRecord | None:
    with fetched(version, RECORD, tracking_uri) as path:
        if path is None:
            return None
        content = read_json(path)
    known = {each.name for each in fields(VersionRecord)}
    return VersionRecord(**{name: _as_tuple(value) for name, value in content.items() if name in known})


def record_from_tags(tags: Mapping[str, str]) -> VersionRecord:
    """Return what the tags of a version say: all there is of a version without a record."""
    data = {name.removeprefix(DATA_TAGS): value for name, value in tags.items() if name.startswith(DATA_TAGS)}
    return VersionRecord(
        metrics=json.loads(tags.get(METRICS_TAG, "{}")),
        evaluation=(tags.get(EVALUATIONS_TAG, "").split() or [""])[-1],
        gate=tuple(json.loads(tags.get(TABLE_TAG, "[]"))),
        git_commit=tags.get(COMMIT_TAG, ""),
        data=data,
        licence=tags.get(LICENCE_TAG, ""),
    )


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

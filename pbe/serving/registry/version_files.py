"""The files of a registered version: artifacts of its model, on this disk or in any store that MLflow uses."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pbe.runtime.files import atomic_file, atomic_folder
from pbe.serving.registry.registered_models import files_are_missing, stored_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Version(Protocol):
    """MLflow's ModelVersion, or a VersionListing."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int | str: ...
    @property
    def model_id(self) -> str | None: ...
    @property
    def description(self) -> str | None: ...
    @property
    def tags(self) -> Mapping[str, str]: ...


def uri_of(version: Version) -> str:
    """Return a version's address, such as models:/paint-by-example/3."""
    return f"models:/{version.name}/{version.version}"


def has_files(version: Version, tracking_uri: str) -> bool:
    """Return whether the files of a version's model are where the registry says."""
    if files_are_missing(uri_of(version), tracking_uri):
        return False
    return stored_folder(uri_of(version), tracking_uri) is not None or "MLmodel" in _names(version, tracking_uri)


@contextmanager
def fetched(version: Version, name: str, tracking_uri: str) -> Iterator[Path | None]:
    """Yield a file or folder of a version: in place when it is on this disk, else a copy that is removed afterwards.

    Yields None when the version has no such file, or its files are gone.
    """
    folder = stored_folder(uri_of(version), tracking_uri)
    if folder is not None:
        yield folder / name if (folder / name).exists() else None
    elif files_are_missing(uri_of(version), tracking_uri) or name.split("/")[0] not in _names(version, tracking_uri):
        yield None
    else:
        import mlflow

        mlflow.set_tracking_uri(tracking_uri)
        with tempfile.TemporaryDirectory() as copy:
            uri = f"{uri_of(version)}/{name}"
            yield Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=copy))


def store(client: "MlflowClient", version: Version, path: Path, name: str, tracking_uri: str) -> None:
    """Store a file or folder as `name` among the files of a version, in place of what it had there."""
    folder = stored_folder(uri_of(version), tracking_uri)
    if folder is None and path.is_dir():
        client.log_model_artifacts(str(version.model_id), str(path), name)
    elif folder is None:
        client.log_model_artifact(str(version.model_id), str(path))
    elif path.is_dir():  # MLflow would write to where a moved project was
        with atomic_folder(folder / name) as part:
            shutil.copytree(path, part, dirs_exist_ok=True)
    else:
        with atomic_file(folder / name) as part:
            shutil.copyfile(path, part)


def _names(version: Version, tracking_uri: str) -> set[str]:
    """Return the names of the files and folders at the top of a version that is not on this disk."""
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    entries = mlflow.artifacts.list_artifacts(artifact_uri=uri_of(version))
    return {str(entry.path) for entry in entries}

"""The model that a command uses: the one that `--model` names, else the project's champion, else the bundled painter.

A project is the working directory, a folder above it, or the checkout of this module. An installed wheel carries the
bundled painter as well. As the command line does, this module reads the environment: a registry is at
MLFLOW_TRACKING_URI, or it is the project's own.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pbe import layout
from pbe.errors import UnavailableError, UserError

CHAMPION = "models:/paint-by-example@champion"
PHOTO = "photo"  # names the bundled painter of photographs
_PACKAGED_PAINTER = "photo-painter"  # beside the packages of pbe.serving; in a checkout a link to layout.PHOTO_PAINTER


@dataclass(frozen=True)
class ModelChoice:
    """A model's folder and name; a registered model has a version as well."""

    folder: Path
    name: str
    version: str | None = None


def default_model() -> tuple[ModelChoice, str]:
    """Return the champion, or the bundled painter where there is no champion, and a text that says which one it is.

    In a clone that has pulled a project's outputs and not its registry, the champion is models/pbe, if
    reports/registered.json says so.
    Raises UserError when there is neither, the champion's files are gone or the registry cannot be read, and
    UnavailableError when it does not answer.
    """
    tracking_uri = registry_address()
    if tracking_uri is not None:
        from pbe.serving.registry.registered_models import NoModelError

        try:
            return _registered(CHAMPION, tracking_uri), f"the champion ({CHAMPION})"
        except NoModelError:
            pass
    pulled = _pulled_champion(tracking_uri)
    if pulled is not None:
        return pulled, f"the champion that was pulled ({pulled.folder}): it is of another registry"
    bundled = _bundled_painter()
    if bundled is None:
        raise UserError(
            f"no model: there is no registered champion and no {layout.PHOTO_PAINTER}; give --model a folder, "
            "install the package again, or train a model with `make demo`"
        )
    return ModelChoice(
        bundled, PHOTO
    ), f"the bundled painter of photographs ({bundled}): there is no registered champion"


def named_model(model: str) -> ModelChoice:
    """Return the model of a name: the bundled painter for `photo`, a folder, or a registered model.

    Raises UserError when there is no such model, and UnavailableError when the registry does not answer.
    """
    if model == PHOTO:
        return ModelChoice(_required_painter(), PHOTO)
    if not model.startswith("models:/"):
        if not Path(model).is_dir():
            raise UserError(f"--model {model}: no such folder, and not a registered model ({CHAMPION}) or {PHOTO}")
        return ModelChoice(Path(model), model)
    tracking_uri = registry_address()
    if tracking_uri is None:
        raise UserError(f"--model {model}: this project has no registry yet; run `make demo` or name a folder")
    from pbe.serving.registry.registered_models import MissingFilesError

    try:
        return _registered(model, tracking_uri)
    except (UnavailableError, MissingFilesError):
        raise
    except UserError as error:
        raise UserError(f"--model: {error}; run `make demo` to train and register a model") from None


def registry_address() -> str | None:
    """Return the address of the registry: MLFLOW_TRACKING_URI, or the project's database; None without one."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _project_registry()


def reads_database_directly() -> bool:
    """Return whether the registry is the tracking database itself, and not another one that the environment names."""
    return not any(os.environ.get(name) for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_WORKSPACE"))


def keep_mlflow_quiet() -> None:
    """Turn off MLflow's telemetry and progress bars, unless the environment asks for them."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def _registered(model: str, tracking_uri: str) -> ModelChoice:
    keep_mlflow_quiet()
    from pbe.serving.registry.registered_models import find_version, painter_folder

    direct = reads_database_directly()
    folder = painter_folder(model, tracking_uri=tracking_uri, direct=direct, cache=model_cache())
    version = find_version(model, tracking_uri=tracking_uri, direct=direct)
    return ModelChoice(folder, version.name, str(version.version)) if version else ModelChoice(folder, model)


def model_cache() -> Path:
    """Return where the models of a server are kept, one folder for each version."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paint-by-example" / "models"


def _project_registry() -> str | None:
    """Return the address of the first mlflow.db of a project."""
    databases = (project / layout.MLFLOW_DATABASE for project in _projects())
    return next((f"sqlite:///{database}" for database in databases if database.is_file()), None)


def _pulled_champion(tracking_uri: str | None) -> ModelChoice | None:
    """Return models/pbe of the first project whose reports/registered.json names it champion of another registry."""
    from pbe.method.backbone import INDEX
    from pbe.runtime.files import read_json
    from pbe.serving.registry.registered_models import find_version

    for project in _projects():
        folder, registered = project / layout.MODEL, project / layout.REGISTERED
        if (folder / INDEX).is_file() and registered.is_file():
            found = read_json(registered)
            name, version = str(found.get("name")), str(found.get("version"))
            here = tracking_uri and find_version(f"models:/{name}/{version}", tracking_uri=tracking_uri)
            if found.get("promoted") and not here:
                return ModelChoice(folder, name, version)
    return None


def _bundled_painter() -> Path | None:
    from pbe.method.backbone import INDEX

    packaged = Path(__file__).parents[1] / _PACKAGED_PAINTER
    folders = (*(project / layout.PHOTO_PAINTER for project in _projects()), packaged)
    return next((folder for folder in folders if (folder / INDEX).is_file()), None)


def _required_painter() -> Path:
    folder = _bundled_painter()
    if folder is None:
        raise UserError(
            f"--model {PHOTO}: there is no {layout.PHOTO_PAINTER} in {Path.cwd()} or above it, and the installed "
            "package lacks it; install the package again, or give --model a folder"
        )
    return folder


def _projects() -> Iterator[Path]:
    working_directory = Path.cwd()
    yield from (working_directory, *working_directory.parents, Path(__file__).parents[3])

"""The model registry in MLflow: every evaluated model becomes a version, and the gate moves the alias `champion`.

A version is found again by the hash of its weights and metrics, so that registering the same model twice, or going on
after a kill at any point, leaves one version.
"""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from pbe.errors import UserError
from pbe.runtime.files import atomic_file
from pbe.serving.gate import Metrics, decide
from pbe.settings import Register

ARTIFACT = "painter"
CHALLENGER, CHAMPION = "challenger", "champion"
EXPERIMENT = "paint-by-example"
HASH_TAG, METRICS_TAG, REASON_TAG = "model_hash", "metrics", "gate"
PACKAGES = (
    "diffusers", "mlflow", "numpy", "opencv-python-headless", "pandas", "pillow", "pydantic", "pyyaml", "safetensors",
    "torch", "transformers",
)  # fmt: skip
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("binary", name) for name in ("source", "mask", "exemplar")]),
    outputs=Schema([ColSpec("binary", "image")]),
    params=ParamSchema(
        [ParamSpec("guidance_scale", "double", 5.0), ParamSpec("num_steps", "long", 50), ParamSpec("seed", "long", 0)]
    ),
)


@dataclass(frozen=True)
class Registered:
    """What reports/registered.json says: the version, the alias it carries, and why."""

    name: str
    version: int
    alias: str
    promoted: bool
    reason: str


def register(
    model_folder: Path,
    metrics: Metrics,
    settings: Register,
    *,
    tracking_uri: str,
    experiment: str = EXPERIMENT,
    artifact_location: str | None = None,
    run_id: str | None = None,
    hashes: Mapping[str, str] | None = None,
) -> Registered:
    """Register a trained folder (models/pbe) as the challenger, and as the champion if the gate lets it.

    `metrics` is the content of reports/metrics.json; `hashes` (git commit, data, code) become tags of the version. The
    model is logged to the run `run_id` where that exists, else to a run of its own in `experiment`, which is made with
    `artifact_location` if it is new. The same weights and metrics again give the same version. Points this process's
    MLflow at `tracking_uri`. Raises UserError when the folder holds no model.
    """
    model_hash = hash_model(model_folder, metrics)
    mlflow.set_tracking_uri(tracking_uri)
    client = mlflow.MlflowClient()
    found = _find(client, settings.name, model_hash)
    if found is None:
        with _run(client, experiment, artifact_location, run_id) as run:
            model_id = _log(model_folder, metrics)
        tags = {**(hashes or {}), HASH_TAG: model_hash, METRICS_TAG: json.dumps(metrics, sort_keys=True)}
        found = _create(client, settings.name, model_id, run, tags)
    return _promote(client, settings, int(found.version), metrics)


def write_registered(registered: Registered, path: Path) -> None:
    """Write reports/registered.json whole or not at all."""
    with atomic_file(path) as part:
        part.write_text(json.dumps(dataclasses.asdict(registered), indent=2) + "\n")


def local_tracking_uri(project: Path) -> str:
    """The registry of a project without a server: mlflow.db in its root."""
    return f"sqlite:///{(project / 'mlflow.db').resolve()}"


def champion_version(name: str, *, tracking_uri: str) -> int | None:
    """The version that carries the alias `champion`; None where there is none."""
    mlflow.set_tracking_uri(tracking_uri)
    champion = _champion(mlflow.MlflowClient(), name)
    return None if champion is None else int(champion.version)


def painter_folder(model_uri: str, *, tracking_uri: str) -> Path:
    """The local folder of a registered model's painter: in place where its artifacts are on this disk, else downloaded.

    model_uri is `models:/name@alias` or `models:/name/version`. Raises UserError when there is no such model.
    """
    mlflow.set_tracking_uri(tracking_uri)
    try:
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri))
    except (MlflowException, OSError) as error:
        raise UserError(f"no model {model_uri} in {tracking_uri}: {' '.join(str(error).split())}") from None
    artifacts = yaml.safe_load((root / "MLmodel").read_text())["flavors"]["python_function"].get("artifacts") or {}
    if ARTIFACT not in artifacts:
        raise UserError(f"{model_uri} is not a model of this project: it has no artifact '{ARTIFACT}'")
    return root / str(artifacts[ARTIFACT]["path"])


def hash_model(model_folder: Path, metrics: Metrics) -> str:
    """Hash every file of the folder, by name and content, together with the metrics; 64 hex digits."""
    files = sorted(path for path in model_folder.rglob("*") if path.is_file())
    if not files:
        raise UserError(f"{model_folder}: holds no model; train one first (make demo)")
    digest = hashlib.sha256(json.dumps(metrics, sort_keys=True).encode())
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"\n{path.relative_to(model_folder).as_posix()} {content}".encode())
    return digest.hexdigest()


def pip_requirements() -> list[str]:
    """What the served model needs, pinned to what is installed here (a local build's `+cpu` left out)."""
    pins = []
    for name in PACKAGES:
        try:
            pins.append(f"{name}=={version(name).split('+')[0]}")
        except PackageNotFoundError:
            raise UserError(f"the model needs {name}, which is not installed here: run make install") from None
    return pins


def _run(
    client: mlflow.MlflowClient, experiment: str, artifact_location: str | None, run_id: str | None
) -> mlflow.ActiveRun:
    """The training's run again where it is known here, else a new one."""
    if run_id is not None:
        try:
            client.get_run(run_id)
            return mlflow.start_run(run_id=run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    known = client.get_experiment_by_name(experiment)
    experiment_id = known.experiment_id if known else client.create_experiment(experiment, artifact_location)
    return mlflow.start_run(experiment_id=experiment_id, run_name="register")


def _log(model_folder: Path, metrics: Metrics) -> str:
    """Log the folder as a pyfunc model from code, with the bench's numbers tied to it; its model id."""
    with warnings.catch_warnings():  # the signature says it all; an example would be painted to check it
        warnings.filterwarnings("ignore", message=".*An input example was not provided", category=UserWarning)
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={ARTIFACT: str(model_folder)},
            code_paths=[str(Path(__file__).parents[1])],
            signature=SIGNATURE,
            pip_requirements=pip_requirements(),
        )
    mlflow.log_metrics(_flat(metrics), model_id=info.model_id)
    return str(info.model_id)


def _flat(metrics: Metrics) -> dict[str, float]:
    methods = metrics.get("methods") or {}
    rows = ((f"{method}.{name}", value) for method, row in methods.items() for name, value in row.items())
    return {name: float(value) for name, value in rows if isinstance(value, int | float)}


def _create(
    client: mlflow.MlflowClient, name: str, model_id: str, run: mlflow.ActiveRun, tags: dict[str, str]
) -> ModelVersion:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{model_id}"
    return client.create_model_version(name, source, run_id=run.info.run_id, tags=tags, model_id=model_id)


def _find(client: mlflow.MlflowClient, name: str, model_hash: str) -> ModelVersion | None:
    """The version made from the same weights and metrics; the oldest, should there be several."""
    found = client.search_model_versions(f"name = '{name}' and tags.{HASH_TAG} = '{model_hash}'")
    return min(found, key=lambda each: int(each.version), default=None)


def _promote(client: mlflow.MlflowClient, settings: Register, number: int, metrics: Metrics) -> Registered:
    """Ask the gate and set the aliases; the reason is written first, so that a champion always says why it is one."""
    champion = _champion(client, settings.name)
    client.set_registered_model_alias(settings.name, CHALLENGER, str(number))
    if champion is not None and int(champion.version) == number:
        reason = champion.tags.get(REASON_TAG, "")
        return Registered(
            settings.name, number, CHAMPION, True, reason if reason.startswith("Promoted") else "Made champion by hand."
        )
    decision = decide(metrics, None if champion is None else _metrics_of(champion), settings)
    alias = CHAMPION if decision.promoted else CHALLENGER
    client.set_model_version_tag(settings.name, str(number), REASON_TAG, decision.reason)
    client.set_registered_model_alias(settings.name, alias, str(number))
    return Registered(settings.name, number, alias, decision.promoted, decision.reason)


def _champion(client: mlflow.MlflowClient, name: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _metrics_of(champion: ModelVersion) -> Metrics:
    """The metrics a version was registered with; none for one that was registered by other means."""
    content: dict[str, Any] = json.loads(champion.tags.get(METRICS_TAG, "{}"))
    return content

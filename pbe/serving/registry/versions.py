"""The model registry in MLflow: every evaluated model becomes a version, and the gate moves the alias `champion`.

A version is a model: it carries the digest of the model's files as a tag. Registering the same model again, evaluated
in the same way or in another, or resuming after an interruption at any point, finds that version.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from pbe.errors import UserError
from pbe.layout import EXPERIMENT
from pbe.runtime.files import digest_folder, write_text
from pbe.serving.registry.champions import champion_history, make_champion
from pbe.serving.registry.comparisons import Difference
from pbe.serving.registry.descriptions import describe_model, describe_version
from pbe.serving.registry.evaluations import Evaluation
from pbe.serving.registry.gate import Champion, check_metrics, decide
from pbe.serving.registry.listings import CHALLENGER, CHAMPION, ModelListing, VersionListing, listing_of
from pbe.serving.registry.registered_models import ARTIFACT, CONFIG, files_are_missing, find_version, local_folder
from pbe.serving.registry.tracking_servers import outages_reported, store_errors_reported
from pbe.serving.registry.version_evaluations import attach, evaluation_of
from pbe.serving.registry.version_records import METRICS_TAG, PROMOTION_TAG, REASON_TAG, Origin, update_record
from pbe.serving.registry.version_records import read_record as read_version_record
from pbe.settings import Register

WEIGHTS_TAG = "weights"
OLD_HASH_TAG = "model_hash"  # of weights and metrics together, in place of WEIGHTS_TAG, in version 0.1 of this project
MADE_CHAMPION_OUTSIDE = "Made champion in the registry, not by the gate."
ROLLED_BACK = (
    "Not promoted: version {number} was champion before, and version {champion} has replaced it since. To promote it "
    "again: pbe models promote {number}"
)
PACKAGES = (
    "diffusers", "mlflow", "numpy", "opencv-python-headless", "pandas", "pillow", "pydantic", "pyyaml", "safetensors",
    "torch", "transformers",
)  # fmt: skip
SIGNATURE = ModelSignature(
    # Strings reach the model unchanged in every content type; of binary columns MLflow decodes some, and some wrongly.
    inputs=Schema([ColSpec("string", name) for name in ("source", "mask", "exemplar")]),
    outputs=Schema([ColSpec("binary", "image"), ColSpec("string", "notes")]),
    params=ParamSchema(
        [
            ParamSpec("guidance_scale", "double", 5.0),
            ParamSpec("num_steps", "long", 16),
            ParamSpec("seed", "long", 0),
            ParamSpec("max_magnification", "double", 2.0),
            ParamSpec("invert_mask", "boolean", False),
            ParamSpec("sampler", "string", "unipc"),
            ParamSpec("context_px", "long", -1),
        ]
    ),
)


@dataclass(frozen=True)
class Registered:
    """reports/registered.json: the version, its alias, and the gate's reason, outcome and comparisons.

    An experiment that registers nothing has no version.
    """

    name: str
    version: int | None
    alias: str
    promoted: bool
    reason: str
    outcome: str
    table: tuple[Difference, ...] = ()


def register(
    model_folder: Path,
    evaluation: Evaluation,
    settings: Register,
    *,
    seed: int,
    tracking_uri: str,
    report_files: Sequence[Path] = (),
    experiment: str = EXPERIMENT,
    artifact_location: str | None = None,
    run_id: str | None = None,
    origin: Origin | None = None,
) -> Registered:
    """Register a trained model as the challenger, and as the champion when the gate accepts it.

    `model_folder` is models/pbe. The version keeps a record of the evaluation, with `report_files`, and its origin. The
    model is logged to the run `run_id` if the server has it, otherwise to a new run of
    `experiment`, which is created with `artifact_location` if it does not exist. The same weights give the same version
    again. Sets this process's tracking URI. Raises UserError when the folder is empty or a setting names no metric, and
    UnavailableError when the server does not answer.
    """
    check_metrics(settings)
    weights = digest_model(model_folder)
    mlflow.set_tracking_uri(tracking_uri)
    with outages_reported(tracking_uri), store_errors_reported(settings.name):
        client = mlflow.MlflowClient()
        found = _find_version(client, settings.name, weights, tracking_uri)
        if found is None:
            with _training_run(client, experiment, artifact_location, run_id) as run:
                model_id = _log_model(model_folder)
            tags = {WEIGHTS_TAG: weights, **(origin.tags if origin else {})}
            found = _create_version(client, settings.name, model_id, run, tags)
        if WEIGHTS_TAG not in found.tags:  # before the metrics change, which the old digest covers
            client.set_model_version_tag(settings.name, found.version, WEIGHTS_TAG, weights)
        registered = listing_of(client, settings.name).version(int(found.version))  # has the model's id
        attach(client, registered, evaluation, report_files, tracking_uri, asdict(origin) if origin else None)
        return _set_aliases(client, settings, int(found.version), evaluation, seed, tracking_uri)


def add_evaluation(
    name: str, number: int, evaluation: Evaluation, *, tracking_uri: str, report_files: Sequence[Path] = ()
) -> None:
    """Store a further evaluation of a registered version, so that the gate can compare other models with it."""
    mlflow.set_tracking_uri(tracking_uri)
    with outages_reported(tracking_uri), store_errors_reported(name):
        client = mlflow.MlflowClient()
        version = listing_of(client, name).version(number)
        record = attach(client, version, evaluation, report_files, tracking_uri)
        describe_version(client, version, record, reason=version.tags.get(REASON_TAG, ""))


def write_registered(registered: Registered, path: Path) -> None:
    """Write reports/registered.json, complete or not at all."""
    write_text(path, json.dumps(asdict(registered), indent=2) + "\n")


def champion_version(name: str, *, tracking_uri: str) -> int | None:
    """Return the version that has the alias `champion`, or None when no version has it."""
    champion = find_version(f"models:/{name}@{CHAMPION}", tracking_uri=tracking_uri)
    return None if champion is None else champion.version


def digest_model(model_folder: Path) -> str:
    """Return a digest, 64 hex digits, of a model's files; raises UserError when the folder holds none."""
    if not any(path.is_file() for path in model_folder.rglob("*")):
        raise UserError(f"{model_folder}: holds no model; train one first (make demo)")
    return digest_folder(model_folder)


def pip_requirements() -> list[str]:
    """Return the packages that the served model needs, pinned to the installed versions without a local `+cpu`.

    Raises UserError naming the first package that is not installed.
    """
    pins = []
    for name in PACKAGES:
        try:
            pins.append(f"{name}=={version(name).split('+')[0]}")
        except PackageNotFoundError:
            raise UserError(f"the served model needs the package {name}; run: make install") from None
    return pins


def _training_run(
    client: mlflow.MlflowClient, experiment: str, artifact_location: str | None, run_id: str | None
) -> mlflow.ActiveRun:
    """Reopen the run that trained the model, or start a new one when the server does not have it."""
    if run_id is not None:
        try:
            if not _is_gone(client.get_run(run_id).info.artifact_uri):
                return mlflow.start_run(run_id=run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    known = client.get_experiment_by_name(experiment)
    if known and artifact_location and _is_gone(known.artifact_location):
        experiment = f"{experiment} in {artifact_location}"
        known = client.get_experiment_by_name(experiment)
    experiment_id = known.experiment_id if known else client.create_experiment(experiment, artifact_location)
    return mlflow.start_run(experiment_id=experiment_id, run_name="register")


def _is_gone(artifact_location: str) -> bool:
    """Return whether artifacts would be written to a project that has been moved; MLflow stores absolute paths."""
    folder = local_folder(artifact_location)
    return folder is not None and "mlruns" in folder.parts and not _project_of(folder).is_dir()


def _project_of(folder: Path) -> Path:
    return Path(*folder.parts[: folder.parts.index("mlruns")])


def _log_model(model_folder: Path) -> str:
    """Log the folder, this package and pyfunc.py as a model; return the model's id."""
    with warnings.catch_warnings():  # the signature is given; MLflow would paint an input example to check it
        warnings.filterwarnings("ignore", message=".*An input example was not provided", category=UserWarning)
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).parents[1] / "pyfunc.py"),
            artifacts={ARTIFACT: str(model_folder)},
            model_config=CONFIG,
            code_paths=[str(Path(__file__).parents[2])],
            signature=SIGNATURE,
            pip_requirements=pip_requirements(),
        )
    return str(info.model_id)


def _create_version(
    client: mlflow.MlflowClient, name: str, model_id: str, run: mlflow.ActiveRun, tags: dict[str, str]
) -> ModelVersion:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{model_id}"
    return client.create_model_version(name, source, run_id=run.info.run_id, tags=tags, model_id=model_id)


def _find_version(client: mlflow.MlflowClient, name: str, weights: str, tracking_uri: str) -> ModelVersion | None:
    """Return the oldest version of the same weights whose files are still there, or None."""
    found = [each for each in client.search_model_versions(f"name = '{name}'") if _has_weights(each, weights)]
    ordered = sorted(found, key=lambda each: int(each.version))
    uris = {f"models:/{name}/{each.version}": each for each in ordered}
    return next((each for uri, each in uris.items() if not files_are_missing(uri, tracking_uri)), None)


def _has_weights(version: ModelVersion, weights: str) -> bool:
    if WEIGHTS_TAG in version.tags or OLD_HASH_TAG not in version.tags:
        return bool(version.tags.get(WEIGHTS_TAG) == weights)
    old = f"{version.tags.get(METRICS_TAG, '')}\n{weights}"
    return bool(version.tags[OLD_HASH_TAG] == hashlib.sha256(old.encode()).hexdigest())


def _set_aliases(
    client: mlflow.MlflowClient,
    settings: Register,
    number: int,
    evaluation: Evaluation,
    seed: int,
    tracking_uri: str,
) -> Registered:
    """Ask the gate and set the aliases, the reason before the alias: every champion has a reason."""
    client.set_registered_model_alias(settings.name, CHALLENGER, str(number))
    describe_model(client, settings.name)
    listing = listing_of(client, settings.name)
    version = listing.version(number)
    if listing.champion is not None and number in champion_history(listing):
        return _champion_before(client, listing, version, evaluation, tracking_uri)
    opponent = None
    if listing.champion is not None:
        champion = listing.version(listing.champion)
        opponent = Champion(champion.version, evaluation_of(champion, evaluation.key, tracking_uri))
    decision = decide(evaluation, opponent, settings, seed=seed)
    rows = tuple(asdict(row) for row in decision.table)
    decided = {"gate": rows, "outcome": decision.outcome, "decided_on": evaluation.key}
    record = update_record(client, version, tracking_uri, **decided)
    client.set_model_version_tag(settings.name, str(number), REASON_TAG, decision.reason)
    describe_version(client, version, record, reason=decision.reason)
    if decision.promoted:
        make_champion(client, listing, number)
    alias = CHAMPION if decision.promoted else CHALLENGER
    return Registered(
        settings.name, number, alias, decision.promoted, decision.reason, decision.outcome, decision.table
    )


def _champion_before(
    client: mlflow.MlflowClient,
    listing: ModelListing,
    version: VersionListing,
    evaluation: Evaluation,
    tracking_uri: str,
) -> Registered:
    """Return what is said of a version that is or was champion: the gate is not asked again.

    What it decided on the same evaluation is said again, as after an interruption.
    """
    gate = version.tags.get(REASON_TAG, "")
    record = read_version_record(version, tracking_uri)
    describe_version(client, version, record, reason=gate)
    if version.version != listing.champion:
        reason = ROLLED_BACK.format(number=version.version, champion=listing.champion)
        return Registered(listing.name, version.version, CHALLENGER, False, reason, "rolled back")
    make_champion(client, listing, version.version)  # notes a champion that was made elsewhere
    if not gate.startswith("Promoted"):
        reason = version.tags.get(PROMOTION_TAG) or MADE_CHAMPION_OUTSIDE
        return Registered(listing.name, version.version, CHAMPION, True, reason, "champion")
    if record.decided_on != evaluation.key:
        return Registered(listing.name, version.version, CHAMPION, True, gate, "champion")
    table = tuple(Difference(**row) for row in record.gate)
    return Registered(listing.name, version.version, CHAMPION, True, gate, record.outcome, table)

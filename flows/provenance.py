"""What an MLflow run records of its origin: the git commit and DVC's hashes of the data; and where MLflow is."""

import os
import subprocess
from pathlib import Path

import yaml

from pbe import layout


def tracking_uri(folder: Path) -> str:
    """Return MLFLOW_TRACKING_URI, or the address of the project's own mlflow.db."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / layout.MLFLOW_DATABASE).resolve()}"


def provenance_tags(folder: Path) -> dict[str, str]:
    """Return the commit of the checkout and DVC's hash of every output in dvc.lock; what is unknown is left out."""
    commit = git_commit(folder)
    return ({"git_commit": commit} if commit else {}) | data_hashes(folder / "dvc.lock")


def git_commit(folder: Path) -> str | None:
    """Return the checked-out commit, 40 hex digits, with `-dirty` where tracked files differ; None outside git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return described.stdout.strip() or None


def data_hashes(lock: Path) -> dict[str, str]:
    """Return `dvc.<path>` -> hash for every output in a dvc.lock; empty when there is none yet."""
    if not lock.is_file():
        return {}
    stages = yaml.safe_load(lock.read_text())["stages"].values()
    return {f"dvc.{out['path']}": out["md5"] for stage in stages for out in stage.get("outs", ()) if "md5" in out}

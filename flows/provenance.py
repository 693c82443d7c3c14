"""What a run in MLflow says of its origin: the git commit and DVC's hashes of the data; and where MLflow is."""

import hashlib
import os
import subprocess
from pathlib import Path

import yaml


def tracking_uri(folder: Path) -> str:
    """MLflow's address: MLFLOW_TRACKING_URI, else the project's own mlflow.db."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"


def hashes(folder: Path) -> dict[str, str]:
    """The commit of the checkout, and DVC's hash of each output in dvc.lock; what is not known is left out."""
    commit = git_commit(folder)
    return ({"git_commit": commit} if commit else {}) | data_hashes(folder / "dvc.lock")


def git_commit(folder: Path) -> str | None:
    """The checked-out commit, 40 hex digits, with `-dirty` where tracked files differ; None outside git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return described.stdout.strip() or None


def data_hashes(lock: Path) -> dict[str, str]:
    """`dvc.<path>` -> hash for every output in a dvc.lock; empty when there is none yet."""
    if not lock.is_file():
        return {}
    stages = yaml.safe_load(lock.read_text())["stages"].values()
    return {f"dvc.{out['path']}": out["md5"] for stage in stages for out in stage.get("outs", ()) if "md5" in out}


def hash_files(folder: Path) -> str:
    """One hash over the names and contents of every file in a folder, 64 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()

"""Where a model comes from: the git commit, DVC's hashes of the data, and the licence; and where MLflow is."""

import os
import subprocess
from pathlib import Path

import yaml

from pbe import layout
from pbe.settings import Backbone

PROJECT_LICENCE = "apache-2.0"  # also of the bundled backbones
HUB_LICENCES = {
    "CompVis/stable-diffusion-v1-4": "creativeml-openrail-m",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "Fantasy-Studio/Paint-by-Example": "creativeml-openrail-m",
}


def tracking_uri(folder: Path) -> str:
    """Return MLFLOW_TRACKING_URI, or the address of the project's own mlflow.db."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / layout.MLFLOW_DATABASE).resolve()}"


def provenance_tags(folder: Path) -> dict[str, str]:
    """Return the commit of the checkout and DVC's hash of every output in dvc.lock; what is unknown is left out."""
    commit = git_commit(folder)
    hashes = {f"dvc.{path}": digest for path, digest in data_version(folder).items()}
    return ({"git_commit": commit} if commit else {}) | hashes


def git_commit(folder: Path) -> str | None:
    """Return the checked-out commit, 40 hex digits, with `-dirty` where tracked files differ; None outside git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return described.stdout.strip() or None


def data_version(folder: Path) -> dict[str, str]:
    """Return path -> hash for every output in the project's dvc.lock; empty when there is none yet."""
    lock = folder / "dvc.lock"
    if not lock.is_file():
        return {}
    stages = yaml.safe_load(lock.read_text())["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", ()) if "md5" in out}


def model_licence(backbone: Backbone, folder: Path) -> str:
    """Return the licence of what a model was trained from: an SPDX or Hugging Face name, or where to read it.

    A folder says it in the front matter of its README.md, as model cards do.
    """
    if backbone.source == "hub":
        repository = backbone.stable_diffusion
        return HUB_LICENCES.get(repository, f"that of {repository} on the Hugging Face hub")
    if backbone.source != "path" or backbone.path is None:
        return PROJECT_LICENCE
    card = folder / backbone.path / "README.md"
    parts = card.read_text().split("---\n", 2) if card.is_file() else []
    stated = (yaml.safe_load(parts[1]) or {}).get("license") if len(parts) == 3 and not parts[0].strip() else None
    return str(stated or f"that of {backbone.path}")

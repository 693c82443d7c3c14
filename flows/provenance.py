"""Where a model comes from: the git commit, DVC's hashes of what a stage reads and writes, and its licence.

A hash is of what lies there now: until DVC writes dvc.lock after a stage, dvc.lock has those of the run before.
"""

import os
import subprocess
from pathlib import Path

import yaml

from pbe import layout
from pbe.settings import Backbone

CODE = ("flows/", "pbe/")  # git has its versions
PROJECT_LICENCE = "apache-2.0"  # also of the bundled backbones
HUB_LICENCES = {
    "CompVis/stable-diffusion-v1-4": "creativeml-openrail-m",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "Fantasy-Studio/Paint-by-Example": "creativeml-openrail-m",
}


def tracking_uri(folder: Path) -> str:
    """Return MLFLOW_TRACKING_URI, or the address of the project's own mlflow.db."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / layout.MLFLOW_DATABASE).resolve()}"


def git_commit(folder: Path) -> str | None:
    """Return the checked-out commit, 40 hex digits; None outside git.

    It ends in `-dirty` where a tracked file differs that no stage writes: a run's outputs are no change of its code.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    outputs = [f":(top,exclude,glob)**/{path}" for path in ("dvc.lock", *_outputs_in_git(folder))]
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":(top)", *outputs)
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _outputs_in_git(folder: Path) -> list[str]:
    """Return the paths of the stages' outputs that git tracks: those with `cache: false` in dvc.yaml."""
    pipeline = folder / "dvc.yaml"
    stages = yaml.safe_load(pipeline.read_text())["stages"].values() if pipeline.is_file() else ()
    entries = [each for stage in stages for kind in ("outs", "metrics", "plots") for each in stage.get(kind, ())]
    options = [next(iter(entry.items())) for entry in entries if isinstance(entry, dict)]
    return [path for path, how in options if how.get("cache") is False]


def input_hashes(folder: Path, stage: str) -> dict[str, str]:
    """Return path -> DVC's hash of the data that a stage reads, as they are now; empty outside a DVC repository."""
    return {path: value for path, value in _hashes(folder, stage, "deps").items() if not path.startswith(CODE)}


def output_hashes(folder: Path, stage: str) -> dict[str, str]:
    """Return path -> DVC's current hash of each output of a stage; empty outside a DVC repository."""
    return _hashes(folder, stage, "outs")


def _hashes(folder: Path, stage: str, which: str) -> dict[str, str]:
    """Return the hash of each existing dependency or output of a stage; DVC keeps those of files that stay the same."""
    from dvc.dependency.param import ParamsDependency  # importing DVC takes a second
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        repo = Repo(str(folder))
    except NotDvcRepoError:
        return {}
    with repo:
        if not (folder / "dvc.yaml").is_file():
            return {}
        entries = getattr(repo.stage.load_one(str(folder / "dvc.yaml"), stage), which)
        files = [entry for entry in entries if not isinstance(entry, ParamsDependency) and entry.exists]
        return {entry.def_path: str(entry.get_hash().value) for entry in files}


def data_version(folder: Path, before: str) -> dict[str, str]:
    """Return path -> DVC's hash for the outputs of all stages in dvc.lock but `before`, and for what that one reads.

    Of a path that is both, the second is what lies there now.
    """
    lock = folder / "dvc.lock"
    stages = yaml.safe_load(lock.read_text())["stages"] if lock.is_file() else {}
    outs = [out for name, stage in stages.items() if name != before for out in stage.get("outs", ())]
    return {out["path"]: out["md5"] for out in outs if "md5" in out} | input_hashes(folder, before)


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

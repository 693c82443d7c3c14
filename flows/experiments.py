"""Runs as experiments of DVC: `dvc exp show` lists them beside the workspace.

An experiment of DVC is a commit on top of a commit of the branch, under refs/exps/<commit>/<name>. `dvc exp save` makes
one of the workspace and needs all outputs of the pipeline in it; here each run has a separate folder, and the
commit holds what DVC shows of it: params.yaml and the main scores. `dvc exp apply NAME` takes both into the workspace,
where `dvc repro` repeats the run.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.utils.serialize import modify_yaml

from pbe import layout


def record_experiment(folder: Path, name: str, changes: Mapping[str, Any], scores: Mapping[str, Any]) -> bool:
    """Record a run as an experiment on top of the checked-out commit; one of the same name is replaced.

    `changes` maps dotted keys of params.yaml to values; `scores` is the content of scores.json. Returns False outside
    git, where DVC has no experiments.
    """
    base = _git(folder, "rev-parse", "--verify", "HEAD")
    if base is None:
        return False
    with tempfile.TemporaryDirectory() as scratch:
        parameters, metrics = Path(scratch) / "params.yaml", Path(scratch) / "scores.json"
        parameters.write_text(_require(folder, "show", f"HEAD:./{layout.PARAMS}") + "\n")
        _change(parameters, changes)
        metrics.write_text(json.dumps(scores, indent=2) + "\n")
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        _require(folder, "read-tree", "HEAD", **index)
        for path, content in ((layout.PARAMS, parameters), (layout.SCORES, metrics)):
            blob = _require(folder, "hash-object", "-w", str(content))
            prefix = _require(folder, "rev-parse", "--show-prefix")
            _require(folder, "update-index", "--add", "--cacheinfo", f"100644,{blob},{prefix}{path}", **index)
        tree = _require(folder, "write-tree", **index)
    commit = _require(folder, "commit-tree", tree, "-p", base, "-m", f"dvc: experiment {name}", **_author())
    _require(folder, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
    return True


def _change(path: Path, changes: Mapping[str, Any]) -> None:
    """Change values of a YAML file as `dvc exp run -S` does: comments stay."""
    with modify_yaml(str(path)) as content:
        for key, value in changes.items():
            *sections, name = key.split(".")
            section = content
            for each in sections:
                section = section[each]
            section[name] = value


def _author() -> dict[str, str]:
    """Return who the commit is by where git has no identity; one that git has is used."""
    names = {"GIT_AUTHOR_NAME": "DVC", "GIT_AUTHOR_EMAIL": "dvc@localhost"}
    return (
        {}
        if _git(Path(), "config", "user.email")
        else names | {k.replace("AUTHOR", "COMMITTER"): v for k, v in names.items()}
    )


def _require(folder: Path, *command: str, **environment: str) -> str:
    done = subprocess.run(
        ["git", *command], cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.rstrip("\n")


def _git(folder: Path, *command: str) -> str | None:
    """Return what git prints, or None when it fails or does not exist."""
    try:
        return _require(folder, *command)
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None

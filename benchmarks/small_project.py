"""A copy of the checkout in another folder, with a small world and few steps: for checks that run the real stages."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from flows.services.processes import environment_of

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
MARK = "PBE_SMALL_PROJECT"  # every process that is started for the project inherits this variable
SMALL: dict[str, Any] = {
    "acquire": {"world": {"train_images": 240, "validation_images": 60}},
    "encode": {"shard_rows": 64},
    "train": {"steps": 40, "checkpoint_every": 10, "validate_every": 20},
    "bench": {"num_cases": 16},
    "evaluate": {
        "sweep": [1.0, 5.0], "sweep_cases": 4, "num_steps": 4, "diversity_cases": 2, "diversity_seeds": 2,
        "bootstrap_draws": 200,
    },
}  # fmt: skip


class SmallProject:
    """The copy as a git repository, and commands that run in it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "RAY_"))
        }
        self.env = kept | {"PYTHONPATH": str(folder), "PYTHONWARNINGS": "ignore", MARK: str(folder), **variables}

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `python`, `dvc` and `pbe` are the environment's."""
        ended = subprocess.run(self.full(command), cwd=self.folder, env=self.env, capture_output=True, text=True)
        if check and ended.returncode:
            raise RuntimeError(f"{' '.join(command)} exited with {ended.returncode}\n{ended.stdout}{ended.stderr}")
        return ended

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command as the leader of a process group, which Ctrl-C on a terminal signals."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.full(command),
            cwd=self.folder,
            env=self.env,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )

    def processes(self) -> list[int]:
        """Return the processes that were started for the project, at whatever distance, and still run."""
        folder = str(self.folder)
        return [each.pid for each in psutil.process_iter() if environment_of(each).get(MARK) == folder]

    @staticmethod
    def full(command: tuple[str, ...]) -> list[str]:
        """Return the command with the path of the environment's program."""
        own = BIN / command[0]
        return [str(own) if own.exists() else command[0], *command[1:]]


def make_small_project(folder: Path, changes: Mapping[str, Any] = SMALL) -> SmallProject:
    """Copy the files that git tracks or would add to `folder`, change params.yaml, and commit all of it there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    change_parameters(folder / "params.yaml", changes)
    project = SmallProject(folder)
    (folder / "dvc.lock").unlink(missing_ok=True)
    for command in (
        ("init", "-q"),
        ("config", "user.email", "small@localhost"),
        ("config", "user.name", "Small"),
        ("add", "-A"),
        ("commit", "-qm", "small"),
    ):
        project.run("git", *command)
    return project


def change_parameters(path: Path, changes: Mapping[str, Any]) -> None:
    """Change values of a params.yaml; `changes` is nested as the file is."""
    yaml = YAML()
    content = yaml.load(path.read_text())
    _merge(content, changes)
    with path.open("w") as file:
        yaml.dump(content, file)


def _merge(content: Any, changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, Mapping):
            _merge(content[name], value)
        else:
            content[name] = value

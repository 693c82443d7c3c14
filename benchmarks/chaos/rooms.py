"""The room of a case: a copy of a small project as an undisturbed run left it, in which one stage is to run again."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from benchmarks.interruptions import CLEARED, STAGES
from benchmarks.small_project import MARK, SmallProject, make_small_project

SMALLEST: dict[str, Any] = {
    "acquire": {"world": {"train_images": 96, "validation_images": 32}},
    "encode": {"shard_rows": 32},
    "train": {"steps": 12, "checkpoint_every": 3, "validate_every": 6, "validation_samples": 8},
    "bench": {"num_cases": 8},
    "evaluate": {
        "sweep": [5.0], "sweep_cases": 4, "num_steps": 2, "diversity_cases": 2, "diversity_seeds": 2,
        "bootstrap_draws": 100,
    },
}  # fmt: skip
LOCK = "dvc.lock"
SECONDS = "seconds.json"
SPARE_BYTES = 48 * 2**20  # of a small disk, beside the project
BALLAST = "ballast"
PIPELINE = ("python", "-m", "flows.pipeline")
REPRO = ("dvc", "repro")


@dataclass
class Ended:
    """How a command ended."""

    code: int
    output: str

    def last_line(self) -> str:
        """Return its message: the last line that begins with `error:`, or with DVC's `ERROR:`, or the last line."""
        lines = [" ".join(line.split()) for line in self.output.splitlines() if line.strip()]
        ours, dvcs = ([line for line in lines if line.startswith(mark)] for mark in ("error: ", "ERROR: "))
        return (ours or dvcs or lines or [""])[-1]

    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.output


class Room:
    """The folder in which cases run one after another; every case begins with a new copy of the undisturbed project.

    The project was made in the same folder, because MLflow's database holds absolute paths.
    """

    def __init__(self, root: Path) -> None:
        self.pristine, self.folder, self.log = root / "pristine", root / "project", root / "case.log"
        self.project = SmallProject(self.folder)
        self.seconds: dict[str, float] = {}

    def prepare(self) -> None:
        """Run every stage undisturbed and note its seconds, unless earlier calls in the same folder did so."""
        noted = self.pristine.parent / SECONDS
        self.seconds = json.loads(noted.read_text()) if noted.is_file() else {}
        if not self.seconds:
            self.clear()
            make_small_project(self.folder, SMALLEST)
        for stage in (stage for stage in STAGES if stage not in self.seconds):
            began = time.monotonic()
            self.project.run(*REPRO, "--single-item", stage)
            self.seconds[stage] = round(time.monotonic() - began, 2)
            print(f"undisturbed: {stage} in {self.seconds[stage]:.0f} s", flush=True)
            noted.write_text(json.dumps(self.seconds))
        if not self.pristine.exists():
            self.wait_until_gone(60.0)
            shutil.copytree(self.folder, self.pristine.with_suffix(".part"), symlinks=True, dirs_exist_ok=True)
            self.pristine.with_suffix(".part").rename(self.pristine)

    @contextmanager
    def opened(self, stages: tuple[str, ...], small_disk: bool = False) -> Iterator[SmallProject]:
        """Yield a new copy in which `stages` have never run; `small_disk` puts it on a separate file system."""
        self.clear()
        self.folder.mkdir()
        try:
            if small_disk:
                size = sum(path.lstat().st_size for path in self.pristine.rglob("*")) + SPARE_BYTES
                mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.folder))
            shutil.copytree(self.pristine, self.folder, symlinks=True, dirs_exist_ok=True)
            self.forget(stages)
            yield self.project
        finally:
            self.end_processes()
            self.wait_until_gone(10.0)
            self.clear()

    def clear(self) -> None:
        """Remove the folder. Before, unmount it and what is in it, which a suite that was killed leaves mounted."""
        mounted = [Path(each.mountpoint) for each in psutil.disk_partitions(all=True)]
        for path in reversed([each for each in mounted if each.is_relative_to(self.folder.resolve())]):
            subprocess.run(["umount", "--lazy", str(path)], check=True)
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def forget(self, stages: tuple[str, ...]) -> None:
        """Remove what the stages have made, their entries in dvc.lock, and DVC's memory of earlier runs."""
        lock = self.folder / LOCK
        yaml = YAML()
        content = yaml.load(lock.read_text())
        for stage in stages:
            outs = [out["path"] for out in content["stages"].pop(stage)["outs"]]
            for name in (*outs, *CLEARED.get(stage, ())):
                remove(self.folder / name)
        with lock.open("w") as file:
            yaml.dump(content, file)
        remove(self.folder / ".dvc/cache/runs")

    def server_variables(self) -> dict[str, str]:
        """Return the environment of a server beside the project, which is none of its processes."""
        return {name: value for name, value in self.project.env.items() if name != MARK}

    def start(self, command: tuple[str, ...], **variables: str) -> "subprocess.Popen[bytes]":
        """Start a command as the leader of a process group; its output goes to a file that orphans cannot block."""
        with self.log.open("wb") as log:
            return subprocess.Popen(
                self.project.full(command),
                cwd=self.folder,
                env=self.project.env | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, process: "subprocess.Popen[bytes]", limit_s: float) -> Ended:
        """Wait for a command; one that takes longer than `limit_s` is killed with its group, and its code is 124."""
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            code = 124
        return Ended(code, self.log.read_text(errors="replace"))

    def processes(self) -> list[psutil.Process]:
        """Return the project's processes: those with its mark in their environment, and those that run in its folder.

        Ray's workers overwrite their environment with their title.
        """
        marked, found = set(self.project.processes()), []
        for process in psutil.process_iter():
            try:
                inside = Path(process.cwd()).is_relative_to(self.folder)
                if (inside or process.pid in marked) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return sorted(found, key=lambda process: process.pid)

    def wait_until_gone(self, limit_s: float) -> list[str]:
        """Wait until none of the project's processes runs; return the titles of those that still do."""
        deadline = time.monotonic() + limit_s
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [title(process) for process in left]

    def end_processes(self) -> None:
        """Kill what a case that failed has left."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def differences(self) -> list[str]:
        """Return the outputs whose files or digests in dvc.lock differ from those of the undisturbed run."""
        return compare(digests(self.pristine), digests(self.folder))


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of the stages' outputs, and the digest of each output in dvc.lock."""
    stages = YAML(typ="safe").load((folder / LOCK).read_text())["stages"]
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    found = {f"{LOCK}: {name}": digest for name, digest in outs.items()}
    for name in outs:
        top = folder / name
        files = [path for path in top.rglob("*") if path.is_file()] if top.is_dir() else [top]
        for path in files:
            content = path.read_bytes() if path.is_file() else b"missing"
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def compare(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return the names whose digests differ, or that only one of the two has."""
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def fill(folder: Path) -> None:
    """Write a file until the file system has no byte left."""
    with (folder / BALLAST).open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def mount(*arguments: str) -> None:
    """Mount; raises CalledProcessError where this user may not."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def can_mount(scratch: Path) -> bool:
    """Return whether this user can mount a file system here."""
    scratch.mkdir(exist_ok=True)
    try:
        mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(scratch))
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False
    subprocess.run(["umount", str(scratch)], check=True)
    return True


def title(process: psutil.Process) -> str:
    """Return a short name of a process: its module, Ray's title, or its program."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return "a process that had ended"
    return shorten(words)


def shorten(words: list[str]) -> str:
    """Return the short name for a command line."""
    if not words:
        return "a process without a command line"
    program = words[0].split(" ")[0].rpartition("/")[2]
    if not program.startswith("python"):
        return program
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    if "-c" in words:
        return "a helper of multiprocessing" if "multiprocessing" in words[-1] + words[-2] else "python -c"
    scripts = [word for word in words[1:] if not word.startswith("-")]
    return scripts[0].rpartition("/")[2] if scripts else program


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

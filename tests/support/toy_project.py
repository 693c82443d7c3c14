"""A toy project in its own folder: the stages run as in the pipeline, but their work is to take naps."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import httpx

ROOT = Path(__file__).parents[2]
TOY = """
import errno, sys, time
from pathlib import Path
import numpy as np
from flows.stage import main, stage_flow
from pbe.errors import UnavailableError, UserError

def work(settings, folder, bars):
    '''Take the number of naps in naps.txt; some numbers stand for errors.'''
    num_naps = int((folder / "naps.txt").read_text())
    if num_naps == 13:
        raise UserError("naps.txt: 13 is unlucky;\\n  give another number")
    if num_naps == 14:
        raise TypeError("a planted bug")
    if num_naps == 15:
        np.zeros(2) + np.zeros(3)
    if num_naps == 16:
        raise UnavailableError("http://127.0.0.1:9: does not answer")
    if num_naps == 17:
        raise OSError(errno.ENOSPC, "No space left on device", "data/raw")
    bar = bars("naps")
    for i in range(num_naps):
        time.sleep(0.1)
        bar(i + 1, num_naps)
    (folder / f"{name}.out").write_text(str(num_naps))
    return {"naps": num_naps, "skipped": {"rain": 2}}

name = sys.argv[1]
if __name__ == "__main__":
    main(stage_flow(name, work))
"""
DVC_YAML = """
stages:
  acquire:
    cmd: python toy.py acquire
    deps: [naps.txt]
    outs: [acquire.out]
  filter:
    cmd: python toy.py filter
    deps: [acquire.out]
    outs: [filter.out]
"""


class Project:
    """The toy project's folder, and commands that run in it."""

    def __init__(self, folder: Path, api_url: str | None) -> None:
        self.folder = folder
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "PBE_", "DVC_", "COVERAGE_"))}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.env = inherited | {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        if api_url is not None:
            self.env["PREFECT_API_URL"] = api_url

    def start(self, *command: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=pipe, stderr=pipe, text=True)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=300)

    def naps(self, number: int) -> None:
        (self.folder / "naps.txt").write_text(str(number))


def wait_for(happened: Callable[[], bool], within_s: float = 60.0) -> bool:
    deadline = monotonic() + within_s
    while monotonic() < deadline:
        if happened():
            return True
        sleep(0.1)
    return False


def running(pid: int) -> bool:
    """Return whether the process is alive; a zombie is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def healthy(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health").is_success
    except httpx.TransportError:
        return False


def make_project(folder: Path, api_url: str | None) -> Project:
    project = Project(folder, api_url)
    (folder / "toy.py").write_text(TOY)
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (folder / "prefect.toml").write_text((ROOT / "prefect.toml").read_text())
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    project.naps(2)
    return project

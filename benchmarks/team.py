"""Run the commands of docs/team.md on this machine, and print what each section took.

    python benchmarks/team.py

PostgreSQL, an S3 store, Prefect's server, MLflow, two Ray nodes and a worker run on free ports of 127.0.0.1, with a
small world and few steps. Exits with 1 when a command fails, a checkout differs from the one that ran the pipeline, a
Ray node had no work, a password is in a file or a log, or a process is left.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/team.md"
PORTS = ("PGPORT", "S3_PORT", "PREFECT_PORT", "MLFLOW_PORT", "RAY_PORT")
STOP_S = 15.0  # until what was stopped has ended
BLOCK = re.compile(r"^## (.*?)$|^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECRETS = ("postgres", "prefect", "mlflow", "s3", "ray")
SMALL: dict[str, Any] = {
    "acquire": {"world": {"train_images": 300, "validation_images": 80}},
    "encode": {"shard_rows": 64},
    "train": {"steps": 40, "checkpoint_every": 20, "validate_every": 20},
    "bench": {"num_cases": 16},
    "evaluate": {
        "sweep": [1.0, 5.0], "sweep_cases": 4, "num_steps": 4, "num_workers": 1, "baselines": ["copy_paste"],
        "diversity_cases": 2, "diversity_seeds": 2, "bootstrap_draws": 200,
    },
}  # fmt: skip


def sections() -> Iterator[tuple[str, str]]:
    """Yield the heading and the commands of each block of the page."""
    heading = ""
    for found in BLOCK.finditer(PAGE.read_text()):
        if found[1]:
            heading = found[1]
        else:
            yield heading, found[2]


def script() -> str:
    """Return the page's commands as one script that prints each block's heading and seconds."""
    lines = ["set -euo pipefail", "set -m"]  # as in a terminal: without -m what runs in the background ignores SIGINT
    for heading, commands in sections():
        lines += [f'printf "\\n== %s\\n" "{heading}"', "SECONDS=0", commands, 'printf -- "-- %s s\\n" "$SECONDS"']
    return "\n".join(lines)


def make_origin(folder: Path) -> Path:
    """Make the team's git repository, of this checkout's commit and the small parameters; return a checkout of it."""
    work = folder / "first"
    git("clone", "--quiet", str(ROOT), str(work))
    yaml = YAML()
    yaml.width = 200
    params = yaml.load(work / "params.yaml")
    update(params, SMALL)
    yaml.dump(params, work / "params.yaml")
    git("-C", str(work), "commit", "--quiet", "--all", "--message", "A small world")
    git("clone", "--quiet", "--bare", str(work), str(folder / "origin.git"))
    return work


def update(section: Any, changes: Mapping[str, Any]) -> None:
    """Change values of params.yaml in place; a key that it does not have is an error."""
    for key, value in changes.items():
        assert key in section, key
        if isinstance(value, Mapping):
            update(section[key], value)
        else:
            section[key] = value


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True)


def environment(folder: Path, checkout: Path) -> dict[str, str]:
    """Return the script's environment: folder, free ports, interpreter, the checkout's code, a name for git."""
    from pbe.runtime.ports import free_port

    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "PBE_", "AWS_", "RAY_", "DVC_"))}
    name = {f"GIT_{who}_{what}": "team" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {
        **inherited,
        **name,
        **{port: str(free_port()) for port in PORTS},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TEAM": str(folder),
        "ORIGIN": str(folder / "origin.git"),
        "RAY_TMPDIR": str(folder / "ray"),
        "PYTHONPATH": str(checkout),
        "PYTHONWARNINGS": "ignore",
    }


class NodeWatch(threading.Thread):
    """Records the most CPUs that were in use on each node of the cluster."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address, self.most, self.ended = address, dict[str, float](), threading.Event()

    def run(self) -> None:
        from ray.autoscaler.v2.sdk import get_cluster_status
        from ray.exceptions import RayError

        while not self.ended.wait(1.0):
            try:
                status = get_cluster_status(self.address)
            except (RayError, RuntimeError, OSError):
                if self.most:  # the cluster has ended; each further attempt holds the interpreter's lock for 40 s
                    return
                continue
            for node in [*status.active_nodes, *status.idle_nodes]:
                used = {usage.resource_name: usage.used for usage in node.resource_usage.usage}.get("CPU", 0.0)
                self.most[node.node_id] = max(used, self.most.get(node.node_id, 0.0))


def run(folder: Path) -> bool:
    """Run the page's commands; return whether all is as it should be."""
    folder.chmod(0o755)  # PostgreSQL's user, if this is root, has a folder below
    checkout = make_origin(folder)
    env = environment(folder, checkout)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(folder / "secrets/ray"))
    watch = NodeWatch(f"127.0.0.1:{env['RAY_PORT']}")
    began = time.monotonic()
    process = subprocess.Popen(["bash", "-c", script()], cwd=checkout, env=env, start_new_session=True)
    watch.start()
    started: set[psutil.Process] = set()
    try:
        while process.poll() is None:
            started |= children_of(process.pid)
            time.sleep(0.5)
    finally:
        watch.ended.set()
        _, left = psutil.wait_procs(list(started), timeout=STOP_S)
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
    print(f"\nin all: {time.monotonic() - began:.0f} s, exit code {process.returncode}")
    print(f"most CPUs in use, by node: {sorted(watch.most.values())}")
    leaks = leaked(folder)
    print(f"passwords found in files: {leaks or 'none'}")
    print(f"processes left: {[each.pid for each in left] or 'none'}")
    used = sum(most > 0 for most in watch.most.values())
    return process.returncode == 0 and used == 2 and not leaks and not left


def children_of(pid: int) -> set[psutil.Process]:
    try:
        return set(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return set()


def leaked(folder: Path) -> list[str]:
    """Return the files, other than the secrets themselves, that hold one of the passwords."""
    words = [(folder / "secrets" / name).read_bytes().strip() for name in SECRETS]
    found = []
    for above, _, names in os.walk(folder):
        paths = [Path(above, name) for name in names if Path(above) != folder / "secrets"]
        contents = {path: path.read_bytes() for path in paths if path.is_file() and not path.is_symlink()}
        found += [str(p.relative_to(folder)) for p, content in contents.items() if any(w in content for w in words)]
    return found


def main() -> None:
    """Run the page in a temporary folder; `--keep` leaves its files for a look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="do not remove the folder")
    keep = parser.parse_args().keep
    folder = Path(tempfile.mkdtemp(prefix="team-"))
    try:
        ok = run(folder)
    finally:
        print(folder) if keep else shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()

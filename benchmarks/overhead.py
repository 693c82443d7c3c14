"""What DVC and Prefect add: a no-op `dvc repro` against `dvc status`, and a stage with Prefect against one without.

    python -m benchmarks.overhead --project DIR

DIR is a project whose stages are all up to date, such as this checkout after `make demo`. The stages that are timed do
nothing, in a separate project, so that the times are those of the interpreter, the imports, DVC and Prefect.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT, BIN = Path(__file__).parents[1], Path(sys.executable).parent
STAGES = 6
WITH_PREFECT = """
import sys
from flows.stage import main, stage_flow

def work(settings, folder, bars):
    '''Do nothing.'''
    (folder / f"{sys.argv[1]}.out").write_text(sys.argv[1])
    return {}

if __name__ == "__main__":
    main(stage_flow(sys.argv[1], work))
"""
WITHOUT = """
import sys
from pathlib import Path
from pbe import layout
from pbe.settings import load_settings
load_settings(layout.PARAMS)
Path(f"{sys.argv[1]}.out").write_text(sys.argv[1])
"""


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    commands = (("dvc", name, "dvc.yaml") for name in ("status", "repro"))
    status, repro = (median_s(options.project, options.repeats, *command) for command in commands)
    print(f"dvc status {status:.2f} s, no-op dvc repro {repro:.2f} s: {repro / status:.2f} times as long")
    with tempfile.TemporaryDirectory() as scratch:
        seconds = {
            name: stage_s(Path(scratch) / name, text) for name, text in (("with", WITH_PREFECT), ("without", WITHOUT))
        }
    print(
        f"a stage of dvc repro: {seconds['with']:.2f} s with Prefect, {seconds['without']:.2f} s without: "
        f"Prefect adds {seconds['with'] - seconds['without']:.2f} s"
    )


def median_s(folder: Path, repeats: int, *command: str) -> float:
    """Return the median time of a command that changes nothing."""
    times = []
    for _ in range(repeats):
        began = time.monotonic()
        ended = run(folder, *command)
        times.append(time.monotonic() - began)
        if "up to date" not in ended.stdout:
            sys.exit(f"{folder}: not every stage is up to date\n{ended.stdout}")
    return statistics.median(times)


def stage_s(folder: Path, text: str) -> float:
    """Return the time of one of STAGES stages of a `dvc repro`, the first of which makes Prefect's database before."""
    folder.mkdir()
    (folder / "stage.py").write_text(text)
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (folder / "prefect.toml").write_text((ROOT / "prefect.toml").read_text())
    names = [f"stage-{number}" for number in range(STAGES)]
    lines = [f"  {name}: {{cmd: {BIN}/python stage.py {name}, outs: [{name}.out]}}" for name in names]
    (folder / "dvc.yaml").write_text("\n".join(["stages:", *lines]))
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    run(folder, "dvc", "repro", names[0])
    began = time.monotonic()
    run(folder, "dvc", "repro", "--force")
    return (time.monotonic() - began) / STAGES


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment to its end."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    full = [str(BIN / command[0]), *command[1:]]
    return subprocess.run(full, cwd=folder, env=env, capture_output=True, text=True, check=True)


if __name__ == "__main__":
    main()

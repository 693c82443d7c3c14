"""What an installation costs: a wheel is built, and installed with each extra into an empty environment.

    python benchmarks/installation.py [--extras none serve train all]

Prints the number of packages, the size on disk, and the seconds that uv takes, whose cache may be warm. In the
environment without extras it then runs `pbe edit` twice, in an empty folder: the first run compiles bytecode. In that
of `serve` it opens the page. The versions are those of constraints.txt. Asserts that pixels outside the mask are the
source's, and that commands without their extra say so.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")
UNSET = ("MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
EXAMPLE = ROOT / "docs/examples/can"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", nargs="+", choices=("none", "serve", "train", "all"), default=["none"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        print(f"wheel: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
        for extra in options.extras:
            environment = Path(folder) / extra
            seconds = install(wheel, environment, "" if extra == "none" else f"[{extra}]")
            print(
                f"{extra:>5}: {len(packages(environment))} packages, {size(environment) / 1e9:.2f} GB, {seconds:.0f} s"
            )
            if extra == "none":
                paint(environment, Path(folder))
                refuse(environment, Path(folder))
            if extra == "serve":
                serve(environment, Path(folder))


def build(folder: Path) -> Path:
    """Build the wheel of this checkout, through its source distribution, and return its file."""
    run([UV, "build", "--quiet", "--out-dir", folder / "dist", ROOT], folder)
    return next((folder / "dist").glob("*.whl"))


def install(wheel: Path, environment: Path, extra: str) -> float:
    """Install the wheel into a new environment and return the seconds that took."""
    run([UV, "venv", "--quiet", "--python", sys.executable, environment], wheel.parent)
    started = time.monotonic()
    command = [UV, "pip", "install", "--quiet", "--python", environment / "bin/python"]
    run(
        [*command, "--constraint", ROOT / "constraints.txt", f"paint-by-example{extra} @ {wheel.as_uri()}"],
        wheel.parent,
    )
    return time.monotonic() - started


def packages(environment: Path) -> list[Path]:
    """Return the installed distributions."""
    return sorted(environment.glob("lib/python*/site-packages/*.dist-info"))


def size(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def paint(environment: Path, folder: Path) -> None:
    """Run `pbe edit` twice outside of the checkout, and check what it leaves of the source."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    files = [f"--{name}={EXAMPLE / file}" for name, file in
             (("source", "source.jpg"), ("mask", "mask.png"), ("exemplar", "exemplar.png"))]  # fmt: skip
    for number in ("first", "second"):
        started = time.monotonic()
        printed = run([environment / "bin/pbe", "edit", *files, "--out", "out.png"], elsewhere)
        print(f"{number} pbe edit: {time.monotonic() - started:.1f} s; {printed.strip().splitlines()[-1]}")
    source, out = (np.asarray(PillowImage.open(path)) for path in (EXAMPLE / "source.jpg", elsewhere / "out.png"))
    hole = np.asarray(PillowImage.open(EXAMPLE / "mask.png").convert("L")) > 127
    changed = (out[..., :3] != source).any(-1)
    assert changed[hole].any()
    assert not changed[~hole].any()
    print(f"{changed[hole].sum()} pixels painted, 0 changed outside the mask")


def refuse(environment: Path, folder: Path) -> None:
    """Print what commands say whose extra is not installed; each must end with code 2."""
    for command in ("bin/pbe serve", "bin/pbe models list", "bin/pbe browse", "bin/python -m flows.pipeline"):
        program, *words = command.split()
        done = subprocess.run(
            [environment / program, *words], cwd=folder, env=variables(), capture_output=True, text=True
        )
        assert done.returncode == 2, done.stderr
        print(f"{command.removeprefix('bin/')}: {done.stderr.strip().splitlines()[-1]}")


def serve(environment: Path, folder: Path) -> None:
    """Open the page and the service of `pbe app`, and print how long that took."""
    started = time.monotonic()
    command = [environment / "bin/pbe", "app", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=variables(), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            address = server.stdout.readline().split()[0]
            pages = [urllib.request.urlopen(f"{address}/{name}").read() for name in ("", "healthz", "v1/models")]
            assert all(pages)
            print(f"pbe app: answers at / and /v1/models after {time.monotonic() - started:.1f} s")
        finally:
            server.send_signal(signal.SIGTERM)


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command and return its output; exit with what it printed when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=variables(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def variables() -> dict[str, str]:
    """Return the environment variables of a user of pip, for uv as well."""
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    if "PIP_FIND_LINKS" in environment:
        environment.setdefault("UV_FIND_LINKS", environment["PIP_FIND_LINKS"])
    if "PIP_INDEX_URL" in environment:
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    return environment


if __name__ == "__main__":
    main()

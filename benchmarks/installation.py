"""What an installation costs: a wheel is built, and installed with each extra into an empty environment.

    python benchmarks/installation.py [--extras none serve train all]

Prints the number of packages, the size on disk, and the seconds that uv takes, whose cache may be warm. In the
environment without extras it then runs `pbe edit` twice, in an empty folder: the first run compiles bytecode. The
versions are those of constraints.txt. Asserts that pixels outside the mask are the source's.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")
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
    source, mask, out = (
        np.asarray(PillowImage.open(path))
        for path in (EXAMPLE / "source.jpg", EXAMPLE / "mask.png", elsewhere / "out.png")
    )
    hole = mask > 127 if mask.ndim == 2 else mask[..., 0] > 127
    changed = (out[..., :3] != source).any(-1)
    assert changed[hole].any()
    assert not changed[~hole].any()
    print(f"{changed[hole].sum()} pixels painted, 0 changed outside the mask")


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command with the package indexes of pip's environment variables; return its output."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")
    }
    if "PIP_FIND_LINKS" in environment:
        environment.setdefault("UV_FIND_LINKS", environment["PIP_FIND_LINKS"])
    if "PIP_INDEX_URL" in environment:
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()

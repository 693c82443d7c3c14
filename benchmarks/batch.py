"""What `pbe batch` costs beside the painting itself: the time of the whole command over the time in `Painter.paint`.

    .venv/bin/python benchmarks/batch.py --model MODEL_FOLDER --pictures FOLDER [--num 100] [--num-steps 8]

Paints a fixed box of the first pictures of a folder, in a temporary folder; --pictures is a folder of JPEGs, such as
FOD-A's JPEGImages. The time of the command counts from the start of its process, with imports and the model's loading.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from pbe.serving.commands.main import main as pbe
from pbe.serving.commands.start_up import hidden_module, paused_collector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--pictures", type=Path, required=True, metavar="FOLDER", help="a folder of JPEGs")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--num-steps", type=int, default=8)
    options = parser.parse_args()
    painting_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder), options.pictures, options.num)
        with paused_collector():
            count_painting(painting_s)
        arguments = ["--rows", rows, "--out", Path(folder) / "out", "--num-steps", options.num_steps]
        assert pbe(["batch", *map(str, arguments), "--model", str(options.model)]) == 0
    total_s = time.time() - psutil.Process().create_time()
    print(f"{len(painting_s)} pictures, {options.num_steps} steps: {total_s:.1f} s, of which painting "
          f"{sum(painting_s):.1f} s: {total_s / sum(painting_s):.2f} times")  # fmt: skip


def write_rows(folder: Path, pictures: Path, num: int) -> Path:
    files = sorted(pictures.glob("*.jpg"))[:num]
    with (folder / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["source", "box", "exemplar"])
        table.writerows([path.resolve(), "80 80 200 180", files[0].resolve()] for path in files)
    return folder / "rows.csv"


def count_painting(painting_s: list[float]) -> None:
    """Make every call of `Painter.paint` record its time."""
    with hidden_module("scipy"), hidden_module("peft"), hidden_module("accelerate"):  # as the command imports it
        from pbe.method.painter import Painter

    paint = Painter.paint

    def timed(*arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        result = paint(*arguments, **keywords)
        painting_s.append(time.perf_counter() - started)
        return result

    Painter.paint = timed  # type: ignore[method-assign]


if __name__ == "__main__":
    main()

"""Run the commands of README.md, check the results, and put them side by side in results.jpg.

    make examples, or python docs/examples/paint.py --model FOLDER

The commands run with `--device cpu --precision fp32`, so that one machine always gives the same bits. Of each result,
every pixel outside the mask must be the source's. Of the sheet, whose result is large, its window is kept.
"""

import argparse
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as PillowImage

from pbe.evaluation.report.gallery import GalleryRow, write_gallery_png
from pbe.method.close_up import window_around
from pbe.method.windows import mask_box
from pbe.serving.commands.main import main
from pbe.types import Box, Image, Mask

HERE = Path(__file__).parent
RESULTS = HERE / "results.jpg"
REPEATABLE = ("--device", "cpu", "--precision", "fp32")
SHEET, PAINTER_PX = "sheet", 128
MAX_PIXELS = 1_000_000  # of results.jpg


class Painted(NamedTuple):
    """A result (H, W, 3) with its source, mask (H, W; 1 = repainted) and exemplar."""

    name: str
    source: Image
    mask: Mask
    exemplar: Image
    result: Image


def commands() -> dict[str, list[str]]:
    """Return the arguments of each `pbe edit` in README.md by the stem of its `--out`."""
    text = (HERE / "README.md").read_text().replace("\\\n", " ")
    found = [shlex.split(line.split("pbe ", 1)[1]) for line in re.findall(r"^.*pbe edit .*$", text, re.MULTILINE)]
    return {Path(argv[argv.index("--out") + 1]).stem: argv for argv in found}


def paint(name: str, argv: Sequence[str], more: Sequence[str] = ()) -> Painted:
    """Run a command, with the options `more`, from the project's folder; raises ValueError when it fails.

    Raises ValueError as well when a pixel outside the mask changes, or none inside it.
    """
    folder = HERE / name
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.png"
        if code := main([*argv, f"--out={out}", *REPEATABLE, *more]):
            raise ValueError(f"{name}: pbe edit ended with {code}")
        result = np.array(PillowImage.open(out))
    source, exemplar = (np.array(PillowImage.open(folder / file)) for file in ("source.jpg", "exemplar.png"))
    mask = np.array(PillowImage.open(folder / "mask.png")).astype(np.uint8)
    changed = (result != source).any(-1)
    outside = changed[mask == 0].sum()
    if outside or not changed.any():
        raise ValueError(f"{name}: {changed.sum()} pixels changed, {outside} of them outside the mask")
    print(f"{name}: {changed.sum()} of {changed.size} pixels changed, all of them in the mask")
    return Painted(name, source, mask, exemplar, result)


def keep(painted: Painted) -> GalleryRow:
    """Write the result, of the sheet only the window that was painted, and return its row of results.jpg."""
    box = (0, 0, painted.mask.shape[1], painted.mask.shape[0])
    if painted.name == SHEET:
        window = window_around(painted.mask, PAINTER_PX)
        box = (window.left, window.top, window.left + window.side, window.top + window.side)
    result = _crop(painted.result, box)
    PillowImage.fromarray(result).save(HERE / painted.name / "result.png", optimize=True)
    x0, y0, x1, y1 = mask_box(painted.mask)
    hole = (x0 - box[0], y0 - box[1], x1 - box[0], y1 - box[1])
    return GalleryRow(0, painted.name, _crop(painted.source, box), hole, painted.exemplar, (result,))


def _crop(image: Image, box: Box) -> Image:
    x0, y0, x1, y1 = box
    return image[y0:y1, x0:x1]


def _write_results(rows: Sequence[GalleryRow]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        sheet = Path(scratch) / "results.png"
        write_gallery_png(rows, ["painted"], sheet, MAX_PIXELS)
        PillowImage.open(sheet).save(RESULTS, quality=88, optimize=True)


def run(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="instead of the bundled painter")
    options = parser.parse_args(argv)
    more = ["--model", options.model] if options.model else []
    start = time.perf_counter()
    rows = [keep(paint(name, command, more)) for name, command in commands().items()]
    _write_results(rows)
    print(f"{RESULTS.name}: {len(rows)} pictures in {time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    run()

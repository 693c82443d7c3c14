"""Cut the example pictures out of FOD-A (MIT): sources, masks and exemplars, and a sheet of 2048 px.

    python docs/examples/cut.py FOD_A

FOD_A is a folder in Pascal VOC's layout with scenes.csv, whose column `split` says which clips are held back. Only
those are used, and an exemplar comes from another clip than its source.
"""

import csv
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from PIL import Image as PillowImage

from pbe.types import Box

HERE = Path(__file__).parent
SHEET, SHEET_PX, SHEET_SIDE, FRAME_PX, GAP_PX = "sheet", 2048, 6, 300, 40
BORDER_PX = (SHEET_PX - SHEET_SIDE * FRAME_PX - (SHEET_SIDE - 1) * GAP_PX) // 2
JPEG_QUALITY = 85  # of the sheet; the frames themselves are copied
PAD_FRAC = 0.06  # around an exemplar's box, as a share of its longer side


class Example(NamedTuple):
    """A frame with the box to repaint, and the frame and box of the exemplar; `x0, y0, x1, y1` in pixels from 0."""

    source: str
    hole: Box
    exemplar: str
    object_box: Box


EXAMPLES = {
    "can": Example("027349", (104, 70, 190, 228), "029755", (102, 52, 186, 211)),
    "pliers": Example("029579", (118, 82, 200, 208), "027507", (99, 65, 182, 240)),
    "label": Example("002976", (66, 98, 196, 196), "019836", (38, 130, 201, 243)),
    SHEET: Example("011508", (112, 76, 212, 200), "033452", (104, 67, 214, 237)),
}


def cut(fod_a: Path) -> None:
    """Write a folder for each example: source.jpg, mask.png and exemplar.png."""
    for name, example in EXAMPLES.items():
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        if name == SHEET:
            left, top = _write_sheet(fod_a, example.source, folder / "source.jpg")
        else:
            shutil.copyfile(_frame(fod_a, example.source), folder / "source.jpg")
            left, top = 0, 0
        x0, y0, x1, y1 = example.hole
        size = PillowImage.open(folder / "source.jpg").size
        mask = PillowImage.new("1", size)
        mask.paste(1, (left + x0, top + y0, left + x1, top + y1))
        mask.save(folder / "mask.png", optimize=True)
        exemplar = PillowImage.open(_frame(fod_a, example.exemplar)).crop(_padded(example.object_box))
        exemplar.save(folder / "exemplar.png", optimize=True)


def _padded(box: Box) -> Box:
    x0, y0, x1, y1 = box
    pad = round(PAD_FRAC * max(x1 - x0, y1 - y0))
    return max(0, x0 - pad), max(0, y0 - pad), min(FRAME_PX, x1 + pad), min(FRAME_PX, y1 + pad)


def _write_sheet(fod_a: Path, shown: str, path: Path) -> tuple[int, int]:
    """Write 6 x 6 frames of held-back clips, unscaled, and return where the frame `shown` lies."""
    frames = _sheet_frames(fod_a, shown)
    sheet = PillowImage.new("RGB", (SHEET_PX, SHEET_PX), "white")
    places = [
        (BORDER_PX + column * (FRAME_PX + GAP_PX), BORDER_PX + row * (FRAME_PX + GAP_PX))
        for row in range(SHEET_SIDE)
        for column in range(SHEET_SIDE)
    ]
    for frame, place in zip(frames, places, strict=True):
        sheet.paste(PillowImage.open(_frame(fod_a, frame)), place)
    sheet.save(path, quality=JPEG_QUALITY, optimize=True)
    return places[frames.index(shown)]


def _sheet_frames(fod_a: Path, shown: str) -> list[str]:
    """Return the middle frame of each held-back clip, or `shown` where the clip has it, and then last frames."""
    clips = defaultdict(list)
    with (fod_a / "scenes.csv").open() as file:
        for row in csv.DictReader(file):
            if row["split"] == "val":
                clips[row["label"], row["scene"]].append(row["image"])
    middle = [shown if shown in frames else frames[len(frames) // 2] for frames in clips.values()]
    last = [frames[-1] for frames in clips.values()]
    return (middle + last)[: SHEET_SIDE**2]


def _frame(fod_a: Path, name: str) -> Path:
    return fod_a / "JPEGImages" / f"{name}.jpg"


if __name__ == "__main__":
    cut(Path(sys.argv[1]))

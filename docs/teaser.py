"""Compose docs/teaser.png: the example photographs on top, cases of the demo below.

    python docs/teaser.py [--demo FOLDER]

Needs the results in docs/examples (`make examples`) and a project in which `make demo` ran, by default this one. The
demo's cases are the first of the gallery, which are chosen by a rule and not by their looks.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont, ImageOps

from pbe import layout
from pbe.dataset.images import read_image
from pbe.dataset.mask_images import read_mask
from pbe.evaluation.benches.bench import result_path
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.report.gallery import GalleryRow, spread_cases, write_gallery_png
from pbe.method.windows import mask_box
from pbe.runtime.files import read_json

HERE = Path(__file__).parent
TEASER = HERE / "teaser.png"
PHOTOGRAPHS = ("can", "pliers", "label")
GUIDANCE = (1, 3, 5, 7)
DEMO_ROWS, WIDTH, SIDE, GAP, MARGIN, HEAD = 3, 832, 260, 14, 12, 28
DEMO_PIXELS = WIDTH * 448  # of a gallery of three rows with tiles of 128 px
SHOWN = 1.9  # side of what is shown of a photograph / longer side of its mask


def photographs() -> PillowImage.Image:
    """Return the photographs side by side, with their exemplars in a corner, above what was painted."""
    sheet = PillowImage.new("RGB", (WIDTH, HEAD + 2 * SIDE + GAP + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    text = "photographs with the box to repaint and the exemplar, above what the bundled painter paints"
    draw.text((WIDTH // 2, HEAD // 2), text, (28, 30, 34), ImageFont.load_default(13), anchor="mm")
    left = (WIDTH - len(PHOTOGRAPHS) * SIDE - (len(PHOTOGRAPHS) - 1) * GAP) // 2
    for column, name in enumerate(PHOTOGRAPHS):
        x = left + column * (SIDE + GAP)
        source, result = _pair(HERE / "examples" / name)
        sheet.paste(source, (x, HEAD))
        sheet.paste(result, (x, HEAD + SIDE + GAP))
    return sheet


def _pair(folder: Path) -> tuple[PillowImage.Image, PillowImage.Image]:
    """Return the surroundings of the mask before and after, (SIDE, SIDE)."""
    x0, y0, x1, y1 = mask_box(read_mask(folder / "mask.png"))
    source, result = PillowImage.open(folder / "source.jpg"), PillowImage.open(folder / "result.png")
    side = min(round(SHOWN * max(x1 - x0, y1 - y0)), *source.size)
    left = min(max(0, (x0 + x1 - side) // 2), source.width - side)
    top = min(max(0, (y0 + y1 - side) // 2), source.height - side)
    shown = (left, top, left + side, top + side)
    before, after = (
        picture.convert("RGB").crop(shown).resize((SIDE, SIDE), PillowImage.Resampling.BICUBIC)
        for picture in (source, result)
    )
    scale = SIDE / side
    hole = [round(scale * v) for v in (x0 - left, y0 - top, x1 - left, y1 - top)]
    ImageDraw.Draw(before).rectangle(hole, outline="white", width=2)
    exemplar = ImageOps.expand(PillowImage.open(folder / "exemplar.png").convert("RGB"), 3, "white")
    before.paste(ImageOps.contain(exemplar, (SIDE * 2 // 5, SIDE * 2 // 5)), (0, 0))
    return before, after


def demo(folder: Path) -> PillowImage.Image:
    """Return the first cases of the demo's bench, painted with each guidance scale."""
    results = folder / layout.EVALUATION / "results"
    own = read_json(folder / layout.METRICS)["guidance_scale"]
    columns = [results / ("paint_by_example" + ("" if scale == own else f"_guidance_{scale}")) for scale in GUIDANCE]
    bench = read_bench(folder / layout.BENCH)
    num_painted = min(len(list(column.glob("*.png"))) for column in columns)
    rows = []
    for case_id in spread_cases(bench.head(num_painted), DEMO_ROWS):
        case = bench.case(case_id)
        images = tuple(read_image(result_path(column, case_id)) for column in columns)
        rows.append(GalleryRow(case_id, "", case.source, case.box, case.exemplar, images))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "demo.png"
        write_gallery_png(rows, [f"guidance {scale}" for scale in GUIDANCE], path, DEMO_PIXELS)
        return PillowImage.fromarray(np.array(PillowImage.open(path)))


def run(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path(), metavar="FOLDER", help="a project with the demo's results")
    options = parser.parse_args(argv)
    top, bottom = photographs(), demo(options.demo)
    teaser = PillowImage.new("RGB", (WIDTH, top.height + bottom.height), "white")
    teaser.paste(top, (0, 0))
    teaser.paste(bottom, ((WIDTH - bottom.width) // 2, top.height))
    teaser.save(TEASER, optimize=True)
    print(f"{TEASER}: {teaser.width} x {teaser.height} px")


if __name__ == "__main__":
    run()

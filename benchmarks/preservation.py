"""What an edit changes outside of its mask: ours, diffusers' pipeline with the same weights, and pasting the exemplar.

    .venv/bin/python benchmarks/preservation.py [--write docs/preservation.md] [--bench FOLDER --num-cases 32]

Edits the four photographs of docs/examples, or the first cases of a bench, with the bundled painter or `--model`.
Diffusers' `PaintByExamplePipeline` gets the whole picture, as its documentation shows, with weights that went through
`pbe export`; "pasted back" puts its masked pixels into the source afterwards, as users of it do. Sampler, steps,
guidance and precision are the same. Prints, per method, the largest change of any channel outside the mask, the share
of unmasked pixels that changed, the background's PSNR, and the visibility of the seam (1 = none; see
pbe.evaluation.metrics.seams) with an interval of 95 % over cases. `--write` puts the table into a page and a picture of
the differences beside it.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw

from pbe.evaluation.baselines.pasting import copy_paste
from pbe.evaluation.baselines.stock import StockPainter
from pbe.evaluation.benches.bench import Case
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.metrics.preservation import background_of, psnr, unmasked_max_abs_diff
from pbe.evaluation.metrics.seams import seam_visibility
from pbe.evaluation.painting.windows import PaintSettings, Request
from pbe.method.close_up import window_around
from pbe.method.painter import Painter
from pbe.runtime.files import write_text
from pbe.serving.editor import (
    Edit,
    EditOptions,
    Editor,
    Exemplar,
    Region,
    picture_of,
    read_exemplar,
    read_mask,
    read_source,
)
from pbe.types import Image, Mask

ROOT = Path(__file__).parents[1]
EXAMPLES = ("can", "pliers", "label", "sheet")
MARKS = ("<!-- preservation: benchmarks/preservation.py writes this table -->", "<!-- end of preservation -->")
OURS, STOCK, BACK, PASTED = (
    "**Paint by Example, this project**",
    "diffusers' pipeline, same weights",
    "diffusers' pipeline, pasted back",
    "copy and paste",
)
AMPLIFIED = 8
TILE_PX, CAPTION_PX = 200, 18
DRAWS = 2000

Method = Callable[[Case], Image]


@dataclass(frozen=True)
class Scores:
    """The scores of one result."""

    max_change: int
    changed: float  # share of the unmasked pixels
    background_psnr: float
    seam: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "data" / "photo-painter")
    parser.add_argument("--bench", type=Path, help="a folder of cases in COCOEE's layout")
    parser.add_argument("--num-cases", type=int, default=32)
    parser.add_argument("--num-steps", type=int, default=50)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    cases = list(_bench(options.bench, options.num_cases) if options.bench else _examples())
    methods = _methods(options.model, options.num_steps)
    results = {name: [method(case) for case in cases] for name, method in methods.items()}
    results[BACK] = [
        np.where(case.mask[..., None] == 1, stock, case.source)
        for case, stock in zip(cases, results[STOCK], strict=True)
    ]
    table = "\n".join(_table(cases, {name: results[name] for name in (OURS, STOCK, BACK, PASTED)}, options))
    print(table)
    if options.write:
        _write(options.write, table)
        picture = options.write.with_suffix(".jpg")
        shown = range(len(cases))[: len(EXAMPLES)]
        _differences(cases, results, shown).save(picture, quality=88, optimize=True)


def _examples() -> Iterator[Case]:
    for number, name in enumerate(EXAMPLES):
        folder = ROOT / "docs" / "examples" / name
        source, exemplar = read_source(folder / "source.jpg").shown, read_exemplar(folder / "exemplar.png")
        yield Case(number, source, read_mask(folder / "mask.png"), exemplar)


def _bench(folder: Path, num_cases: int) -> Iterator[Case]:
    bench = read_bench(folder)
    for case_id in bench.ids[:num_cases]:
        yield bench.case(case_id)


def _methods(model: Path, num_steps: int) -> dict[str, Method]:
    editor = Editor(Painter.from_pretrained(model))
    stock = StockPainter.load(model, PaintSettings("cpu", "fp32", "plms", num_steps, None, 2.0, call_size=1))
    options = EditOptions(num_steps=num_steps, sampler="plms")

    def ours(case: Case) -> Image:
        region = Region(case.mask, (Exemplar(case.exemplar),))
        return editor.edit(Edit(picture_of(case.source), (region,), case.id, options)).picture.shown

    return {
        OURS: ours,
        STOCK: lambda case: stock([Request(case, case.id)], options.guidance_scale)[0],
        PASTED: lambda case: copy_paste(case.source, case.mask, case.exemplar, np.random.default_rng(0)),
    }


def _table(cases: Sequence[Case], results: dict[str, list[Image]], options: argparse.Namespace) -> Iterator[str]:
    pictures = f"the first {len(cases)} cases of a bench" if options.bench else "the four photographs of docs/examples"
    settings = f"PLMS, {options.num_steps} steps, guidance 5, fp32 on a CPU"
    yield f"{pictures[0].upper()}{pictures[1:]}; {settings}."
    yield ""
    yield "| | largest change outside the mask, of 255 | unmasked pixels changed | background PSNR, dB | seam |"
    yield "|---|---|---|---|---|"
    for name, images in results.items():
        scores = [_score(image, case) for image, case in zip(images, cases, strict=True)]
        changed = np.mean([each.changed for each in scores])
        seams = np.array([each.seam for each in scores])
        low, high = _interval(seams)
        yield (
            f"| {name} | {max(each.max_change for each in scores)} | {100 * changed:.1f} % | "
            f"{np.mean([each.background_psnr for each in scores]):.1f} | {seams.mean():.2f} [{low:.2f}, {high:.2f}] |"
        )
    floor = np.mean([seam_visibility(case.source, case.mask) for case in cases])
    yield f"| the source, unedited | 0 | 0.0 % | 100.0 | {floor:.2f} |"


def _score(result: Image, case: Case) -> Scores:
    outside = background_of(case.mask)
    changed = float((result != case.source).any(-1)[outside].mean())
    return Scores(
        unmasked_max_abs_diff(result, case.source, case.mask),
        changed,
        psnr(result, case.source, outside),
        seam_visibility(result, case.mask),
    )


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    draws = np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    return float(low), float(high)


def _differences(cases: Sequence[Case], results: dict[str, list[Image]], shown: Sequence[int]) -> PillowImage.Image:
    """Draw source, result and amplified difference of ours and of diffusers' pipeline, a case a row."""
    captions = [
        "source and mask",
        "ours",
        f"difference x {AMPLIFIED}",
        "diffusers' pipeline",
        f"difference x {AMPLIFIED}",
    ]
    sheet = PillowImage.new("RGB", (TILE_PX * len(captions), CAPTION_PX + TILE_PX * len(shown)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, caption in enumerate(captions):
        draw.text((TILE_PX * column + 4, 2), caption, fill=(28, 30, 34))
    for row, number in enumerate(shown):
        case = cases[number]
        tiles = [_outlined(case.source, case.mask)]
        for name in (OURS, STOCK):
            result = results[name][number]
            tiles += [result, cv2.convertScaleAbs(cv2.absdiff(result, case.source), alpha=AMPLIFIED)]
        for column, tile in enumerate(tiles):
            sheet.paste(_tile(tile, case.mask), (TILE_PX * column, CAPTION_PX + TILE_PX * row))
    return sheet


def _outlined(source: Image, mask: Mask) -> Image:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(source.copy(), contours, -1, (255, 40, 40), 2), np.uint8)


def _tile(image: Image, mask: Mask) -> PillowImage.Image:
    """Cut a square of at most 300 px around the mask, so that large pictures show their mask."""
    side = min(300, *mask.shape)
    window = window_around(mask, side, 1.0)
    left, top = max(0, window.left), max(0, window.top)
    square = image[top : top + window.side, left : left + window.side]
    return PillowImage.fromarray(np.ascontiguousarray(square)).resize(
        (TILE_PX, TILE_PX), PillowImage.Resampling.LANCZOS
    )


def _write(page: Path, table: str) -> None:
    text = page.read_text()
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    write_text(page, f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""Draw teaser.png: the example photographs and, below, cases of the demo at several guidance scales.

    python docs/teaser.py                  # after `make demo`; --project FOLDER: another project's evaluation

The photographs are those of docs/examples with their results. The demo's cases are the first ones of its gallery
that were painted at every scale.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from pbe import layout
from pbe.dataset.images import read_image
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.names import METHOD
from pbe.evaluation.report.gallery import GalleryRow, case_captions, spread_cases, write_gallery_png
from pbe.method.windows import mask_box

HERE = Path(__file__).parent
TEASER = HERE / "teaser.png"
EXAMPLES = ("can", "pliers", "label")
SCALES = {"1": f"{METHOD}_guidance_1", "3": f"{METHOD}_guidance_3", "5": METHOD, "7": f"{METHOD}_guidance_7"}
NUM_CASES, WIDTH_PX = 3, 832


def photograph_row(name: str) -> GalleryRow:
    """Return the row of one of the example photographs."""
    folder = HERE / "examples" / name
    mask = np.array(PillowImage.open(folder / "mask.png")).astype(np.uint8)
    source, exemplar, result = (read_image(folder / file) for file in ("source.jpg", "exemplar.png", "result.png"))
    return GalleryRow(0, name, source, mask_box(mask), exemplar, (result,))


def demo_rows(project: Path) -> list[GalleryRow]:
    """Return the first rows of the gallery of a project's evaluation that have every result."""
    bench = read_bench(project / layout.BENCH)
    captions = dict(zip(bench.ids, case_captions(bench), strict=True))
    results = project / layout.EVALUATION / "results"
    rows = []
    for case_id in spread_cases(bench, len(bench)):
        files = [results / folder / f"{case_id:012d}.png" for folder in SCALES.values()]
        if all(file.is_file() for file in files):
            case, pictures = bench.case(case_id), tuple(map(read_image, files))
            rows.append(GalleryRow(case_id, captions[case_id], case.source, case.box, case.exemplar, pictures))
    return rows[:NUM_CASES]


def sheet(rows: Sequence[GalleryRow], columns: Sequence[str]) -> PillowImage.Image:
    """Return a contact sheet of WIDTH_PX pixels."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "sheet.png"
        write_gallery_png(rows, columns, path)
        drawn = PillowImage.open(path).convert("RGB")
    return drawn.resize((WIDTH_PX, round(drawn.height * WIDTH_PX / drawn.width)), PillowImage.Resampling.LANCZOS)


def main() -> None:
    """Write the teaser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path(), help="of the demo (default: this folder)")
    options = parser.parse_args()
    photographs = sheet([photograph_row(name) for name in EXAMPLES], ["the bundled painter"])
    demo = sheet(demo_rows(options.project), [f"guidance {scale}" for scale in SCALES])
    teaser = PillowImage.new("RGB", (WIDTH_PX, photographs.height + demo.height), "white")
    teaser.paste(photographs, (0, 0))
    teaser.paste(demo, (0, photographs.height))
    teaser.save(TEASER, optimize=True)


if __name__ == "__main__":
    main()

"""`pbe batch` paints many pictures with one model: the rows of a file, or every box of a data set."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pbe.errors import UserError
from pbe.serving.commands.evaluate import positive
from pbe.serving.commands.output_files import check_folder_of
from pbe.serving.commands.progress import progress_bar
from pbe.serving.commands.start_up import paused_collector

if TYPE_CHECKING:
    from pbe.method.painter import Painter
    from pbe.serving.batch.rows import Row

_EXAMPLE = """\
examples:
  pbe batch --rows rows.csv --out painted
  pbe batch --boxes photos --split train --exemplars tools --per-box 10 --out painted

rows.csv has a line for each picture: source,box,exemplar,label,seed or, instead of the box x0 y0 x1 y1, a mask.
Started again, a batch that was stopped paints what is missing. OUT/annotations/instances_train.json is a COCO file of
the painted boxes, OUT/errors.csv names the rows that could not be painted."""

FolderOf = Callable[[str | None], Path]  # a model's name, or None for the default -> its folder
Load = Callable[[Path, str, str], "Painter"]  # folder, device and precision -> the painter


def add_batch(parser: argparse.ArgumentParser, folder_of: FolderOf, load: Load) -> None:
    """Give `pbe batch` its arguments; the functions find and load a model."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EXAMPLE
    parser.set_defaults(command=lambda options: _batch(options, folder_of, load))
    add = parser.add_argument
    rows = parser.add_mutually_exclusive_group(required=True)
    rows.add_argument("--rows", type=Path, metavar="FILE", help="a CSV or JSONL file with a row for each picture")
    rows.add_argument(
        "--boxes", type=Path, metavar="FOLDER", help="a COCO or Pascal VOC folder: paint into every box of it"
    )
    add(
        "--exemplars", type=Path, metavar="FOLDER",
        help="with --boxes: images of objects; a folder in it names the label of its images",
    )  # fmt: skip
    add("--split", choices=("train", "validation", "test"), help="with --boxes: use only these images (default: all)")
    add(
        "--per-box", type=positive, metavar="N",
        help="with --boxes: draw N exemplars for each box (default: every exemplar into every box)",
    )  # fmt: skip
    add("--out", type=Path, required=True, metavar="FOLDER", help="a new folder, or that of a batch to continue")
    add("--model", help="as of pbe edit: a folder or a registered model (default: that of pbe edit)")
    add("--guidance-scale", type=float, default=5, metavar="S", help="similarity to the exemplar (default: 5)")
    add("--num-steps", type=int, default=50, metavar="N", help="number of sampling steps (default: 50)")
    add("--seed", type=int, default=0, metavar="N", help="of the first row without a seed; later rows count on")
    add("--device", default="auto", metavar="D", help="auto (a GPU if there is one), cpu, cuda or cuda:1")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="as of pbe edit (default: auto)")
    add("--max-magnification", type=float, default=2, metavar="M", help="as of pbe edit (default: 2)")


def _batch(options: argparse.Namespace, folder_of: FolderOf, load: Load) -> None:
    """Read the rows, load the model once, and paint; raises UserError at the end when rows could not be painted."""
    from pbe.serving.editor import check_options

    check_options(options.guidance_scale, options.num_steps, options.seed, options.max_magnification)
    check_folder_of(options.out)
    with paused_collector():
        rows = _rows(options)
        from pbe.serving.batch.painting import COCO, ERRORS, Options, paint_rows

        folder = folder_of(options.model)
        painter = load(folder, options.device, options.precision)
    how = Options(options.guidance_scale, options.num_steps, options.max_magnification, options.seed)
    with progress_bar("painting", len(rows), "picture") as on_row:
        counts = paint_rows(painter, rows, options.out, how, _conditions(painter, folder), on_row)
    kept = f", {counts.kept} were there" if counts.kept else ""
    print(f"{options.out / COCO}: {counts.painted} pictures painted{kept}")
    if counts.failed:
        raise UserError(f"{counts.failed} of {len(rows)} rows could not be painted; see {options.out / ERRORS}")


def _rows(options: argparse.Namespace) -> "list[Row]":
    from pbe.serving.batch.rows import read_rows

    if options.rows:
        if extra := [name for name in ("exemplars", "split", "per_box") if getattr(options, name) is not None]:
            raise UserError(f"--{extra[0].replace('_', '-')} belongs to --boxes; the rows name their exemplars")
        return read_rows(options.rows)
    if options.exemplars is None:
        raise UserError("--boxes needs --exemplars, a folder with images of objects")
    from pbe.serving.batch.boxes import rows_of_boxes

    rows = rows_of_boxes(options.boxes, options.exemplars, options.split, options.per_box, options.seed)
    print(f"{len(rows)} pictures to paint", file=sys.stderr)
    return rows


def _conditions(painter: "Painter", folder: Path) -> Mapping[str, Any]:
    """Return what decides the bits of a picture beside the options: the model's files, and how it computes."""
    from pbe.runtime.files import digest_folder

    weight = next(painter.parameters())
    precision = str(weight.dtype).removeprefix("torch.")
    return {"model": digest_folder(folder)[:16], "device": weight.device.type, "precision": precision}

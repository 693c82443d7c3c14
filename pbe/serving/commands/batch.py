"""`pbe batch` paints many pictures with one model: the rows of a file, or every box of a data set."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from pbe.errors import UserError
from pbe.serving.commands.flags import ModelFlags, PaintingFlags, Positive, Whole
from pbe.serving.commands.loading import choose_model, load_placed
from pbe.serving.commands.output_files import check_folder_of
from pbe.serving.commands.progress import progress_bar
from pbe.serving.commands.start_up import paused_collector

if TYPE_CHECKING:
    from pbe.method.painter import Painter
    from pbe.serving.batch.rows import Row

app = App(
    name="batch",
    help_epilogue="""\
examples:
  pbe batch --rows rows.csv --out painted
  pbe batch --boxes photos --split train --exemplars tools --per-box 10 \\
            --out painted

rows.csv has a line for each picture: source,box,exemplar,label,seed or, instead
of the box x0 y0 x1 y1, a mask. Started again, a batch that was stopped paints
what is missing. OUT/annotations/instances_train.json is a COCO file of the
painted boxes, OUT/errors.csv names the rows that could not be painted.""",
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RowFlags:
    """Which pictures to paint: one of --rows, --folder and --boxes."""

    rows: Annotated[Path | None, Parameter(metavar="FILE", help="a CSV or JSONL file with a row for each picture")] = (
        None
    )
    folder: Annotated[
        Path | None,
        Parameter(metavar="DIR", help="paint DIR/NAME/source.*, with mask.* and exemplar.* beside it, for each NAME"),
    ] = None
    boxes: Annotated[
        Path | None, Parameter(metavar="FOLDER", help="a COCO or Pascal VOC folder: paint into every box of it")
    ] = None
    exemplars: Annotated[
        Path | None,
        Parameter(
            metavar="FOLDER",
            help="with --boxes: images of objects; a folder in it names the label of its images",
        ),
    ] = None
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        Parameter(show_default="all", help="with --boxes: use only these images"),
    ] = None
    per_box: Annotated[
        Positive | None,
        Parameter(
            show_default="every exemplar into every box",
            help="with --boxes: draw N exemplars for each box",
        ),
    ] = None


@app.default
def batch(
    *,
    which: RowFlags = RowFlags(),  # cyclopts' form for a group of flags
    out: Annotated[Path, Parameter(metavar="FOLDER", help="a new folder, or that of a batch to continue")],
    seed: Annotated[Whole, Parameter(help="of the first row without a seed; later rows count on")] = 0,
    painting: PaintingFlags = PaintingFlags(),  # noqa: B008
    chosen: ModelFlags = ModelFlags(),  # noqa: B008
) -> None:
    """Read the rows, load the model once, and paint; raises UserError at the end when rows could not be painted."""
    from pbe.serving.edit_checks import check_seed

    options = painting.options()
    check_seed(seed)
    check_folder_of(out)
    with paused_collector():
        rows = _rows(which, seed)
        from pbe.serving.batch.painting import COCO, ERRORS, Options, paint_rows

        folder = choose_model(chosen.model).folder
        painter = load_placed(folder, chosen)
    with progress_bar("painting", len(rows), "picture") as on_row:
        counts = paint_rows(painter, rows, out, Options(options, seed), _conditions(painter, folder), on_row)
    kept = f", {counts.kept} were there" if counts.kept else ""
    print(f"{out / COCO}: {counts.painted} pictures painted{kept}")
    if counts.failed:
        raise UserError(f"{counts.failed} of {len(rows)} rows could not be painted; see {out / ERRORS}")


def _rows(which: RowFlags, seed: int) -> "list[Row]":
    """Return the rows of the one flag that names them."""
    given = [name for name in ("rows", "folder", "boxes") if getattr(which, name) is not None]
    if not given:
        raise UserError("one of the arguments --rows --folder --boxes is required")
    if len(given) > 1:
        raise UserError(f"argument --{given[1]}: not allowed with argument --{given[0]}")
    if which.boxes is not None:
        return _rows_of_boxes(which, which.boxes, seed)
    if extra := [name for name in ("exemplars", "split", "per_box") if getattr(which, name) is not None]:
        raise UserError(f"--{extra[0].replace('_', '-')} belongs to --boxes; the rows name their exemplars")
    from pbe.serving.batch.rows import read_rows

    if which.rows is not None:
        return read_rows(which.rows)
    from pbe.serving.batch.folders import rows_of_folder

    assert which.folder is not None
    return rows_of_folder(which.folder)


def _rows_of_boxes(which: RowFlags, boxes: Path, seed: int) -> "list[Row]":
    if which.exemplars is None:
        raise UserError("--boxes needs --exemplars, a folder with images of objects")
    from pbe.serving.batch.boxes import rows_of_boxes

    rows = rows_of_boxes(boxes, which.exemplars, which.split, which.per_box, seed)
    print(f"{len(rows)} pictures to paint", file=sys.stderr)
    return rows


def _conditions(painter: "Painter", folder: Path) -> Mapping[str, Any]:
    """Return what decides the bits of a picture beside the options: the model's files, and how it computes."""
    from pbe.runtime.files import digest_folder

    weight = next(painter.parameters())
    precision = str(weight.dtype).removeprefix("torch.")
    return {"model": digest_folder(folder)[:16], "device": weight.device.type, "precision": precision}

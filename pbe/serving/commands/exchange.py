"""`pbe import` and `pbe export`: models in the formats of other tools."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from pbe.errors import UserError
from pbe.runtime.files import atomic_folder
from pbe.serving.commands.loading import choose_model, load_painter
from pbe.serving.commands.model_choice import CHAMPION
from pbe.serving.commands.output_files import check_new

if TYPE_CHECKING:
    from pbe.method.painter import Painter

import_app = App(
    name="import",
    help_epilogue="""\
examples:
  pbe import --from model.ckpt --out models/authors
  pbe import --from models/pbe --adapter lora=0.8 --out models/merged""",
)
export_app = App(
    name="export",
    help_epilogue="""\
example:
  pbe export --model models/pbe --format ldm --out model.ckpt""",
)


@import_app.default
def import_model(
    *,
    origin: Annotated[
        Path,
        Parameter(name="--from", metavar="FILE_OR_FOLDER", help="the authors' model.ckpt, or a published folder"),
    ],
    out: Annotated[Path, Parameter(metavar="FOLDER", help="a new folder, such as models/authors")],
    adapter: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="FOLDER[=WEIGHT]",
            show_default=False,
            help="merge a trained adapter, times a weight (default: 1); may be given several times",
        ),
    ] = (),
) -> None:
    """Convert a model, and merge adapters into it."""
    if not origin.exists():
        raise UserError(f"--from {origin}: no such file or folder")
    adapters = [_weighted(text) for text in adapter]
    check_new(out)
    from pbe.interchange.ldm import read_ldm

    painter = load_painter(origin) if origin.is_dir() else read_ldm(origin)
    _merge(painter, adapters)
    with atomic_folder(out) as part:
        painter.save_pretrained(part)
    print(f"{out}: a model of {painter.image_px} px; use it with: pbe edit --model {out} ...")


@export_app.default
def export_model(
    *,
    model: Annotated[str, Parameter(metavar="MODEL", help="a model as for pbe edit")] = CHAMPION,
    format: Annotated[
        Literal["ldm", "diffusers"],
        Parameter(help="ldm: a checkpoint file like the authors'; diffusers: a folder like the published one"),
    ],
    out: Annotated[Path, Parameter(metavar="FILE_OR_FOLDER", help="a new file or folder")],
) -> None:
    """Convert a model to a format of other tools."""
    folder = choose_model(model).folder
    check_new(out)
    from pbe.interchange.folder import write_published
    from pbe.interchange.ldm import write_ldm

    painter = load_painter(folder)
    if format == "ldm":
        write_ldm(painter, out)
    else:
        with atomic_folder(out) as part:
            write_published(painter, part)
    inverted = "" if painter.mask_channel == "keep" else "; its mask channel is inverted, see docs/interchange.md"
    print(f"{out}: {format}{inverted}")


def _merge(painter: "Painter", adapters: list[tuple[Path, float]]) -> None:
    if not adapters:
        return
    from pbe.method.adapters import BASE, digest_painter, merge_adapter, read_adapter

    base = digest_painter(painter)
    for folder, weight in adapters:
        adapter = read_adapter(folder)
        if adapter.traits.get(BASE, base) != base:
            print(f"{folder}: was trained on other weights than these", file=sys.stderr)
        merge_adapter(painter, adapter, weight)


def _weighted(text: str) -> tuple[Path, float]:
    """Return folder and weight of FOLDER or FOLDER=WEIGHT; raises UserError unless the weight is a finite number."""
    folder, equals, weight = text.rpartition("=")
    if Path(text).is_dir() or not equals:
        return Path(text), 1.0
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"--adapter {text}: the weight {weight!r} is not a number")
    return Path(folder), number

"""The outputs of `pbe edit`: where each variant is written, the contact sheet, and what is printed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pbe.errors import UserError
from pbe.serving.commands.flags import Flag
from pbe.serving.commands.output_files import check_folder_of, check_image_file
from pbe.serving.commands.seeds import seeds_of

if TYPE_CHECKING:
    from pbe.serving.editor import Edited


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """What to write."""

    out: Annotated[
        Path | None,
        Parameter(
            metavar="PNG",
            help="the edited picture; .tif, .bmp, .webp and .jpg also work. With several seeds OUT-SEED.png, or a "
            "folder for SEED.png",
        ),
    ] = None
    seed: Annotated[
        tuple[int, ...],
        Parameter(
            converter=seeds_of,
            n_tokens=1,
            metavar="N",
            show_default="0",
            help="seed of the noise; 0..7 or 1,5,9 paints a variant for each",
        ),
    ] = (0,)
    sheet: Annotated[
        Flag, Parameter(help="also write a contact sheet of the source and all variants, OUT-sheet.png")
    ] = False
    preview: Annotated[
        Path | None,
        Parameter(metavar="PNG", help="write an image of the mask and its windows, and do not paint"),
    ] = None
    json: Annotated[Flag, Parameter(help="print a line of JSON for each result")] = False


@dataclass(frozen=True)
class Outputs:
    """The file of each seed, and of the contact sheet."""

    paths: dict[int, Path]
    sheet: Path | None


@dataclass(frozen=True)
class PaintedBy:
    """The model of a result: a registered model's name and version, `photo`, or a folder."""

    name: str
    version: str | None
    digest: str | None  # of the names and contents of its files; only for --json, since it takes time to compute

    def __str__(self) -> str:
        return f"{self.name} version {self.version}" if self.version else self.name


def checked_outputs(flags: OutputFlags) -> Outputs:
    """Return the files to write; raises UserError when one is missing or cannot be written."""
    if flags.out is None:
        raise UserError("the following arguments are required: --out")
    if len(flags.seed) == 1:
        check_image_file("--out", flags.out)
        paths, sheet = {flags.seed[0]: flags.out}, _named(flags.out, "sheet", ".png")
    elif flags.out.is_dir() or not flags.out.suffix:
        check_folder_of(flags.out)
        paths, sheet = {seed: flags.out / f"{seed}.png" for seed in flags.seed}, flags.out / "sheet.png"
    else:
        check_image_file("--out", flags.out)
        paths, sheet = {seed: _named(flags.out, str(seed)) for seed in flags.seed}, _named(flags.out, "sheet", ".png")
    for path in (*paths.values(), *([sheet] if flags.sheet else [])):
        if path.parent.exists():
            check_image_file("--out", path)
    return Outputs(paths, sheet if flags.sheet else None)


def result_line(path: Path, seed: int, model: PaintedBy, seconds: float) -> str:
    """Return what a person reads of a result: where it is and what painted it."""
    return f"{path}: painted by {model} with seed {seed} in {seconds:.1f} s"


def result_json(path: Path, seed: int, model: PaintedBy, seconds: float, edited: "Edited", notes: Sequence[str]) -> str:
    """Return what a program reads of a result, on one line."""
    return json.dumps(
        {
            "path": str(path),
            "seed": seed,
            "model": asdict(model),
            "seconds": round(seconds, 3),
            "digest": edited.digest,
            "changed_outside": edited.num_changed_outside,
            "notes": list(notes),
        },
        ensure_ascii=False,
    )


def _named(out: Path, ending: str, suffix: str | None = None) -> Path:
    return out.with_name(f"{out.stem}-{ending}{suffix or out.suffix}")

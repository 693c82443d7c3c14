"""The inputs of `pbe edit`: its arguments and images, checked before the model is loaded."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pbe.errors import UserError
from pbe.serving.commands.output_files import check_image_file

if TYPE_CHECKING:
    from pbe.serving.pictures import Picture
    from pbe.types import Image, Mask


def check_edit_arguments(arguments: argparse.Namespace) -> None:
    """Raise UserError when an argument is missing or out of range, or the output cannot be written."""
    from pbe.serving.editor import check_options

    needed = () if arguments.preview else ("exemplar", "out")
    if missing := [f"--{name}" for name in needed if getattr(arguments, name) is None]:
        raise UserError(f"the following arguments are required: {', '.join(missing)}")
    check_options(arguments.guidance_scale, arguments.num_steps, arguments.seed, arguments.max_magnification)
    check_image_file("--preview" if arguments.preview else "--out", arguments.preview or arguments.out)


def checked_source(arguments: argparse.Namespace) -> tuple["Picture", "Mask"]:
    """Return the source and the mask; raises UserError when one cannot be read or they do not fit together."""
    from pbe.serving.editor import check_mask, read_mask, read_source

    source, mask = read_source(arguments.source), read_mask(arguments.mask)
    if arguments.invert_mask:
        mask = 1 - mask
    check_mask(mask, source.shown, mask_name=f"mask {arguments.mask}", source_name=f"source {arguments.source}")
    return source, mask


def checked_exemplar(arguments: argparse.Namespace, source: "Picture", mask: "Mask") -> "Image":
    """Return the exemplar; print what the result will not keep of the source."""
    from pbe.serving.editor import read_exemplar
    from pbe.serving.pictures import FORMATS, check_size, losses

    exemplar = read_exemplar(arguments.exemplar, f"exemplar {arguments.exemplar}")
    out_format = FORMATS[arguments.out.suffix.lower()]
    check_size(source, out_format, f"--out {arguments.out}")
    print_notes(losses(source, out_format, mask))
    return exemplar


def print_notes(notes: Sequence[str]) -> None:
    """Print notes on stderr, one a line."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)

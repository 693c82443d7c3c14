"""The inputs of `pbe edit`: its flags and images, checked before the model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pbe.errors import UserError
from pbe.serving.commands.flags import Flag

if TYPE_CHECKING:
    from pbe.serving.editor import Region
    from pbe.serving.pictures import Picture
    from pbe.types import Mask


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class InputFlags:
    """What to paint where."""

    source: Annotated[Path, Parameter(metavar="IMAGE", help="the picture to edit")]
    mask: Annotated[Path | None, Parameter(metavar="IMAGE", help="white where to repaint; same size as the source")] = (
        None
    )
    exemplar: Annotated[
        tuple[Path, ...],
        Parameter(
            metavar="IMAGE",
            show_default=False,
            help="a picture of the object to paint; several pictures of one object may be given",
        ),
    ] = ()
    exemplar_mask: Annotated[
        tuple[Path, ...],
        Parameter(
            metavar="IMAGE",
            show_default=False,
            help="white where the exemplar shows the object, and nothing else is looked at; one for each --exemplar",
        ),
    ] = ()
    region: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="MASK=EXEMPLAR[,EXEMPLAR]",
            show_default=False,
            help="another mask with the pictures of its own object, EXEMPLAR@ITS_MASK for one with a mask; "
            "may be given several times, also without --mask",
        ),
    ] = ()
    invert_mask: Annotated[Flag, Parameter(help="repaint where the masks are black instead")] = False


@dataclass(frozen=True)
class RegionFiles:
    """The files of one region: its mask, and (exemplar, mask of the exemplar)."""

    mask: Path
    exemplars: tuple[tuple[Path, Path | None], ...]


def region_files(flags: InputFlags, *, needs_exemplar: bool) -> list[RegionFiles]:
    """Return the files of every region, --mask first; raises UserError when a flag is missing or does not fit."""
    missing = ["--mask"] if flags.mask is None and (flags.exemplar or not flags.region) else []
    missing += ["--exemplar"] if flags.mask is not None and not flags.exemplar and needs_exemplar else []
    if missing:
        raise UserError(f"the following arguments are required: {', '.join(missing)}")
    if flags.exemplar_mask and len(flags.exemplar_mask) != len(flags.exemplar):
        counts = f"{len(flags.exemplar_mask)} for {len(flags.exemplar)} --exemplar"
        raise UserError(f"--exemplar-mask: {counts}; give one for each, or none")
    masks = flags.exemplar_mask or [None] * len(flags.exemplar)
    first = [RegionFiles(flags.mask, tuple(zip(flags.exemplar, masks, strict=True)))] if flags.mask else []
    return [*first, *map(_region_of, flags.region)]


def read_masks(files: Sequence[RegionFiles], source: "Picture", flags: InputFlags) -> "list[Mask]":
    """Return each region's mask; raises UserError when one cannot be read or does not fit the source."""
    from pbe.serving.editor import check_mask, read_mask

    masks = []
    for each in files:
        mask = 1 - read_mask(each.mask) if flags.invert_mask else read_mask(each.mask)
        check_mask(mask, source.shown, mask_name=f"mask {each.mask}", source_name=f"source {flags.source}")
        masks.append(mask)
    return masks


def union(masks: "Sequence[Mask]") -> "Mask":
    """Return the mask (H, W) of what any of them marks."""
    import numpy as np

    return np.asarray(np.maximum.reduce(masks), np.uint8)


def read_regions(files: Sequence[RegionFiles], masks: "Sequence[Mask]") -> "tuple[Region, ...]":
    """Return the regions with their exemplars; raises UserError when an exemplar or its mask cannot be used."""
    from pbe.serving.batch.exemplars import read_masked_exemplar
    from pbe.serving.editor import Region

    return tuple(
        Region(mask, tuple(read_masked_exemplar(*pair) for pair in each.exemplars))
        for each, mask in zip(files, masks, strict=True)
    )


def _region_of(text: str) -> RegionFiles:
    """Return the files of MASK=EXEMPLAR[@ITS_MASK][,EXEMPLAR...]; raises UserError for another text."""
    mask, _, exemplars = text.partition("=")
    parts = [exemplars] if Path(exemplars).is_file() else exemplars.split(",")
    if not mask or not all(parts):
        raise UserError(f"--region {text}: give MASK=EXEMPLAR, or MASK=EXEMPLAR,EXEMPLAR for pictures of one object")
    return RegionFiles(Path(mask), tuple(map(_exemplar_files, parts)))


def _exemplar_files(text: str) -> tuple[Path, Path | None]:
    file, at, mask = text.rpartition("@")
    return (Path(file), Path(mask)) if at and file and mask and not Path(text).is_file() else (Path(text), None)

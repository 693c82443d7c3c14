"""Edit one image of any size, with any mask and any exemplar. In masks 1 = repaint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pbe.dataset.mask_images import decode_mask
from pbe.dataset.opened_images import read_bytes_of
from pbe.errors import UserError
from pbe.method.close_up import MAX_MAGNIFICATION
from pbe.method.exemplars import resize
from pbe.method.regions import cut_regions, find_regions, put_back_regions, region_seeds
from pbe.serving.pictures import Picture, decode_picture, edited_picture
from pbe.types import Image, Mask, Progress

MAX_STEPS = 1000  # the diffusion's number of timesteps
MAX_SEED = 2**63 - 1
MAX_GUIDANCE_SCALE = 50  # far above what any model is used with; beyond it every colour saturates
MAX_BATCH = 4  # windows that are painted together


class SupportsPaint(Protocol):
    """The part of pbe.method.painter.Painter that the editor uses."""

    @property
    def image_px(self) -> int: ...

    @property
    def exemplar_px(self) -> int: ...

    def paint(
        self,
        sources: NDArray[np.uint8],
        masks: NDArray[np.uint8],
        exemplars: NDArray[np.uint8],
        *,
        guidance_scale: float = 5.0,
        num_steps: int = 50,
        seeds: Sequence[int],
        on_step: Progress | None = None,
    ) -> NDArray[np.uint8]: ...


def edit(
    painter: SupportsPaint,
    source: Image,
    mask: Mask,
    exemplar: Image,
    *,
    guidance_scale: float = 5.0,
    num_steps: int = 50,
    seed: int = 0,
    max_magnification: float = MAX_MAGNIFICATION,
    on_step: Progress | None = None,
) -> Image:
    """Paint the exemplar's object into the masked part of the source.

    source (H, W, 3) and exemplar (h, w, 3) are uint8 of any sizes; the exemplar is resized to a square, as in the
    official code. mask (H, W) is 0/1 or bool; each of its regions is painted through its own window and specks are
    left out (see `regions`), and a small region is magnified by up to `max_magnification` (see `close_up`). Returns
    (H, W, 3) uint8, bit-identical to the source where mask == 0. Raises UserError when an array has another shape or
    type, the mask has another size or marks nothing, or an option is out of range.
    """
    check_options(guidance_scale, num_steps, seed, max_magnification)
    check_image(source, "source")
    check_image(exemplar, "exemplar")
    check_mask(mask, source)
    regions = find_regions(mask.astype(np.uint8), painter.image_px, max_magnification)
    cuts = cut_regions(source, regions, painter.image_px)
    square = resize(exemplar, painter.exemplar_px, painter.exemplar_px)
    seeds = region_seeds(seed, regions)
    batches = [range(start, min(start + MAX_BATCH, len(cuts))) for start in range(0, len(cuts), MAX_BATCH)]
    painted: list[Image] = []
    for number, batch in enumerate(batches):
        painted += list(
            painter.paint(
                np.stack([cuts[i].source for i in batch]),
                np.stack([cuts[i].mask for i in batch]),
                np.stack([square] * len(batch)),
                guidance_scale=guidance_scale,
                num_steps=num_steps,
                seeds=[seeds[i] for i in batch],
                on_step=on_step and _part_of(on_step, number, len(batches)),
            )
        )
    return put_back_regions(source, regions, painted)


def edit_picture(
    painter: SupportsPaint,
    source: Picture,
    mask: Mask,
    exemplar: Image,
    *,
    max_magnification: float = MAX_MAGNIFICATION,
    **options: Any,
) -> Picture:
    """Paint into a picture as `edit` does, with its options, and keep what its file carries (see `pictures`)."""
    edited = edit(painter, source.shown, mask, exemplar, max_magnification=max_magnification, **options)
    kept = find_regions(mask, painter.image_px, max_magnification).mask
    return edited_picture(source, edited, kept)


def read_mask(file: Path | bytes, name: str | None = None) -> Mask:
    """Read a mask from a file or its bytes; raises what `pbe.dataset.mask_images.read_mask` raises."""
    return decode_mask(_bytes_of(file), name or _name_of(file, "mask"))


def read_source(file: Path | bytes, name: str | None = None) -> Picture:
    """Read a source from a file or its bytes; raises what `pbe.dataset.images.read_image` raises."""
    return decode_picture(_bytes_of(file), name or _name_of(file, "source"))


def read_exemplar(file: Path | bytes, name: str | None = None) -> Image:
    """Read an exemplar, over white; raises UserError as `read_source` does, and when it is fully transparent."""
    name = name or _name_of(file, "exemplar")
    picture = decode_picture(_bytes_of(file), name)
    if picture.mode in ("RGBA", "LA") and not picture.pixels[..., -1].any():
        raise UserError(f"{name} is fully transparent: give an image that shows the object")
    return picture.shown


def mask_notes(mask: Mask, image_px: int, max_magnification: float = MAX_MAGNIFICATION) -> list[str]:
    """Return what the user should know of how a mask is painted: specks that are left out, and many regions."""
    regions = find_regions(mask, image_px, max_magnification)
    notes = []
    if regions.num_specks:
        specks = f"{regions.num_specks} specks" if regions.num_specks > 1 else "1 speck"
        notes.append(f"not painted: {specks} of the mask, at most {regions.speck_px} x {regions.speck_px} px")
    if len(regions.windows) > 1:
        notes.append(f"the mask has {len(regions.windows)} regions; each gets its own object (--preview shows them)")
    return notes


def _part_of(on_step: Progress, number: int, num_batches: int) -> Progress:
    def show(done: int, total: int, note: str = "") -> None:
        on_step(number * total + done, num_batches * total)

    return show


def _bytes_of(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else read_bytes_of(file)


def _name_of(file: Path | bytes, default: str) -> str:
    return default if isinstance(file, bytes) else str(file)


def check_options(
    guidance_scale: float, num_steps: int, seed: int, max_magnification: float = MAX_MAGNIFICATION
) -> None:
    """Raise UserError naming the first option that is out of range, and its value."""
    if not 0 <= guidance_scale <= MAX_GUIDANCE_SCALE:  # NaN is refused as well
        limits = f"from 0 to {MAX_GUIDANCE_SCALE} (1 is no guidance)"
        raise UserError(f"guidance scale is {guidance_scale:g}: give a number {limits}")
    if not (isinstance(num_steps, int | np.integer) and 1 <= num_steps <= MAX_STEPS):
        raise UserError(f"number of steps is {num_steps}: give a whole number from 1 to {MAX_STEPS}")
    if not (isinstance(seed, int | np.integer) and 0 <= seed <= MAX_SEED):
        raise UserError(f"seed is {seed}: give a whole number from 0 to {MAX_SEED}")
    if not 1 <= max_magnification <= 16:
        raise UserError(f"magnification is {max_magnification:g}: give a number from 1 (none) to 16")


def check_image(image: Image, name: str) -> None:
    """Raise UserError unless an image is an array (H, W, 3) of uint8 with at least one pixel."""
    if not isinstance(image, np.ndarray):
        raise UserError(f"{name} is {type(image).__name__}: give a NumPy array (H, W, 3) of uint8")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UserError(f"{name} is {image.shape} of {image.dtype}: give (H, W, 3) uint8, RGB from 0 to 255")


def check_mask(mask: Mask, source: Image, *, mask_name: str = "mask", source_name: str = "source") -> None:
    """Raise UserError when the mask (H, W) has another size than the source, is not 0/1, or marks no pixel."""
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "bui":
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise UserError(f"{mask_name} is {kind}: give a NumPy array (H, W) of uint8, 0 or 1, or of bool")
    if mask.shape != source.shape[:2]:
        if mask.ndim != 2:
            raise UserError(f"{mask_name} has the shape {mask.shape}: give (H, W)")
        raise UserError(f"{mask_name} is {_size(mask)} but {source_name} is {_size(source)}: give both the same size")
    if mask.max(initial=0) > 1 or mask.min(initial=0) < 0:
        worst = mask.max() if mask.max() > 1 else mask.min()
        raise UserError(f"{mask_name} holds the value {worst}: a mask is 0 or 1")
    if not mask.any():
        raise UserError(f"{mask_name} marks nothing: make it white (above 127) where to repaint the source")


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"

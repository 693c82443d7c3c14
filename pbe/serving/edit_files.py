"""The files of an edit: source, mask and exemplar, from a path or from bytes."""

from pathlib import Path

from pbe.dataset.mask_images import decode_mask
from pbe.dataset.opened_images import read_bytes_of
from pbe.errors import UserError
from pbe.serving.pictures import Picture, decode_picture
from pbe.types import Image, Mask


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


def _bytes_of(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else read_bytes_of(file)


def _name_of(file: Path | bytes, default: str) -> str:
    return default if isinstance(file, bytes) else str(file)

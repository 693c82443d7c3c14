"""Pictures with all that their files carry: what an edit does not change is kept, or reported before painting.

The network paints 8-bit RGB over white. The edited file keeps the source's opacity, greyscale and 16-bit grey levels,
and its colour profile, so that unmasked colours look the same and not only have the same numbers. EXIF, XMP, resolution
and PNG text are kept as well; the orientation is applied to the pixels and removed from EXIF. What a file format or
this module cannot keep is returned as notes.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from pbe.dataset.images import eight_bits, to_rgb
from pbe.dataset.opened_images import (
    DAMAGED,
    RefusedImageError,
    is_sixteen_bit,
    opened_image,
    read_bytes_of,
    reason_of,
    upright,
)
from pbe.dataset.png_text import without_text
from pbe.errors import UserError
from pbe.runtime.files import atomic_file
from pbe.serving.picture_metadata import XMP_TEXT, Metadata, fits, metadata_of
from pbe.types import Image, Mask

FORMATS = {
    ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP",
}  # fmt: skip
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
}
_MODES = {
    "PNG": ("RGB", "RGBA", "L", "LA", "I;16"),
    "TIFF": ("RGB", "RGBA", "L", "LA", "I;16"),
    "BMP": ("RGB", "L"),
    "JPEG": ("RGB", "L"),
    "WEBP": ("RGB", "RGBA"),
}
_KEEPS = {
    "PNG": {"colour profile", "EXIF", "XMP", "resolution", "text", "gamma"},
    "TIFF": {"colour profile", "EXIF", "XMP", "resolution"},
    "BMP": {"resolution"},
    "JPEG": {"colour profile", "EXIF", "XMP", "resolution"},
    "WEBP": {"colour profile", "EXIF", "XMP"},
}
_OTHER_PIXELS = "the source's colour profile does not fit its pixels and is not kept"
_ROWS_AT_ONCE = 256  # comparisons of large pictures need little memory
_MOST_PX = {"JPEG": 65500, "WEBP": 16383}


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright."""

    shown: Image  # (H, W, 3) uint8 RGB, over white
    pixels: NDArray[Any]  # (H, W) or (H, W, C) in `mode`
    mode: str  # RGB, RGBA, L, LA or I;16
    metadata: Metadata
    notes: tuple[str, ...]  # what no edited file can keep


def read_picture(path: Path) -> Picture:
    """Read an image file with its metadata; raises what `pbe.dataset.images.read_image` raises."""
    return decode_picture(read_bytes_of(path), str(path))


def decode_picture(data: bytes, name: str) -> Picture:
    """Decode the bytes of an image file as `read_picture` does; errors call it `name`."""
    shorter = without_text(data)
    try:
        picture = _decode(data, name)
    except RefusedImageError:
        raise
    except UserError:
        if shorter is data:
            raise
        picture = _decode(shorter, name)
    if shorter is data or picture.metadata.text or picture.metadata.profile or _OTHER_PIXELS in picture.notes:
        return picture
    return replace(picture, notes=(*picture.notes, "the source's text or colour profile is too large to keep"))


def _decode(data: bytes, name: str) -> Picture:
    with opened_image(io.BytesIO(data), name) as opened:
        try:
            opened.load()
            bits = _bits_per_channel(opened, data)
            image = upright(opened)
            shown = np.array(eight_bits(to_rgb(image)).convert("RGB"), np.uint8)
            kept = _in_kept_mode(image)
            metadata = metadata_of(opened, image, kept.mode, data)
        except DAMAGED as error:
            raise UserError(f"{name}: cannot be decoded as an image: {reason_of(error)}") from None
    return Picture(shown, np.array(kept), kept.mode, metadata, tuple(_reading_notes(image, kept.mode, bits)))


def edited_picture(picture: Picture, edited: Image, mask: Mask) -> Picture:
    """Return the picture with the edited pixels (H, W, 3) where the mask (H, W) is 1, opaque."""
    pixels, where = picture.pixels.copy(), mask == 1
    if picture.mode in ("RGB", "RGBA"):
        pixels[where, :3] = edited[where]
    else:
        grey = np.asarray(PillowImage.fromarray(edited).convert("L"))[where]
        if picture.mode == "LA":
            pixels[where, 0] = grey
        else:
            pixels[where] = grey.astype(np.uint16) * 257 if picture.mode == "I;16" else grey
    if picture.mode in ("RGBA", "LA"):
        pixels[where, -1] = 255
    return Picture(edited, pixels, picture.mode, picture.metadata, picture.notes)


def count_changed(before: Picture, after: Picture, mask: Mask) -> int:
    """Return how many pixels differ outside of the mask (H, W), of two pictures of one mode."""
    changed = 0
    for start in range(0, len(mask), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        differs = before.pixels[rows] != after.pixels[rows]
        changed += int(((differs.any(-1) if differs.ndim == 3 else differs) & (mask[rows] == 0)).sum())
    return changed


def losses(picture: Picture, out_format: str, mask: Mask | None = None) -> list[str]:
    """Return what an edited file of this format will not keep of the source, as notes for the user."""
    notes = list(picture.notes)
    if picture.mode in ("L", "LA", "I;16") and _written_mode(picture.mode, out_format) != "RGB":
        notes.append("the source is greyscale, so the result is greyscale; convert it to RGB to paint in colour")
    if picture.mode not in _MODES[out_format]:
        notes += _mode_losses(picture.mode, out_format)
    missing = [kind for kind, present in picture.metadata.kinds().items() if present and kind not in _KEEPS[out_format]]
    if missing:
        notes.append(f"{out_format} does not keep the source's {' and '.join(missing)}; PNG does")
    if mask is not None and picture.mode in ("RGBA", "LA") and (picture.pixels[mask == 1, -1] < 255).any():
        notes.append("the mask marks transparent pixels, which become opaque")
    if out_format == "JPEG":
        notes.append("JPEG changes unmasked pixels slightly; PNG does not")
    return notes


def check_size(picture: Picture, out_format: str, name: str) -> None:
    """Raise UserError when a format cannot hold a picture of this size; `name` is the file to write."""
    longest = max(picture.shown.shape[:2])
    if longest > _MOST_PX.get(out_format, longest):
        raise UserError(f"{name}: {longest} px are more than the {_MOST_PX[out_format]} px of {out_format}; use .png")


def write_picture(picture: Picture, path: Path) -> None:
    """Write a picture with its metadata in the format of the path's suffix, complete or not at all."""
    with atomic_file(path) as part:
        _save(picture, part, FORMATS[path.suffix.lower()])


def encode_png(picture: Picture) -> bytes:
    """Return the bytes of a PNG file of the picture with its metadata."""
    return encode_picture(picture, "PNG")


def encode_picture(picture: Picture, out_format: str) -> bytes:
    """Return the bytes of a file of the picture with its metadata, in one of the values of FORMATS."""
    stream = io.BytesIO()
    _save(picture, stream, out_format)
    return stream.getvalue()


def _save(picture: Picture, file: Path | io.BytesIO, out_format: str) -> None:
    mode = _written_mode(picture.mode, out_format)
    image = PillowImage.fromarray(picture.shown if mode == "RGB" else picture.pixels)
    if mode != image.mode:
        image = eight_bits(image).convert(mode)
    metadata, kept = picture.metadata, _KEEPS[out_format]
    options: dict[str, Any] = dict(_OPTIONS.get(out_format, {}))
    if metadata.profile and "colour profile" in kept and fits(metadata.profile, mode):
        options["icc_profile"] = metadata.profile
    if metadata.exif and "EXIF" in kept:
        options["exif"] = metadata.exif
    if metadata.dpi and "resolution" in kept:
        options["dpi"] = metadata.dpi if out_format in ("PNG", "TIFF") else tuple(map(round, metadata.dpi))
    if out_format == "PNG":
        options["pnginfo"] = _png_info(metadata)
    elif metadata.xmp and "XMP" in kept:
        options |= {"tiffinfo": {700: metadata.xmp}} if out_format == "TIFF" else {"xmp": metadata.xmp}
    image.save(file, format=out_format, **options)


def _png_info(metadata: Metadata) -> PngInfo | None:
    info = PngInfo()
    for kind, data in metadata.gamma_chunks:
        info.add(kind, data)
    for key, value in metadata.text.items():
        info.add_text(key, value)
    if metadata.xmp and XMP_TEXT not in metadata.text:
        info.add_itxt(XMP_TEXT, metadata.xmp.decode("utf-8", "replace"))
    return info if info.chunks else None


def _written_mode(mode: str, out_format: str) -> str:
    if mode in _MODES[out_format]:
        return mode
    return "L" if mode in ("LA", "I;16") and "L" in _MODES[out_format] else "RGB"


def _mode_losses(mode: str, out_format: str) -> Iterator[str]:
    if mode in ("RGBA", "LA"):
        yield f"{out_format} has no transparency: transparent pixels become white; PNG keeps them"
    if mode == "I;16":
        yield f"the source has 16 bits a channel and {out_format} has 8; PNG keeps 16"
    if "L" not in _MODES[out_format] and mode in ("L", "LA", "I;16"):
        yield f"{out_format} has no greyscale: the result is RGB"


def _in_kept_mode(image: PillowImage.Image) -> PillowImage.Image:
    if is_sixteen_bit(image):
        return image
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba.convert("LA") if grey else rgba
    return image.convert("L" if grey else "RGB")


def _reading_notes(image: PillowImage.Image, kept_mode: str, bits: int) -> Iterator[str]:
    if image.mode == "CMYK":
        yield "the source is CMYK: the result is RGB, whose colours differ; convert it to RGB to control how"
    if bits > 8 and kept_mode != "I;16":
        yield f"the source has {bits} bits a channel: the result has 8"
    if kept_mode == "I;16" and "transparency" in image.info:
        yield "the source's transparent grey level is not kept"
    profile = image.info.get("icc_profile") or b""
    if profile and image.mode != "CMYK" and not fits(profile, kept_mode):
        yield _OTHER_PIXELS


def _bits_per_channel(opened: PillowImage.Image, data: bytes) -> int:
    if opened.format == "PNG" and len(data) > 24:
        return data[24]
    if opened.format == "TIFF":
        return int(max(opened.tag_v2.get(258, (8,))))  # type: ignore[attr-defined]
    return 8

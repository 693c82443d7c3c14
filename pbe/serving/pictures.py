"""Pictures with all that their files carry: what an edit does not change is kept, or reported before painting.

The network paints 8-bit RGB over white. The edited file keeps the source's opacity, greyscale and 16-bit grey levels,
and its colour profile, so that unmasked colours look the same and not only have the same numbers. EXIF, XMP, resolution
and PNG text are kept as well; the orientation is applied to the pixels and removed from EXIF. What a file format or
this module cannot keep is returned as notes.
"""

import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngImageFile, PngInfo

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
_MOST_PX = {"JPEG": 65500, "WEBP": 16383}

_ORIENTATION, _EXIF_IFD, _PIXEL_WIDTH, _PIXEL_HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003
_LAYOUT_TAGS = frozenset(  # how the source's TIFF stores its pixels, and what is carried elsewhere: size, XMP, profile
    (254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 280, 281, 282, 283, 284, 296, 317, 320, 322, 323,
     324, 325, 330, 338, 339, 347, 512, 513, 514, 529, 530, 531, 532, 700, 34377, 34675)
)  # fmt: skip
_XMP_TEXT = "XML:com.adobe.xmp"
_RAW_PROFILES = "Raw profile type "  # EXIF and others as ImageMagick writes them: Pillow reads them into EXIF
_PROFILE_SPACES = {b"RGB ": ("RGB", "RGBA"), b"GRAY": ("L", "LA", "I;16")}
_OTHER_PIXELS = "the source's colour profile does not fit its pixels and is not kept"
_GAMMA_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")


@dataclass(frozen=True)
class Metadata:
    """What a file says beside its pixels; empty values where it says nothing."""

    profile: bytes = b""  # ICC
    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    text: dict[str, str] = field(default_factory=dict)
    gamma_chunks: tuple[tuple[bytes, bytes], ...] = ()  # of a PNG that describes its colours without a profile

    def kinds(self) -> dict[str, bool]:
        """Return which kinds of metadata there are."""
        return {
            "colour profile": bool(self.profile), "EXIF": bool(self.exif), "XMP": bool(self.xmp),
            "resolution": self.dpi is not None, "text": bool(self.text), "gamma": bool(self.gamma_chunks),
        }  # fmt: skip


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
            metadata = _metadata(opened, image, kept.mode, data)
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
    stream = io.BytesIO()
    _save(picture, stream, "PNG")
    return stream.getvalue()


def _save(picture: Picture, file: Path | io.BytesIO, out_format: str) -> None:
    mode = _written_mode(picture.mode, out_format)
    image = PillowImage.fromarray(picture.shown if mode == "RGB" else picture.pixels)
    if mode != image.mode:
        image = eight_bits(image).convert(mode)
    metadata, kept = picture.metadata, _KEEPS[out_format]
    options: dict[str, Any] = dict(_OPTIONS.get(out_format, {}))
    if metadata.profile and "colour profile" in kept and _fits(metadata.profile, mode):
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
    if metadata.xmp and _XMP_TEXT not in metadata.text:
        info.add_itxt(_XMP_TEXT, metadata.xmp.decode("utf-8", "replace"))
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
    if profile and image.mode != "CMYK" and not _fits(profile, kept_mode):
        yield _OTHER_PIXELS


def _bits_per_channel(opened: PillowImage.Image, data: bytes) -> int:
    if opened.format == "PNG" and len(data) > 24:
        return data[24]
    if opened.format == "TIFF":
        return int(max(opened.tag_v2.get(258, (8,))))  # type: ignore[attr-defined]
    return 8


def _fits(profile: bytes, mode: str) -> bool:
    """Return whether an ICC profile describes pixels of this mode."""
    return mode in _PROFILE_SPACES.get(profile[16:20], ())


def _metadata(opened: PillowImage.Image, image: PillowImage.Image, mode: str, data: bytes) -> Metadata:
    """Collect what the file says; `image` is `opened`, upright."""
    profile = image.info.get("icc_profile") or b""
    text = dict(opened.text) if isinstance(opened, PngImageFile) else {}
    xmp = image.info.get("xmp") or b""
    if _XMP_TEXT in text:
        text[_XMP_TEXT] = _text_like(text[_XMP_TEXT], image.info.get(_XMP_TEXT))
        xmp = text[_XMP_TEXT].encode()
    return Metadata(
        profile=profile if _fits(profile, mode) else b"",
        exif=_exif(image),
        xmp=xmp if isinstance(xmp, bytes) else b"",
        dpi=_dpi(image.info.get("dpi")),
        text={key: value for key, value in text.items() if not key.startswith(_RAW_PROFILES)},
        gamma_chunks=() if profile or opened.format != "PNG" else tuple(_gamma_chunks(data)),
    )


def _text_like(text: Any, upright_text: object) -> Any:
    """Return the text without the orientation that `upright` has removed, of the same class."""
    if not isinstance(upright_text, str) or upright_text == text:
        return text
    lang, key = getattr(text, "lang", ""), getattr(text, "tkey", "")
    return type(text)(upright_text, lang, key) if hasattr(text, "lang") else upright_text


def _exif(image: PillowImage.Image) -> bytes:
    """Return EXIF of upright pixels; nothing when it cannot be read."""
    try:
        exif = image.getexif()
        for tag in (*_LAYOUT_TAGS, _ORIENTATION):
            if tag in exif:
                del exif[tag]
        details = exif.get_ifd(_EXIF_IFD)
        if _PIXEL_WIDTH in details and _PIXEL_HEIGHT in details:
            details[_PIXEL_WIDTH], details[_PIXEL_HEIGHT] = image.size
        return exif.tobytes() if len(exif) else b""
    except (*DAMAGED, KeyError, TypeError, AttributeError):
        return b""


def _dpi(value: object) -> tuple[float, float] | None:
    try:
        x, y = (float(number) for number in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(number) and 0 < number < 1e6 for number in (x, y)) else None


def _gamma_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the content of the PNG chunks before the pixels that say how to show the colours."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            return
        if kind in _GAMMA_CHUNKS:
            yield kind, data[at + 8 : at + 8 + length]
        at += length + 12

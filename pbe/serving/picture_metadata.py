"""What an image file says beside its pixels: colour profile, EXIF, XMP, resolution, text and gamma.

The orientation is left out, since `pictures` applies it to the pixels, and so are the tags that say how a TIFF stores
its pixels, and the thumbnail, which shows the picture before the edit.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngImageFile

from pbe.dataset.opened_images import DAMAGED

_ORIENTATION, _EXIF_IFD, _PIXEL_WIDTH, _PIXEL_HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003
_LAYOUT_TAGS = frozenset(  # how the source's TIFF stores its pixels, and what is carried elsewhere: size, XMP, profile
    (254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 280, 281, 282, 283, 284, 296, 317, 320, 322, 323,
     324, 325, 330, 338, 339, 347, 512, 513, 514, 529, 530, 531, 532, 700, 34377, 34675)
)  # fmt: skip
XMP_TEXT = "XML:com.adobe.xmp"
_RAW_PROFILES = "Raw profile type "  # EXIF and others as ImageMagick writes them: Pillow reads them into EXIF
_PROFILE_SPACES = {b"RGB ": ("RGB", "RGBA"), b"GRAY": ("L", "LA", "I;16")}
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
            "resolution": self.dpi is not None, "text": bool(self.text.keys() - {XMP_TEXT}),
            "gamma": bool(self.gamma_chunks),
        }  # fmt: skip


def fits(profile: bytes, mode: str) -> bool:
    """Return whether an ICC profile describes pixels of this mode."""
    return mode in _PROFILE_SPACES.get(profile[16:20], ())


def metadata_of(opened: PillowImage.Image, image: PillowImage.Image, mode: str, data: bytes) -> Metadata:
    """Collect what the file says; `image` is `opened`, upright."""
    profile = image.info.get("icc_profile") or b""
    text = dict(opened.text) if isinstance(opened, PngImageFile) else {}
    xmp = image.info.get("xmp") or b""
    if XMP_TEXT in text:
        text[XMP_TEXT] = _text_like(text[XMP_TEXT], image.info.get(XMP_TEXT))
        xmp = text[XMP_TEXT].encode()
    return Metadata(
        profile=profile if fits(profile, mode) else b"",
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

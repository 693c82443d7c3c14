"""Damaged inputs of an edit: files whose bytes or sizes are wrong, and arrays of every kind."""

import io
import random
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.errors import UserError
from pbe.serving.editor import (
    Edit,
    EditOptions,
    Editor,
    Exemplar,
    Region,
    check_mask,
    read_exemplar,
    read_mask,
    read_source,
)
from pbe.serving.pictures import FORMATS, check_size, encode_png, losses, write_picture

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")
_KINDS = 5 * ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP") + ("EPS", "PPM", "TGA")


class FlatPainter:
    """Paints one level and checks what it is given."""

    image_px, exemplar_px = 16, 8

    def paint(
        self, sources: NDArray[np.uint8], masks: NDArray[np.uint8], exemplars: Sequence[NDArray[np.uint8]], **_: Any
    ) -> NDArray[np.uint8]:
        assert sources.shape[1:] == (16, 16, 3)
        assert masks.any((1, 2)).all()
        assert all(each.shape == (1, 8, 8, 3) for each in exemplars)
        return np.full_like(sources, 99)


def random_file(rng: random.Random, size: tuple[int, int]) -> bytes:
    """Return an image file of a random mode and format, at times damaged, animated, turned or transparent."""
    mode, kind = rng.choice(_MODES), rng.choice(_KINDS)
    pixels = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if rng.random() < 0.5:
        pixels[:] = 255 * (pixels[..., :1] > rng.choice((30, 128, 250)))
    image = PillowImage.fromarray(pixels)
    image = image.convert("L").convert("I").convert("I;16") if mode == "I;16" else image.convert("L").convert(mode)
    options: dict[str, Any] = {}
    if rng.random() < 0.2:
        exif = PillowImage.Exif()
        exif[0x0112] = rng.randrange(0, 11)
        options["exif"] = exif
    if rng.random() < 0.05:
        options |= {"save_all": True, "append_images": [image.copy()]}
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.save(stream, kind, **options)
    except (OSError, ValueError, KeyError, TypeError):  # a format that has no such mode
        image.convert("RGB").save(stream := io.BytesIO(), "PNG")
    return damaged(stream.getvalue(), rng) if rng.random() < 0.2 else stream.getvalue()


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with a few of them changed, removed or repeated."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed)) if changed else 0
        action = rng.randrange(4)
        if action == 0 and changed:
            changed[at] = rng.randrange(256)
        elif action == 1:
            del changed[at:]
        elif action == 2:
            del changed[at : at + rng.randrange(1, 40)]
        else:
            changed[at:at] = changed[at : at + rng.randrange(1, 40)]
    return bytes(changed)


def check_edit(rng: random.Random, out: Any) -> str:
    """Edit random files; return "edited" or the error's message, and let anything else than UserError through."""
    size = (rng.randrange(1, 40), rng.randrange(1, 40))
    mask_size = size if rng.random() < 0.9 else (size[0] + 1, size[1])
    try:
        source = read_source(random_file(rng, size))
        mask = read_mask(random_file(rng, mask_size))
        exemplar = read_exemplar(random_file(rng, (rng.randrange(1, 30), rng.randrange(1, 30))))
        check_mask(mask, source.shown)
    except UserError as error:
        return str(error)
    edit = Edit(source, (Region(mask, (Exemplar(exemplar),)),), options=EditOptions(num_steps=1))
    edited = Editor(FlatPainter()).edit(edit)
    result = edited.picture
    assert edited.num_changed_outside == 0
    assert np.array_equal(result.pixels[mask == 0], source.pixels[mask == 0])
    again = read_source(encode_png(result))
    assert np.array_equal(again.pixels, result.pixels)
    suffix = rng.choice(sorted(FORMATS))
    losses(source, FORMATS[suffix], mask)
    check_size(source, FORMATS[suffix], "out")
    write_picture(result, out.with_suffix(suffix))
    return "edited"

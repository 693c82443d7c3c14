"""The faults planted in the demo world, so that curation has faults to find and can be checked against the truth.

Each kind occurs in the same share of a split's images: undecodable, badly exposed and blurred images, copies of another
image with another id, and train images that repeat a validation image, which would inflate every metric.
"""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image as PillowImage

from pbe.demo.scenes import ObjectBox
from pbe.types import Image

COPIES = ("exact_duplicate", "near_duplicate")
SPOILT = ("truncated", "dark", "bright", "blurred")
LEAK = "leak"
QUALITY = 95

_NEAR_QUALITY = 80
_STREAM = 0xFA17


class Fault(NamedTuple):
    """What is wrong with an image; copies are `of` the image with that index, a leak of that validation image."""

    kind: str
    of: int | None = None


def plan_faults(num_images: dict[str, int], fault_frac: float, seed: int) -> dict[tuple[str, int], Fault]:
    """Return the faulty images: (split, index) -> Fault, for each kind `fault_frac` of the split's images.

    No image has two faults, and the original of a copy has none. `num_images` has "train" and "validation".
    """
    plan: dict[tuple[str, int], Fault] = {}
    clean: dict[str, list[int]] = {}
    for number, split in enumerate(("validation", "train")):
        rng = np.random.default_rng([seed, _STREAM, number])
        order = iter(rng.permutation(num_images[split]).tolist())
        kinds = (*SPOILT, *COPIES, *([LEAK] if split == "train" else []))
        # In addition to its faulty images a split needs a clean original for each copy.
        count = min(round(fault_frac * num_images[split]), num_images[split] // (len(kinds) + len(COPIES)))
        faulty = {kind: [next(order) for _ in range(count)] for kind in kinds}
        clean[split] = list(order)
        originals = iter(clean[split])
        for kind in SPOILT:
            plan.update({(split, index): Fault(kind) for index in faulty[kind]})
        for kind in COPIES:
            plan.update({(split, index): Fault(kind, next(originals)) for index in faulty[kind]})
        if split == "train":
            leaked = rng.choice(clean["validation"], size=count, replace=count > len(clean["validation"]))
            pairs = zip(faulty[LEAK], leaked.tolist(), strict=True)
            plan.update({(split, index): Fault(LEAK, of) for index, of in pairs})
    return plan


def encode_jpeg(image: Image, quality: int = QUALITY) -> bytes:
    """Encode as JPEG without chroma subsampling; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def spoil(image: Image, kind: str) -> bytes:
    """Encode `image` with a fault of SPOILT: truncated, nearly black, nearly white or out of focus."""
    if kind == "truncated":
        whole = encode_jpeg(image)
        return whole[: len(whole) * 3 // 5]
    if kind == "dark":
        return encode_jpeg((image * 0.1).astype(np.uint8))
    if kind == "bright":
        return encode_jpeg((255 - (255 - image) * 0.1).astype(np.uint8))
    assert kind == "blurred", kind
    return encode_jpeg(np.asarray(cv2.GaussianBlur(image, (0, 0), 5.0), np.uint8))


def encode_near_copy(image: Image) -> bytes:
    """Encode `image` moved one pixel to the right, with a lower quality: the same picture in other bytes."""
    moved = np.concatenate([image[:, :1], image[:, :-1]], axis=1)
    return encode_jpeg(moved, _NEAR_QUALITY)


def move_box(box: ObjectBox, width: int) -> ObjectBox:
    """Return the box of an object in `encode_near_copy` of an image of that width."""
    return ObjectBox(min(box.x0 + 1, width - 1), box.y0, min(box.x1 + 1, width), box.y1)

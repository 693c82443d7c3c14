"""Cases of own data: masks with smooth edges, colours, palettes and JPEG noise; segmentations as tools write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_masks

from pbe.dataset.object_masks import unpack_mask
from pbe.demo.tiny_sets import BOX, coco, picture
from pbe.errors import UserError
from tests.support.own_cases import imported

CAT = ("Cat", *BOX)
LEFT, RIGHT = (20, 60, 140, 180), (180, 50, 300, 160)  # of the two ellipses


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "my-data"


def write_masks(root: Path, mask: Image.Image, suffix: str = ".png", num: int = 2) -> Path:
    for n in range(num):
        picture(root / f"images/{n}.jpg")
        (root / "masks").mkdir(parents=True, exist_ok=True)
        mask.save(root / f"masks/{n}{suffix}")
    return root


def ellipses(mode: str, left: object, right: object, scale: int = 4) -> Image.Image:
    """Draw two ellipses at a multiple of the size, so that a smaller copy has smooth edges."""
    large = Image.new(mode, (320 * scale, 240 * scale))
    for (x0, y0, x1, y1), fill in ((LEFT, left), (RIGHT, right)):
        if fill is not None:
            ImageDraw.Draw(large).ellipse((x0 * scale, y0 * scale, x1 * scale - 1, y1 * scale - 1), fill=fill)  # type: ignore[arg-type]
    return large


def smooth(mode: str, left: object, right: object, how: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    return ellipses(mode, left, right).resize((320, 240), how)


def assert_two_ellipses(root: Path, **changes: Any) -> None:
    found = imported("masks", root, **changes)
    for boxes in found.boxes.values():
        assert len(boxes) == 2
        bounds = sorted(box[1:] for box in boxes)
        np.testing.assert_allclose(bounds, [LEFT, RIGHT], atol=2)


def test_colours_with_smooth_edges_are_two_objects(root: Path) -> None:
    assert_two_ellipses(write_masks(root, smooth("RGB", (220, 20, 60), (0, 120, 200))))


def test_colours_in_a_jpeg_are_two_objects(root: Path) -> None:
    assert_two_ellipses(write_masks(root, ellipses("RGB", (220, 20, 60), (0, 120, 200), scale=1), ".jpg"))


def test_flat_colours_are_objects_however_many(root: Path) -> None:
    mask = Image.new("RGB", (320, 240))
    for n in range(20):
        ImageDraw.Draw(mask).rectangle((n * 16, 20, n * 16 + 9, 100), fill=(n * 12, 200, 255 - n * 12))
    assert len(imported("masks", write_masks(root, mask)).boxes["0"]) == 20


def test_colours_of_which_none_is_solid_are_an_error(root: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=r"0\.png: \d+ colours, none of them solid"):
        imported("masks", write_masks(root, noise))


@pytest.mark.parametrize("peak", [255, 200, 100])
@pytest.mark.parametrize("how", [Image.Resampling.BOX, Image.Resampling.LANCZOS])
def test_grey_smooth_edges_are_an_error_and_binary_reads_them(root: Path, peak: int, how: Image.Resampling) -> None:
    write_masks(root, smooth("L", peak, None, how))
    with pytest.raises(UserError, match=r"0\.png: \d+ values up to \d+ may be .* acquire\.mask_values to objects or"):
        imported("masks", root)
    found = imported("masks", root, mask_values="binary")
    np.testing.assert_allclose([box[1:] for box in found.boxes["0"]], [LEFT], atol=1)


def test_a_soft_matte_of_16_bits_is_an_error_too(root: Path) -> None:
    levels = np.asarray(smooth("L", 255, None)).astype(np.uint16) * 257
    with pytest.raises(UserError, match=r"0\.png: \d+ values up to 65535"):
        imported("masks", write_masks(root, Image.fromarray(levels)))


@pytest.mark.parametrize("kind", ["0 and 1", "0 and 255", "1 bit", "16 bits", "palette", "alpha", "jpeg"])
def test_one_object_is_read_from_every_binary_form(root: Path, kind: str) -> None:
    flat = np.asarray(ellipses("L", 255, None, scale=1))
    forms = {
        "0 and 1": Image.fromarray(flat // 255),
        "0 and 255": Image.fromarray(flat),
        "1 bit": Image.fromarray(flat).convert("1"),
        "16 bits": Image.fromarray(flat.astype(np.uint16) * 257),
        "palette": Image.fromarray(flat).convert("P"),
        "alpha": Image.merge("LA", (Image.new("L", (320, 240), 255), Image.fromarray(flat))),
        "jpeg": Image.fromarray(flat),
    }
    found = imported("masks", write_masks(root, forms[kind], ".jpg" if kind == "jpeg" else ".png"))
    assert [box[1:] for box in found.boxes["0"]] == [LEFT]


@pytest.mark.parametrize("numbers", [(1, 2), (5, 17)])
def test_a_palette_of_classes_with_vocs_rim_is_two_objects(root: Path, numbers: tuple[int, int]) -> None:
    flat = np.asarray(ellipses("L", numbers[0], numbers[1], scale=1)).copy()
    flat[:3] = 255
    mask = Image.fromarray(flat, "P")
    mask.putpalette([0, 0, 0, *np.random.default_rng(0).integers(1, 256, 765).tolist()])
    assert_two_ellipses(write_masks(root, mask))


def test_floats_are_an_error_that_says_what_is_read(root: Path) -> None:
    mask = Image.fromarray(np.ones((240, 320), np.float32))
    with pytest.raises(UserError, match=r"0\.tiff: refused: pixels of mode F; convert it to grey or RGB"):
        imported("masks", write_masks(root, mask, ".tiff"))


def test_several_levels_of_a_grey_jpeg_are_an_error(root: Path) -> None:
    with pytest.raises(UserError, match=r"0\.jpg: levels .* may be several objects, and JPEG blurs their edges"):
        imported("masks", write_masks(root, ellipses("L", 120, 255, scale=1), ".jpg"))


def test_masks_drawn_before_the_exif_turn_are_turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write_masks(root, ellipses("L", 255, None, scale=1))
    for n in range(2):
        picture(root / f"images/{n}.jpg", exif=exif)
    found = imported("masks", root)
    assert [box[1:] for box in found.boxes["0"]] == [(240 - LEFT[3], LEFT[0], 240 - LEFT[1], LEFT[2])]
    assert found.report.adjusted == {"masks_turned": 2}


def test_masks_of_half_the_size_are_scaled(root: Path) -> None:
    write_masks(root, ellipses("L", 255, None, scale=1).resize((160, 120), Image.Resampling.NEAREST))
    found = imported("masks", root)
    np.testing.assert_allclose([box[1:] for box in found.boxes["0"]], [LEFT], atol=2)
    assert found.report.adjusted == {"masks_scaled": 2}


def test_a_mask_of_two_images_with_its_stem_is_an_error(root: Path) -> None:
    write_masks(root, ellipses("L", 255, None, scale=1))
    picture(root / "images/0.png")
    with pytest.raises(UserError, match=r"masks/0\.png: may be the mask of .*images/0\.jpg or of 0\.png"):
        imported("masks", root)


def test_a_mask_named_after_the_images_whole_name_is_that_images(root: Path) -> None:
    write_masks(root, ellipses("L", 255, None, scale=1))
    picture(root / "images/0.png")
    (root / "masks/0.png").rename(root / "masks/0.jpg.png")
    found = imported("masks", root)
    assert sorted(found.boxes) == ["0", "1"]
    assert found.report.skipped == {"image_without_mask": 1}


SHAPE = np.zeros((240, 320), np.uint8, order="F")
SHAPE[60:160, 20:140] = 1
SHAPE[60:80, 20:40] = 0
FLAT = SHAPE.ravel(order="F")
COMPRESSED = coco_masks.encode(SHAPE)["counts"]
COUNTS = np.diff(np.flatnonzero(np.diff(FLAT, prepend=0)), prepend=0, append=FLAT.size).tolist()
POLYGON = [40, 60, 140, 60, 140, 160, 20, 160, 20, 80, 40, 80]

SEGMENTATIONS = {
    "run lengths": {"size": [240, 320], "counts": COUNTS},
    "floats": {"size": [240.0, 320.0], "counts": [float(count) for count in COUNTS]},
    "compressed": {"size": [240, 320], "counts": COMPRESSED.decode()},
    "text of bytes": {"size": [240, 320], "counts": str(COMPRESSED)},
    "polygons": [POLYGON],
    "a flat list": POLYGON,
}


@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_every_form_of_a_segmentation_gives_the_shape(root: Path, kind: str) -> None:
    for n in range(2):
        picture(root / f"{n}.jpg")
    coco(root / "instances.json", ["0.jpg", "1.jpg"], segmentation=SEGMENTATIONS[kind])
    found = imported("coco", root)
    assert found.boxes["0"] == [CAT]
    mask = found.masks["0"][0]
    assert mask is not None
    np.testing.assert_array_equal(unpack_mask(mask), SHAPE[60:160, 20:140])


@pytest.mark.parametrize(("segmentation", "message"), [
    ({"size": [240, 320], "counts": "b'\\xff'"}, "counts \"b'..xff'\" do not decode|add up to"),
    ({"size": [240, 320], "counts": "0123"}, "compressed counts add up to"),
    ({"size": [240, 320], "counts": COMPRESSED.decode()[:-1]}, "compressed counts add up to"),
    ({"size": [240.5, 320], "counts": COUNTS}, "are not all whole numbers"),
    ({"size": [240, 320], "counts": [-5, *COUNTS, 5]}, "counts add up to"),
    ({"size": [10**9, 10**9], "counts": "a"}, "the mask is 1000000000 x 1000000000 px"),
    ([[20, 60, 140, 60]], "4 numbers are not a polygon"),
    ("RLE", "neither a list of polygons nor run lengths"),
])  # fmt: skip
def test_a_segmentation_that_does_not_decode_is_named(root: Path, segmentation: object, message: str) -> None:
    picture(root / "0.jpg")
    coco(root / "instances.json", ["0.jpg"], segmentation=segmentation)
    with pytest.raises(UserError, match=rf"annotations\[0\]: segmentation: .*{message}"):
        imported("coco", root)

"""Objects' masks: every layout gives their boxes and shapes, and errors are named or counted."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
from pycocotools import mask as coco_masks

from pbe.acquisition.download import acquire
from pbe.acquisition.importers.annotations import ImportedBox
from pbe.acquisition.importers.conversion import READERS, import_dataset
from pbe.acquisition.importers.placement import ImportCounts
from pbe.dataset.object_masks import unpack_mask
from pbe.errors import UserError
from tests.support import parameters
from tests.support.own_data import boxes_of, write_coco, write_yolo

H, W = 60, 90
LEVELS = np.zeros((H, W), np.uint8)  # two objects, a disc and a slanted bar
cv2.circle(LEVELS, (25, 30), 14, 1, -1)
cv2.fillPoly(LEVELS, [np.array([[50, 10], [84, 10], [70, 50], [46, 50]])], 2)
BOXES = [(11, 16, 40, 45), (46, 10, 85, 51)]


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def write_image(path: Path) -> None:
    write(path, np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8))


def colours(levels: np.ndarray) -> np.ndarray:
    return np.asarray(np.array([[0, 0, 0], [0, 0, 200], [0, 200, 0]], np.uint8)[levels])


LAYOUTS: dict[str, dict[str, Any]] = {
    "numbers": {"masks/x.png": LEVELS},
    "16 bits": {"masks/x.png": LEVELS.astype(np.uint16) * 300},
    "grey levels": {"masks/x.png": np.array([0, 127, 255], np.uint8)[LEVELS]},
    "colours": {"masks/x.png": colours(LEVELS)},
    "with a rim, as VOC": {"masks/x.png": np.where(LEVELS, LEVELS, np.uint8(255) * (np.indices((H, W))[0] == 0))},
    "numbered files": {f"masks/x_{n}.png": np.uint8(255) * (n == LEVELS) for n in (1, 2)},
    "numbered mask files": {f"masks/x_mask_{n}.png": np.uint8(255) * (n == LEVELS) for n in (1, 2)},
    "a folder": {f"masks/x/{n}.png": np.uint8(255) * (n == LEVELS) for n in (1, 2)},
}


def read(root: Path, source: str = "masks", **changes: str) -> tuple[list[ImportedBox], dict[str, int]]:
    counts = ImportCounts()
    images = READERS[source](parameters.acquire(source=source, root=str(root), **changes), counts)
    boxes = [box for image in images for box in image.boxes]
    return boxes, {reason: count for reason, count in counts.skipped.items() if count}


def corners(box: ImportedBox, sides: tuple[int, int] = (W, H)) -> tuple[int, ...]:
    return tuple(round(share * side) for share, side in zip(box.xyxy, sides * 2, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mask_gives_its_objects_box_and_shape(tmp_path: Path, layout: str) -> None:
    write_image(tmp_path / "images" / "x.jpg")
    for name, pixels in LAYOUTS[layout].items():
        write(tmp_path / name, pixels)
    boxes, skipped = read(tmp_path)
    assert [corners(box) for box in boxes] == BOXES
    assert {box.label for box in boxes} == {"object"}
    assert not skipped
    for number, (box, (x0, y0, x1, y1)) in enumerate(zip(boxes, BOXES, strict=True), 1):
        assert box.object_mask is not None
        np.testing.assert_array_equal(unpack_mask(box.object_mask), LEVELS[y0:y1, x0:x1] == number)


def test_folders_name_class_and_split_and_missing_files_are_counted(tmp_path: Path) -> None:
    for place in ("train/cat/a", "train/dog/b_0", "val/cat/c", "val/dog/d", "val/dog/e"):
        write_image(tmp_path / "images" / f"{place}.jpg")
    for place in ("train/cat/a", "train/dog/b_0", "val/cat/c", "val/cat/f"):
        write(tmp_path / "masks" / f"{place}.png", np.uint8(255) * (LEVELS == 1))
    write(tmp_path / "masks" / "val" / "dog" / "e.png", np.zeros((H, W), np.uint8))
    settings = parameters.acquire(source="masks", root=str(tmp_path), workers=1)
    report = acquire(settings, 0, tmp_path / "raw")
    assert report.outcomes == {"train": {"ok": 2}, "validation": {"ok": 1}}
    assert report.skipped == {
        "empty_mask": 1,
        "image_without_boxes": 1,
        "image_without_mask": 1,
        "mask_without_image": 1,
    }
    assert sorted(box.label for box in read(tmp_path)[0]) == ["cat", "cat", "dog"]


def test_a_smooth_edge_is_not_read_as_many_objects(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "x.jpg")
    smooth = cv2.GaussianBlur(np.uint8(255) * (LEVELS == 1), (0, 0), 3)
    write(tmp_path / "masks" / "x.png", smooth)
    with pytest.raises(UserError, match=r"x\.png: \d+ values up to 255 .* acquire\.mask_values to objects or binary"):
        read(tmp_path)
    (found,) = read(tmp_path, mask_values="binary")[0]
    np.testing.assert_allclose(corners(found), BOXES[0], atol=1)
    assert len(read(tmp_path, mask_values="objects")[0]) > 100


def test_a_mask_of_another_size_is_named_with_its_image(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "x.jpg")
    write(tmp_path / "masks" / "x.png", LEVELS[:50])
    with pytest.raises(UserError, match=r"masks/x\.png: 90 x 50 px, but its image .*images/x\.jpg is 90 x 60 px"):
        read(tmp_path)


def test_masks_stay_with_their_boxes_through_the_filter_and_a_smaller_copy(tmp_path: Path) -> None:
    for name in ("x", "y", "z"):
        write_image(tmp_path / "data" / "images" / f"{name}.jpg")
    both = np.where(LEVELS == 1, np.uint8(2), np.where(LEVELS == 2, np.uint8(1), np.uint8(0)))  # the other order
    write(tmp_path / "data" / "masks" / "x.png", LEVELS)
    write(tmp_path / "data" / "masks" / "y.png", np.where(both == 1, both, 0))
    write(tmp_path / "data" / "masks" / "z.png", both)
    table = boxes_of("masks", tmp_path / "data", tmp_path / "out", validation_frac=0.5, short_side_px=30)
    assert table["box_id"].sort().to_list() == ["x_000", "x_001", "y_000", "z_000", "z_001"]
    number = pl.col("box_id").str.tail(3).cast(pl.Int32)
    for image_id, place, x0, x1, png in table.select("image_id", number, "x0", "x1", "object_mask").iter_rows():
        is_disc = (image_id, place) in (("x", 0), ("z", 1))
        left, top, right, bottom = BOXES[0] if is_disc else BOXES[1]
        assert abs(x0 - left / 2) <= 1 >= abs(x1 - right / 2)
        np.testing.assert_array_equal(unpack_mask(png), LEVELS[top:bottom, left:right] == (1 if is_disc else 2))


def write_segmentation(root: Path, segmentation: object) -> None:
    """COCO's file of the three images, the first annotation with a segmentation; its box is (10, 10, 60, 60)."""
    write_coco(root)
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = segmentation
    path.write_text(json.dumps(content))


TRIANGLE = [10, 10, 60, 10, 10, 60]  # image a is 120 x 90


def triangle() -> np.ndarray:
    return np.asarray(coco_masks.decode(coco_masks.frPyObjects([TRIANGLE], 90, 120))[..., 0], np.uint8)


def runs(mask: np.ndarray) -> list[int]:
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    return [int(length) for length in np.diff(edges, prepend=0, append=flat.size)]


@pytest.mark.parametrize("kind", ["polygon", "runs", "compressed runs"])
def test_cocos_segmentations_are_the_shapes(tmp_path: Path, kind: str) -> None:
    compressed = coco_masks.encode(np.asfortranarray(triangle()))["counts"].decode()
    counts: object = runs(triangle()) if kind == "runs" else compressed
    write_segmentation(tmp_path, [TRIANGLE] if kind == "polygon" else {"size": [90, 120], "counts": counts})
    masks = [box.object_mask for box in read(tmp_path, "coco")[0]]
    assert masks[0] is not None
    np.testing.assert_array_equal(unpack_mask(masks[0]), triangle()[10:60, 10:60])
    assert masks[1:] == [None, None, None]


BAD_SEGMENTATIONS = [
    ([[1, 2, 3, 4]], r"annotations\[0\]: segmentation: 4 numbers are not a polygon"),
    ([["a"] * 6], "are not all numbers"),
    ({"size": [90, 100], "counts": [9000]}, "the mask is 100 x 90 px, but its image 120 x 90 px"),
    ({"size": [90, 120], "counts": [9000]}, "counts add up to 9000 px, but its size is 120 x 90"),
    ({"counts": [9000]}, "not COCO's run lengths"),
    ("x", "neither a list of polygons nor run lengths"),
]


@pytest.mark.parametrize(("segmentation", "message"), BAD_SEGMENTATIONS)
def test_an_invalid_segmentation_is_named(tmp_path: Path, segmentation: object, message: str) -> None:
    write_segmentation(tmp_path, segmentation)
    with pytest.raises(UserError, match=message):
        read(tmp_path, "coco")


def test_an_outline_without_pixels_leaves_the_box(tmp_path: Path) -> None:
    write_segmentation(tmp_path, [[10, 10, 10, 10, 10, 10]])
    boxes, skipped = read(tmp_path, "coco")
    assert (boxes[0].object_mask, skipped) == (None, {"empty_mask": 1})


def test_a_yolo_polygon_is_a_box_and_a_shape(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    (tmp_path / "labels" / "val" / "c.txt").write_text("0 0.1 0.1 0.6 0.1 0.1 0.6\n")  # image c is 100 x 100
    box = next(box for box in read(tmp_path, "yolo")[0] if box.object_mask)
    assert corners(box, (100, 100)) == (10, 10, 60, 60)
    np.testing.assert_array_equal(unpack_mask(box.object_mask or b""), triangle()[10:60, 10:60])


def test_a_folder_of_masks_without_boxes_reports_what_was_left_out(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "x.jpg")
    write(tmp_path / "masks" / "x.png", np.zeros((H, W), np.uint8))
    with pytest.raises(
        UserError,
        match=r"no boxes found in the masks layout \(1 empty_mask, 1 image_without_boxes\); see docs/own-data\.md",
    ):
        import_dataset(parameters.acquire(source="masks", root=str(tmp_path)), 0, tmp_path / "out")

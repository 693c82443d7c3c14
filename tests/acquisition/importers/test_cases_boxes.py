"""Cases of own data: boxes outside the picture, counted from 0 or 1, of pictures of another size, in the wrong unit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pbe.dataset.object_masks import unpack_mask
from pbe.demo.tiny_sets import BOX, SIZE, coco, csv, picture, voc, write, yolo
from pbe.errors import UserError
from tests.support.own_cases import imported

CAT = ("Cat", *BOX)
CENTRE = ("Cat", 80, 60, 240, 180)
ORIENTATION = 0x0112


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "my-data"


def test_yolo_boxes_flush_with_a_border_are_kept_although_six_decimals_round(root: Path) -> None:
    widths = (71, 83, 97, 101, 111, 127, 133, 149)
    boxes = [[(0, 120, w, 120 + w // 2), (320 - w, 10, 320, 10 + w // 2)] for w in widths]
    lines = [
        "\n".join(
            f"0 {(a + c) / 640:.6f} {(b + d) / 480:.6f} {(c - a) / 320:.6f} {(d - b) / 240:.6f}" for a, b, c, d in pair
        )
        for pair in boxes
    ]
    found = imported("yolo", yolo(root, lines, num_val=2))
    assert found.all_boxes() == [("Cat", *box) for pair in boxes for box in pair]
    assert not found.report.skipped
    assert not found.report.adjusted


def write_voc(root: Path, corners: Sequence[tuple[float, ...]], **options: str) -> Path:
    for n, box in enumerate(corners):
        picture(root / f"JPEGImages/{n}.jpg")
        voc(root / f"Annotations/{n}.xml", f"{n}.jpg", box, **options)
    return root


def test_voc_counts_from_0_when_a_box_begins_there(root: Path) -> None:
    corners = [(0, 60, 120, 160), (80, 0, 200, 100), (40, 40, 160, 140)]
    assert imported("voc", write_voc(root, corners)).all_boxes() == [("Cat", *box) for box in corners]


def test_voc_counts_from_0_when_corners_are_between_pixels(root: Path) -> None:
    assert imported("voc", write_voc(root, [(20.5, 60, 120, 160)] * 2)).all_boxes() == [("Cat", 20, 60, 120, 160)] * 2


def test_voc_counts_from_1_when_corners_are_between_pixels_and_boxes_are_clipped_at_1(root: Path) -> None:
    found = imported("voc", write_voc(root, [(1, 61, 120, 160), (20.5, 61, 120, 160)]))
    assert found.all_boxes() == [("Cat", 0, 60, 120, 160), ("Cat", 20, 60, 120, 160)]


def test_vocs_origin_can_be_set_and_boxes_are_clipped(root: Path) -> None:
    write_voc(root, [(0, 60, 120, 160), (40, 40, 160, 140)])
    found = imported("voc", root, voc_origin=1)
    assert found.all_boxes() == [("Cat", 0, 59, 120, 160), ("Cat", 39, 39, 160, 140)]
    assert found.report.adjusted == {"boxes_clipped": 1}


def test_boxes_are_clipped_and_those_with_nothing_left_counted(root: Path) -> None:
    picture(root / "0.jpg"), picture(root / "1.jpg")
    rows = ["-5,-5,100,100", "300,200,400,300", "320,0,400,100", "50,50,50,90", "90,50,60,90"]
    csv(root, [f"0.jpg,Cat,{row}" for row in rows] + ["1.jpg,Cat,20,60,140,160"])
    found = imported("csv", root)
    assert found.boxes == {"0": [("Cat", 0, 0, 100, 100), ("Cat", 300, 200, 320, 240)], "1": [CAT]}
    assert found.report.adjusted == {"boxes_clipped": 2}
    expected = {"box_outside_image": 1, "box_with_swapped_corners": 1, "box_without_area": 1}
    assert found.report.skipped == expected
    counts = {"skipped": found.report.skipped, "adjusted": found.report.adjusted}
    assert counts.items() <= found.report.as_dict().items()  # so reports/acquire.json has them


def test_a_box_annotated_twice_counts_once(root: Path) -> None:
    picture(root / "0.jpg"), picture(root / "1.jpg")
    csv(root, [f"{n}.jpg,Cat,20,60,140,160" for n in (0, 1, 0)] + ["0.jpg,Dog,20,60,140,160"])
    found = imported("csv", root)
    assert found.boxes == {"0": [CAT, ("Dog", *BOX)], "1": [CAT]}
    assert found.report.skipped == {"box_annotated_twice": 1}


def test_a_clipped_box_keeps_the_part_of_its_mask_inside(root: Path) -> None:
    for n in range(2):
        picture(root / f"{n}.jpg")
    polygon = [[-40, 60, 40, 60, 40, 160, -40, 160]]
    coco(root / "instances.json", ["0.jpg", "1.jpg"], bbox=(-40, 60, 80, 100), segmentation=polygon)
    found = imported("coco", root)
    assert found.boxes["0"] == [("Cat", 0, 60, 40, 160)]
    mask = found.masks["0"][0]
    assert mask is not None
    np.testing.assert_array_equal(unpack_mask(mask), np.ones((100, 40), np.uint8))


def test_a_csv_file_may_state_the_size(root: Path) -> None:
    picture(root / "0.jpg"), picture(root / "1.jpg")
    rows = [f"{n}.jpg,Cat,100,80,300,220,640,480" for n in range(2)]
    write(root / "boxes.csv", "\n".join(["image,label,x0,y0,x1,y1,width,height", *rows]))
    assert imported("csv", root).all_boxes() == [("Cat", 50, 40, 150, 110)] * 2


STATED = "<size><width>{}</width><height>{}</height></size>"


def test_boxes_of_a_picture_that_was_made_smaller_are_scaled(root: Path) -> None:
    write_voc(root, [(101, 81, 300, 220)] * 2, size=STATED.format(640, 480))
    found = imported("voc", root)
    assert found.all_boxes() == [("Cat", 50, 40, 150, 110)] * 2
    assert found.report.adjusted == {"images_with_boxes_scaled": 2}


@pytest.mark.parametrize(("width", "height"), [(320, 230), (240, 320), (640, 479)])
def test_a_stated_size_in_another_proportion_is_an_error(root: Path, width: int, height: int) -> None:
    write_voc(root, [(21, 61, 140, 160)] * 2, size=STATED.format(width, height))
    if (width, height) == (640, 479):  # a pixel of rounding
        assert len(imported("voc", root).boxes) == 2
        return
    with pytest.raises(UserError, match=rf"0\.xml: annotated at {width} x {height} px, but .*0\.jpg is 320 x 240 px"):
        imported("voc", root)


@pytest.mark.parametrize("size", ["<size><width>0</width><height>0</height></size>", "<size/>", STATED.format("?", 1)])
def test_a_size_that_says_nothing_is_ignored(root: Path, size: str) -> None:
    assert imported("voc", write_voc(root, [(21, 61, 140, 160)] * 2, size=size)).all_boxes() == [CAT] * 2


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_annotated_before_the_exif_turn_are_turned_with_their_masks(root: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    marked = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    marked[60:160, 20:140] = 255
    marked[60:100, 20:60] = 128
    root.mkdir(parents=True)
    for n in range(2):
        Image.fromarray(marked).save(root / f"{n}.png", exif=exif)
    corner_cut = [[60, 60, 140, 60, 140, 160, 20, 160, 20, 100, 60, 100]]
    coco(root / "instances.json", ["0.png", "1.png"], segmentation=corner_cut)
    found = imported("coco", root)
    ((_, x0, y0, x1, y1),) = found.boxes["0"]
    upright = np.asarray(Image.open(root / "0.png").transpose({
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
    }[orientation]))[..., 0]  # fmt: skip
    rows, columns = np.nonzero(upright)
    assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    mask = found.masks["0"][0]
    assert mask is not None
    np.testing.assert_array_equal(unpack_mask(mask), upright[y0:y1, x0:x1] == 255)
    assert found.report.adjusted == {"images_with_boxes_turned": 2}


def test_shares_in_a_csv_file_are_an_error_with_the_line(root: Path) -> None:
    picture(root / "0.jpg")
    csv(root, ["0.jpg,Cat,20,60,140,160", "0.jpg,Cat,0.1,0.2,0.5,0.7"])
    with pytest.raises(
        UserError, match=r"boxes\.csv: line 3: 0\.1, 0\.2, 0\.5, 0\.7 are shares .*; pixels are expected"
    ):
        imported("csv", root)


def test_shares_in_coco_and_voc_are_an_error(root: Path) -> None:
    picture(root / "coco/0.jpg")
    coco(root / "coco/instances.json", ["0.jpg"], bbox=(0.1, 0.2, 0.4, 0.5))
    with pytest.raises(UserError, match=r"annotations\[0\]: 0\.1, 0\.2, 0\.5, 0\.7 are shares"):
        imported("coco", root / "coco")
    write_voc(root / "voc", [(0.1, 0.2, 0.5, 0.7)])
    with pytest.raises(UserError, match=r"0\.xml: object 1: 0\.1, 0\.2, 0\.5, 0\.7 are shares"):
        imported("voc", root / "voc")


def test_pixels_in_yolo_are_an_error_with_the_line(root: Path) -> None:
    yolo(root, ["0 0.5 0.5 0.5 0.5", "0 160 120 160 120"])
    with pytest.raises(UserError, match=r"1\.txt: line 1: 160, 120, 160, 120 are pixels; shares .* are expected"):
        imported("yolo", root)


POSE = "0 0.5 0.5 0.5 0.5 0.45 0.4 0.55 0.4 0.5 0.6"
TRIANGLE = "0 0.25 0.25 0.75 0.25 0.25 0.75"


def test_a_pose_is_read_by_kpt_shape(root: Path) -> None:
    found = imported("yolo", yolo(root, [POSE] * 3, more="kpt_shape: [3, 2]\n"))
    assert found.all_boxes() == [CENTRE] * 3
    assert found.masks["0"] == [None]


def test_a_pose_without_kpt_shape_or_with_another_is_an_error(root: Path) -> None:
    with pytest.raises(UserError, match=r"0\.txt: line 1: 10 numbers look like a box and keypoints; give kpt_shape"):
        imported("yolo", yolo(root / "a", [POSE] * 3))
    with pytest.raises(UserError, match=r"0\.txt: line 1: 10 numbers are not a box and the 51 numbers of kpt_shape"):
        imported("yolo", yolo(root / "b", [POSE] * 3, more="kpt_shape: [17, 3]\n"))


@pytest.mark.parametrize("tails", [["0.9"], ["3"], ["0.91 1", "0.88 2"], ["0.91 1"]])
def test_confidence_and_track_id_are_left_out(root: Path, tails: list[str]) -> None:
    lines = [f"0 0.5 0.5 0.5 0.5 {tails[n % len(tails)]}" for n in range(3)]
    assert imported("yolo", yolo(root, lines)).all_boxes() == [CENTRE] * 3


def test_six_numbers_that_may_be_a_triangle_or_a_tracked_box_are_an_error(root: Path) -> None:
    with pytest.raises(UserError, match=r"0\.txt: line 1: 6 numbers may be a triangle, or a box with confidence"):
        imported("yolo", yolo(root, ["0 0.5 0.4 0.3 0.5 0.2 1"] * 3))


def test_triangles_and_polygons_with_a_confidence_are_shapes(root: Path) -> None:
    found = imported("yolo", yolo(root, [TRIANGLE, f"{TRIANGLE} 0.9", TRIANGLE]))
    assert found.all_boxes() == [CENTRE] * 3
    assert all(mask is not None for masks in found.masks.values() for mask in masks)


def test_an_oriented_box_gives_its_bounds_and_no_shape(root: Path) -> None:
    found = imported("yolo", yolo(root, ["0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5"] * 2))
    assert found.all_boxes() == [CENTRE] * 2
    assert found.masks["0"] == [None]


def test_a_class_number_may_be_written_as_a_float_and_any_other_is_an_error(root: Path) -> None:
    assert imported("yolo", yolo(root / "a", ["0.000000 0.5 0.5 0.5 0.5"] * 2)).all_boxes() == [CENTRE] * 2
    for word in ("0.5", "1", "-1"):
        with pytest.raises(UserError, match=rf"1\.txt: line 1: class '{word}' is not among the names of data.yaml"):
            imported("yolo", yolo(root / word, ["0 0.5 0.5 0.5 0.5", f"{word} 0.5 0.5 0.5 0.5"]))


def test_label_studios_yolo_without_data_yaml_is_read(root: Path) -> None:
    for n in range(3):
        picture(root / f"images/{n}.jpg")
        write(root / f"labels/{n}.txt", "0 0.5 0.5 0.5 0.5\n")
    write(root / "classes.txt", "Cat\n")
    assert imported("yolo", root).all_boxes() == [CENTRE] * 3

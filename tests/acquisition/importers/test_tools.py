"""The own formats of annotation tools: CVAT, Datumaro, labelme and Label Studio."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pbe.dataset.object_masks import unpack_mask
from pbe.demo.tiny_sets import BOX, picture, write
from pbe.errors import UserError
from tests.support.own_cases import Imported, imported

CAT, DOG = ("Cat", *BOX), ("Dog", 180, 50, 300, 160)
DOGS_CORNERS = [[180, 50], [300, 50], [300, 160], [180, 160]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "my-data"


def write_cvat(root: Path) -> None:
    images = "".join(
        f'<image id="{n}" name="{n}.jpg" width="320" height="240" subset="{subset}">'
        '<box label="Cat" occluded="0" xtl="20.0" ytl="60.0" xbr="140.0" ybr="160.0"/>'
        '<polygon label="Dog" occluded="1" points="180.0,50.0;300.0,50.0;300.0,160.0;180.0,160.0"/>'
        '<points label="Eye" points="1.0,2.0"/></image>'
        for n, subset in enumerate(("Train", "Train", "Validation", "Test"))
    )
    empty = '<image id="9" name="9.jpg" width="320" height="240"/>'
    write(root / "annotations.xml", f"<annotations><version>1.1</version><meta/>{images}{empty}</annotations>")


def write_datumaro(root: Path) -> None:
    annotations = [
        {"id": 0, "type": "bbox", "label_id": 0, "bbox": [20, 60, 120, 100]},
        {"id": 1, "type": "polygon", "label_id": 1, "points": [v for corner in DOGS_CORNERS for v in corner]},
        {"id": 2, "type": "points", "label_id": 0, "points": [1, 2]},
    ]
    for split, numbers in (("train", "01"), ("val", "2"), ("test", "3")):
        items = [
            {"id": n, "annotations": annotations, "image": {"path": f"{n}.jpg", "size": [240, 320]}} for n in numbers
        ]
        items += [{"id": "9", "annotations": [], "image": {"path": "9.jpg"}}] if split == "train" else []
        content = {"categories": {"label": {"labels": [{"name": "Cat"}, {"name": "Dog"}]}}, "items": items}
        write(root / "annotations" / f"{split}.json", json.dumps(content))


def write_labelme(root: Path) -> None:
    shapes = [
        {"label": "Cat", "points": [[140, 160], [20, 60]], "shape_type": "rectangle"},
        {"label": "Dog", "points": DOGS_CORNERS, "shape_type": "polygon"},
        {"label": "Eye", "points": [[1, 2]], "shape_type": "point"},
    ]
    for n in "01239":
        content = {"imagePath": f"..\\images\\{n}.jpg", "imageHeight": 240, "imageWidth": 320}
        write(root / "labels" / f"{n}.json", json.dumps(content | {"shapes": [] if n == "9" else shapes}))
    for split, numbers in (("train", "01"), ("val", "2"), ("test", "3")):
        write(root / f"{split}.txt", "".join(f"images/{n}.jpg\n" for n in numbers))


def write_label_studio(root: Path) -> None:
    def region(kind: str, **value: Any) -> dict[str, Any]:
        return {"type": kind, "original_width": 320, "original_height": 240, "value": value}

    results = [
        region("rectanglelabels", x=6.25, y=25, width=37.5, height=100 / 2.4, rotation=0, rectanglelabels=["Cat"]),
        region("polygonlabels", points=[[x / 3.2, y / 2.4] for x, y in DOGS_CORNERS], polygonlabels=["Dog"]),
        region("keypointlabels", x=1, y=2, keypointlabels=["Eye"]),
    ]
    cancelled = {"was_cancelled": True, "result": results[:1] * 5}
    addresses = ["/data/upload/1/0a1b2c3d-{}.jpg", "/data/local-files/?d=images/{}.jpg", "s3://bucket/images/{}.jpg",
                 "https://example.com/images/{}.jpg"]  # fmt: skip
    for split, numbers in (("train", "01"), ("val", "2"), ("test", "3")):
        tasks = [
            {"data": {"image": addresses[int(n)].format(n)}, "annotations": [cancelled, {"result": results}]}
            for n in numbers
        ]
        tasks += [{"data": {"image": "9.jpg"}, "annotations": []}] if split == "train" else []
        write(root / f"{split}.json", json.dumps(tasks))


WRITERS = {
    "cvat": (write_cvat, "shape_points"),
    "datumaro": (write_datumaro, "annotation_points"),
    "labelme": (write_labelme, "shape_point"),
    "label_studio": (write_label_studio, "region_keypointlabels"),
}


def read(source: str, root: Path) -> Imported:
    for n in "01239":
        picture(root / "images" / f"{n}.jpg")
    WRITERS[source][0](root)
    return imported(source, root)


@pytest.mark.parametrize("source", WRITERS)
def test_a_tools_own_format_gives_boxes_shapes_splits_and_counts(root: Path, source: str) -> None:
    found = read(source, root)
    assert found.boxes == {n: [CAT, DOG] for n in "012"}
    assert found.splits == {"0": "train", "1": "train", "2": "validation"}
    box_mask, polygon_mask = found.masks["0"]
    assert box_mask is None
    assert polygon_mask is not None
    np.testing.assert_array_equal(unpack_mask(polygon_mask), np.ones((110, 120), np.uint8))
    expected = {"images of split test": 1, "image_without_boxes": 1, WRITERS[source][1]: 4}
    assert found.report.skipped == expected


MISTAKES = [
    ("cvat", "annotations.xml", 'ybr="160.0"', "", r"image '0\.jpg': box 1: no attribute 'ybr'"),
    ("cvat", "annotations.xml", "<meta/>", "<track/>", 'it holds tracks of a video; export the job as "CVAT for'),
    ("cvat", "annotations.xml", 'height="240"', 'height="200"', "annotated at 320 x 200 px"),
    ("datumaro", "annotations/val.json", '"label_id": 0', '"label_id": 7', "label_id 7 is not among the labels"),
    ("datumaro", "annotations/val.json", '"labels"', '"names"', "it has no categories.label.labels"),
    ("labelme", "labels/0.json", '"label": "Cat"', '"label": ""', r"shapes\[0\]: the class is empty"),
    ("labelme", "labels/0.json", "[300, 50], ", "", None),
    ("labelme", "labels/0.json", "[140, 160]", "[140]", r"shapes\[0\]: points: \[140\] are not 2 numbers"),
    ("label_studio", "val.json", '"image"', '"audio"', "task 0: no image in its data"),
    ("label_studio", "val.json", '"width"', '"breadth"', "val.json: task 0: region 0: .* are not all numbers"),
]


@pytest.mark.parametrize(("source", "file", "old", "new", "message"), MISTAKES)
def test_a_mistake_in_a_tools_file_is_named(
    root: Path, source: str, file: str, old: str, new: str, message: str | None
) -> None:
    read(source, root)
    path = root / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    if message is None:  # a triangle is a polygon too
        assert len(imported(source, root).boxes["0"]) == 2
        return
    with pytest.raises(UserError, match=message):
        imported(source, root)


@pytest.mark.parametrize("source", WRITERS)
def test_a_folder_without_the_tools_file_says_what_is_expected(root: Path, source: str) -> None:
    picture(root / "0.jpg")
    with pytest.raises(UserError, match=r"the folder has no (CVAT|Datumaro|labelme|Label Studio) file"):
        imported(source, root)


def test_a_turned_rectangle_gives_its_bounds(root: Path) -> None:
    for n in range(2):
        picture(root / f"{n}.jpg")
    box = '<box label="Cat" xtl="60" ytl="100" xbr="160" ybr="120" rotation="90"/>'
    images = "".join(f'<image id="{n}" name="{n}.jpg" width="320" height="240">{box}</image>' for n in range(2))
    write(root / "annotations.xml", f"<annotations>{images}</annotations>")
    assert imported("cvat", root).all_boxes() == [("Cat", 100, 60, 120, 160)] * 2

"""Samples depend on seed, box and variant only, and are the triplets of section 3.1."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pbe.dataset.curated_boxes import CuratedBox, read_curated_boxes
from pbe.dataset.object_masks import pack_mask
from pbe.latents.samples import SampleDrawer
from pbe.method.training_triplet import TrainingTriplet
from tests.support import parameters
from tests.support.tiny_data import write_boxes, write_images

WIDE = parameters.method(close_up_probability=0.0)


@pytest.fixture
def curated(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    at = write_images(tmp_path, "train", {"a": pixels, "grey": pixels[..., 0]})
    rows = [("a_000", "a", "train", (5, 6, 40, 44), at["a"]), ("grey_000", "grey", "train", (0, 0, 90, 70), at["grey"])]
    write_boxes(tmp_path, rows)
    return tmp_path


def make_drawer(root: Path, **changes: Any) -> SampleDrawer:
    options = {"method": WIDE, "exemplar_px": 32, "num_exemplars": 2, "seed": 0} | changes
    return SampleDrawer(root / "images", **options)


def boxes_of(root: Path) -> list[CuratedBox]:
    return read_curated_boxes(root, "train")


def are_equal(a: TrainingTriplet, b: TrainingTriplet) -> bool:
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("source", "mask", "exemplars"))


def test_a_sample_has_a_source_a_mask_and_exemplars(curated: Path) -> None:
    sample = make_drawer(curated).draw(boxes_of(curated)[0], 0)
    assert sample.source.shape == (64, 64, 3)
    assert sample.mask.shape == (64, 64)
    assert sample.exemplars.shape == (2, 32, 32, 3)
    assert 0 < sample.mask.sum() < 64 * 64


def test_a_sample_depends_on_seed_box_and_variant_only(curated: Path) -> None:
    boxes = boxes_of(curated)
    one, other = make_drawer(curated), make_drawer(curated)
    other.draw(boxes[1], 7)
    assert are_equal(one.draw(boxes[0], 1), other.draw(boxes[0], 1))
    assert not are_equal(one.draw(boxes[0], 1), one.draw(boxes[0], 2))
    assert not are_equal(one.draw(boxes[0], 1), make_drawer(curated, seed=1).draw(boxes[0], 1))


def test_close_ups_show_the_box_larger(curated: Path) -> None:
    box = boxes_of(curated)[0]  # 35 x 38 of a short side of 70
    mask = parameters.mask(shape="box")
    wide, close = (
        make_drawer(curated, method=parameters.method(mask=mask, close_up_probability=p), num_exemplars=1)
        for p in (0.0, 1.0)
    )
    areas = [[drawer.draw(box, variant).mask.mean() for variant in range(40)] for drawer in (wide, close)]
    assert np.ptp(areas[0]) < 0.03
    assert max(areas[1]) > 1.4 * max(areas[0])
    assert min(areas[1]) == pytest.approx(areas[0][0], rel=0.1)


def test_a_box_may_be_the_whole_of_a_greyscale_image(curated: Path) -> None:
    sample = make_drawer(curated).draw(boxes_of(curated)[1], 0)
    assert (sample.source[..., 0] == sample.source[..., 2]).all()


def test_decoding_a_large_image_smaller_gives_the_same_sample(tmp_path: Path) -> None:
    ys, xs = np.mgrid[0:256, 0:320]
    pixels = np.stack([xs * 0.6, ys * 0.8, (xs + ys) * 0.4], -1).astype(np.uint8)
    at = write_images(tmp_path, "train", {"large": pixels})
    write_boxes(tmp_path, [("large_000", "large", "train", (60, 40, 200, 180), at["large"])])
    box = boxes_of(tmp_path)[0]
    full, reduced = (make_drawer(tmp_path, exemplar_px=px).draw(box, 0) for px in (128, 32))
    assert np.array_equal(full.mask, reduced.mask)
    assert np.abs(full.source.astype(int) - reduced.source).mean() < 1.5


def test_the_mask_has_the_objects_shape_if_it_is_known(curated: Path) -> None:
    shape = np.zeros((38, 35), np.uint8)
    shape[10:14] = 1  # a bar across the box
    box = pl.read_parquet(curated / "boxes.parquet").filter(box_id="a_000")
    shapes = pl.DataFrame({"object_mask": [pack_mask(shape), None], "box_id": ["a_000", "a_001"]})
    pl.concat([box, box]).drop("box_id").hstack(shapes).write_parquet(curated / "boxes.parquet")
    with_shape, without = boxes_of(curated)
    method = parameters.method(mask=parameters.mask(object_probability=1), close_up_probability=0.0)
    drawer = make_drawer(curated, method=method, num_exemplars=1)
    assert 4 * 32 <= drawer.draw(with_shape, 0).mask.sum() <= 9 * 38
    assert drawer.draw(without, 0).mask.sum() >= 34 * 31

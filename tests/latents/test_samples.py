import numpy as np
import polars as pl
import pytest

from pbe.dataset.image_shards import LOCATION, write_tar
from pbe.dataset.object_masks import pack_mask
from pbe.demo.faults import encode_jpeg
from pbe.latents.samples import SampleDrawer, read_boxes
from pbe.method.training_triplet import decoding_reduction
from tests.support import parameters


def write_boxes(folder, rows):
    columns = ["box_id", "image_id", "split", "x0", "y0", "x1", "y1", *LOCATION]
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(folder / "boxes.parquet")


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    files = [("a", encode_jpeg(pixels)), ("grey", encode_jpeg(pixels[..., 0]))]
    at = write_tar(tmp_path / "images/train-00000.tar", files)
    rows = [("a_000", "a", "train", 5, 6, 40, 44, *at["a"]), ("grey_000", "grey", "train", 0, 0, 90, 70, *at["grey"])]
    write_boxes(tmp_path, [*rows, ("v_000", "v", "validation", 0, 0, 5, 5, "validation-00000.tar", 512, 9)])
    return tmp_path


def drawer(root, **changes):
    return SampleDrawer(
        root / "images", parameters.method(), **{"exemplar_px": 32, "num_exemplars": 2, "seed": 0} | changes
    )


def same(a, b):
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("source", "mask", "exemplars"))


def test_a_sample_is_source_mask_and_exemplars(images):
    sample = drawer(images).draw(read_boxes(images, "train")[0], 0)
    assert sample.source.shape == (64, 64, 3)
    assert sample.mask.shape == (64, 64)
    assert sample.exemplars.shape == (2, 32, 32, 3)
    assert 0 < sample.mask.sum() < 64 * 64


def test_a_sample_depends_on_seed_box_and_variant_alone(images):
    boxes = read_boxes(images, "train")
    one, other = drawer(images), drawer(images)
    other.draw(boxes[1], 7)
    assert same(one.draw(boxes[0], 1), other.draw(boxes[0], 1))
    assert not same(one.draw(boxes[0], 1), one.draw(boxes[0], 2))
    assert not same(one.draw(boxes[0], 1), drawer(images, seed=1).draw(boxes[0], 1))


def test_close_ups_show_the_box_larger(images):
    box = read_boxes(images, "train")[0]  # 35 x 38 of a short side of 70
    boxes_alone = parameters.mask(shape="box")
    wide, close = (
        SampleDrawer(images / "images", parameters.method(mask=boxes_alone, close_up_probability=p), 32, 1, 0)
        for p in (0.0, 1.0)
    )
    areas = [[drawer.draw(box, variant).mask.mean() for variant in range(40)] for drawer in (wide, close)]
    assert np.ptp(areas[0]) < 0.03
    assert max(areas[1]) > 1.4 * max(areas[0])
    assert min(areas[1]) == pytest.approx(areas[0][0], rel=0.1)


def test_a_greyscale_image_whose_box_is_all_of_it_is_no_exception(images):
    sample = drawer(images).draw(read_boxes(images, "train")[1], 0)
    assert (sample.source[..., 0] == sample.source[..., 2]).all()


def test_no_boxes_left_is_said(images):
    write_boxes(images / "empty", [("a_000", "a", "train", 0, 0, 5, 5, "train-00000.tar", 512, 9)])
    with pytest.raises(ValueError, match="no box of the split 'validation' is left"):
        read_boxes(images / "empty", "validation")


@pytest.mark.parametrize(
    ("window_px", "box", "reduction"),
    [
        (768, (0, 0, 700, 700), 1),
        (1100, (0, 0, 500, 460), 2),
        (1100, (0, 0, 500, 300), 1),
        (4500, (0, 0, 4000, 4000), 8),
    ],
)
def test_an_image_is_decoded_smaller_where_window_and_exemplar_still_shrink(window_px, box, reduction):
    assert decoding_reduction(window_px, box, image_px=512, exemplar_px=224) == reduction


def test_a_large_image_gives_the_sample_of_its_reduced_decoding(tmp_path):
    (tmp_path / "images").mkdir()
    ys, xs = np.mgrid[0:256, 0:320]
    pixels = np.stack([xs * 0.6, ys * 0.8, (xs + ys) * 0.4], -1).astype(np.uint8)
    at = write_tar(tmp_path / "images/train-00000.tar", [("large", encode_jpeg(pixels))])
    write_boxes(tmp_path, [("large_000", "large", "train", 60, 40, 200, 180, *at["large"])])
    box = read_boxes(tmp_path, "train")[0]
    whole, small = drawer(tmp_path, exemplar_px=128), drawer(tmp_path, exemplar_px=32)
    a, b = whole.draw(box, 0), small.draw(box, 0)
    assert np.array_equal(a.mask, b.mask)
    assert np.abs(a.source.astype(int) - b.source).mean() < 1.5


def test_where_the_objects_shape_is_known_it_is_what_is_repainted(images):
    shape = np.zeros((38, 35), np.uint8)
    shape[10:14] = 1  # a bar across the box
    box = pl.read_parquet(images / "boxes.parquet").filter(box_id="a_000")
    shapes = pl.DataFrame({"object_mask": [pack_mask(shape), None], "box_id": ["a_000", "a_001"]})
    pl.concat([box, box]).drop("box_id").hstack(shapes).write_parquet(images / "boxes.parquet")
    with_shape, without = read_boxes(images, "train")
    method = parameters.method(mask=parameters.mask(object_probability=1))
    draw = SampleDrawer(images / "images", method, exemplar_px=32, num_exemplars=1, seed=0).draw
    assert 4 * 32 <= draw(with_shape, 0).mask.sum() <= 9 * 38
    assert draw(without, 0).mask.sum() >= 34 * 31

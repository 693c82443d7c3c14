"""The reference images of FID and QS: the kept train images or a folder."""

from pathlib import Path

import pytest
from PIL import Image as PillowImage

from pbe.errors import UserError
from pbe.evaluation.reference.images import reference_images


def test_the_reference_images_are_the_kept_train_images(demo: Path) -> None:
    images = list(reference_images(demo / "curated", demo / "raw", 32, 100))
    assert len(images) == 5  # six, of which curation rejected one
    assert {image.shape for image in images} == {(32, 32, 3)}
    assert len(list(reference_images(demo / "curated", demo / "raw", 32, 3))) == 3


def test_a_folder_may_have_images_of_any_mode_and_other_files(tmp_path: Path, demo: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        PillowImage.new("L", (20, 10), 7).save(tmp_path / name, format="PNG")
    images = list(reference_images(tmp_path, demo / "raw", 8, 100))
    assert [image.shape for image in images] == [(8, 8, 3)] * 2


def test_too_few_images_are_refused_before_any_is_read(tmp_path: Path, demo: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate\.real.* at least two real images, but there are 0"):
        reference_images(tmp_path, demo / "raw", 8, 100)
    with pytest.raises(UserError, match=r"no such folder; see evaluate\.real"):
        reference_images(tmp_path / "absent", demo / "raw", 8, 100)

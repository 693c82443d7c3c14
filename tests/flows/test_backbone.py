"""The stage that brings the pretrained parts: whole, from a text-to-image folder or a painter's, or not at all."""

import json
from pathlib import Path

import pytest

from flows import backbone as stage
from pbe import layout
from pbe.method.backbone import PAINTER_PARTS, PARTS
from pbe.method.initialization import build_painter
from pbe.settings import Settings


def settings(path: Path) -> Settings:
    return Settings.model_validate({"backbone": {"source": "path", "path": str(path)}})


def parts(folder: Path) -> set[str]:
    return {entry.name for entry in (folder / layout.BACKBONE).iterdir() if entry.is_dir()}


def test_a_text_to_image_folder_comes_with_its_text_encoder(backbone: Path, tmp_path: Path) -> None:
    stage.backbone(settings(backbone), tmp_path)
    assert parts(tmp_path) == set(PARTS)
    assert json.loads((tmp_path / layout.BACKBONE / "backbone.json").read_text())["path"] == str(backbone)


def test_a_painter_comes_with_its_index_and_can_be_trained_further(backbone: Path, tmp_path: Path) -> None:
    build_painter(backbone, 64, 0).save_pretrained(tmp_path / "painter")
    stage.backbone(settings(tmp_path / "painter"), tmp_path)
    assert parts(tmp_path) == set(PAINTER_PARTS)
    assert build_painter(tmp_path / layout.BACKBONE, 64, 0).image_px == 64


def test_a_folder_that_lacks_a_part_leaves_what_was_there(backbone: Path, tmp_path: Path) -> None:
    stage.backbone(settings(backbone), tmp_path)
    (tmp_path / "half" / "unet").mkdir(parents=True)
    with pytest.raises(ValueError, match="half: the backbone lacks its part vae"):
        stage.backbone(settings(tmp_path / "half"), tmp_path)
    assert parts(tmp_path) == set(PARTS)

"""The stage backbone replaces models/backbone by a complete one, or leaves it unchanged."""

import json
from pathlib import Path

import pytest

from flows import backbone as stage
from pbe import layout
from pbe.errors import UserError
from pbe.method.backbone import PARTS
from pbe.settings import Settings
from tests.support.parameters import PARAMETERS


def settings(path: Path) -> Settings:
    backbone = PARAMETERS.backbone.replace(source="path", path=str(path))
    return PARAMETERS.model_copy(update={"backbone": backbone})


def parts(folder: Path) -> set[str]:
    return {entry.name for entry in (folder / layout.BACKBONE).iterdir() if entry.is_dir()}


def test_the_stage_writes_all_parts_and_where_they_came_from(backbone: Path, tmp_path: Path) -> None:
    card = stage.backbone(settings(backbone), tmp_path)
    assert parts(tmp_path) == set(PARTS)
    assert json.loads((tmp_path / layout.BACKBONE / "backbone.json").read_text()) == card


def test_a_folder_that_lacks_a_part_leaves_the_last_backbone(backbone: Path, tmp_path: Path) -> None:
    stage.backbone(settings(backbone), tmp_path)
    (tmp_path / "incomplete" / "unet").mkdir(parents=True)
    with pytest.raises(UserError, match="incomplete: the backbone lacks its part vae"):
        stage.backbone(settings(tmp_path / "incomplete"), tmp_path)
    assert parts(tmp_path) == set(PARTS)
    assert [path.name for path in (tmp_path / layout.BACKBONE).parent.iterdir()] == [layout.BACKBONE.name]

"""The bundled backbone for photographs: its record, its quality, its size, and the licences beside it."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pbe.demo.photo_weights.__main__ import PARTS
from pbe.demo.photo_weights.recipe import PhotoRecipe
from pbe.method.backbone import check_backbone
from pbe.method.unet import UNet

ROOT = Path(__file__).parents[3]
BUNDLED = ROOT / "data/photo"
MB = 1_000_000


def test_the_record_has_the_recipe_and_the_quality_of_each_part() -> None:
    record = json.loads((BUNDLED / "recipe.json").read_text())
    assert set(record["quality"]) == set(PARTS)
    assert record["recipe"] == json.loads(json.dumps(asdict(PhotoRecipe())))


def test_the_autoencoder_reconstructs_photographs_held_back_with_27_db() -> None:
    quality = json.loads((BUNDLED / "recipe.json").read_text())["quality"]["vae"]
    assert quality["psnr_db"] >= 27


def test_the_backbone_is_complete_and_its_prior_is_a_text_to_image_model() -> None:
    check_backbone(BUNDLED)
    assert UNet.from_pretrained(BUNDLED / "unet").config["in_channels"] == 4


@pytest.mark.parametrize("folder", ["data/photo", "data/photo-painter"])
def test_bundled_weights_have_less_than_20_mb_in_files_of_less_than_16(folder: str) -> None:
    sizes = [p.stat().st_size for p in (ROOT / folder).rglob("*") if p.is_file() and "state" not in p.parts]
    assert sum(sizes) < 20 * MB
    assert max(sizes) < 16 * MB


@pytest.mark.parametrize("folder", ["data/photo", "data/photo-painter"])
def test_the_licences_of_all_that_the_weights_were_trained_on_stand_beside_them(folder: str) -> None:
    notice = (ROOT / folder / "NOTICE").read_text()
    for name in ("FOD-A", "Caltech 101", "EfficientNet-Lite0"):
        assert name in notice
    for licence in (
        "MIT License",
        "Copyright (c) 2020 FOD-UNOmaha",
        "creativecommons.org/licenses/by/4.0",
        "Apache-2.0",
    ):
        assert licence in notice
    card = (ROOT / folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    for heading in ("## Intended use", "## Limits", "[NOTICE](NOTICE)"):
        assert heading in card

"""The recipe at a tiny size: a complete backbone, and the same bytes after a kill in each part."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPVisionModelWithProjection

from pbe.demo.photo_weights import __main__ as command
from pbe.demo.photo_weights.__main__ import PARTS, train_parts
from pbe.demo.photo_weights.photos import pack
from pbe.errors import UserError
from pbe.method.backbone import check_backbone
from pbe.method.conditioner import Conditioner
from pbe.method.pretrained import load_scheduler, load_tower, load_vae
from pbe.method.unet import UNet
from tests.support.killed_recipe import TINY
from tests.support.photo_sets import write_fod_a, write_photos

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    pack(write_fod_a(root / "fod-a"), write_photos(root / "photos"), root / "photos.zip")
    return root / "photos.zip"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "photo"
    train_parts(PARTS, TINY, packed, out, CPU)
    return out


@pytest.fixture(scope="module")
def killed(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Return a folder whose parts were killed and started again, and the number of updates after the kill."""
    out = tmp_path_factory.mktemp("killed") / "photo"
    run = [sys.executable, "-m", "tests.support.killed_recipe", str(packed), str(out)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout.splitlines()[-1])


def weights(folder: Path) -> dict[str, bytes]:
    """Return the contents of the backbone's files, without the trainings' state."""
    files = (p for p in folder.rglob("*") if p.is_file() and "state" not in p.relative_to(folder).parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_the_recipe_trains_a_backbone_that_the_painter_can_start_from(trained: Path) -> None:
    check_backbone(trained)
    assert load_vae(trained).config.latent_channels == 4
    assert load_scheduler(trained / "scheduler").config.beta_schedule == "scaled_linear"
    unet = UNet.from_pretrained(trained / "unet").config
    tower = load_tower(CLIPVisionModelWithProjection, trained / "image_encoder")
    assert (unet["in_channels"], unet["cross_attention_dim"], unet["sample_size"]) == (4, 160, 32)
    assert (tower.config.image_size, tower.config.hidden_size) == (64, 160)
    assert Conditioner.from_tower(trained / "image_encoder", 160).exemplar_px == 64


def test_the_record_has_the_recipe_the_photographs_and_the_quality_of_each_part(trained: Path) -> None:
    record = json.loads((trained / "recipe.json").read_text())
    assert set(record["quality"]) == set(PARTS)
    assert record["recipe"] == json.loads(json.dumps(asdict(TINY)))
    assert len(record["photographs"]) == 32
    numbers = {key: value for part in record["quality"].values() for key, value in part.items()}
    assert all(math.isfinite(value) for value in numbers.values())
    assert numbers["psnr_db"] == pytest.approx((2 * numbers["psnr_db_fod_a"] + numbers["psnr_db_caltech"]) / 3)


@pytest.mark.long
def test_killed_in_each_part_and_started_again_it_ends_with_the_same_bytes(
    trained: Path, killed: tuple[Path, dict[str, int]]
) -> None:
    folder, updates = killed
    assert updates == {"vae": 2, "towers": 2, "prior": 2}  # of 4: two were kept
    assert weights(folder) == weights(trained)


def test_the_state_of_another_recipe_is_not_used(trained: Path, packed: Path, tmp_path: Path) -> None:
    train_parts(["vae"], replace(TINY, vae_lr=0.01, vae_steps=1), packed, tmp_path, CPU)
    other = weights(tmp_path / "vae")
    train_parts(["vae"], TINY, packed, tmp_path, CPU)
    assert weights(tmp_path / "vae") == weights(trained / "vae") != other


def test_a_parts_state_belongs_to_its_numbers_the_photographs_and_the_weights_it_reads(
    trained: Path, tmp_path: Path
) -> None:
    def key(part: str, recipe: Any = TINY, data: str = "a", out: Path = trained) -> str:
        return command.state_key(part, recipe, data, out)

    assert key("vae") == key("vae", replace(TINY, prior_steps=9, towers_steps=9), out=tmp_path)
    assert key("vae") != key("vae", replace(TINY, vae_steps=9))
    assert key("vae") != key("vae", replace(TINY, seed=9))
    assert key("vae") != key("vae", data="b")
    for name in ("vae", "image_encoder", "text_encoder", "tokenizer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"a")
    before = key("prior", out=tmp_path)
    (tmp_path / "vae" / "weights").write_bytes(b"b")
    assert key("prior", out=tmp_path) != before


def test_the_prior_without_the_other_parts_is_one_line(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="vae: does not exist; prior reads it: train the other parts first"):
        train_parts(["prior"], TINY, packed, tmp_path, CPU)


def test_the_command_without_photographs_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = ["photo_weights", "--out", str(tmp_path / "out"), "--packed", str(tmp_path / "photos.zip")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert str(stopped.value).endswith("photos.zip: does not exist; name the folders to pack with --fod-a and --photos")

"""A small demo world on disk as acquire and curate leave it, its bench, and components that are small enough to run."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler
from numpy.typing import NDArray
from transformers import CLIPVisionConfig

from pbe.dataset.image_shards import write_tar
from pbe.demo.accuracy import read_truth
from pbe.demo.attribute_classifier import AttributeClassifier
from pbe.demo.faults import encode_jpeg
from pbe.demo.scenes import SceneObject, draw_scene
from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.benches.case_selection import CaseRules, make_bench
from pbe.evaluation.painting.plan import GuidanceSweep
from pbe.evaluation.painting.processes import Sampling
from pbe.method.conditioner import Conditioner
from pbe.method.painter import Painter
from pbe.method.unet import UNet

NUM_IMAGES = {"train": 6, "validation": 10}


class PixelEncoder:
    """Features that are every sixth value of the image at 4 x 4 pixels."""

    name = "pixels"
    digest = "0"
    input_px = 4
    sees_tiles = False

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (images.reshape(len(images), -1)[:, ::6] / np.float32(255)).astype(np.float32)  # (B, 8)


def write_world(root: Path) -> None:
    boxes, images, truth = [], [], ["box_id,Shape,Colour,Pattern,SecondColour"]
    (root / "raw" / "images").mkdir(parents=True)
    for split, count in NUM_IMAGES.items():
        rng = np.random.default_rng(count)
        scenes = {f"{split}{n}": draw_scene(rng, max_objects=2, rare_kinds=False) for n in range(count)}
        files = [(image_id, encode_jpeg(scene.image)) for image_id, scene in scenes.items()]
        refs = write_tar(root / "raw" / "images" / f"{split}-00000.tar", files)
        for number, (image_id, scene) in enumerate(scenes.items()):
            verdict = {"image_id": image_id, "split": split, "verdict": "keep" if number else "reject"}
            images.append(verdict | refs[image_id]._asdict())
            for n, o in enumerate(scene.objects):
                row = box_row(f"{image_id}_{n:03d}", image_id, split, scene.image.shape, o)
                boxes.append(row | refs[image_id]._asdict())
                a = o.attributes
                truth.append(f"{image_id}_{n:03d},{a.shape},{a.colour},{a.pattern},{a.second_colour}")
    for part in ("raw/annotations", "curated"):
        (root / part).mkdir(parents=True)
    (root / "raw" / "annotations" / "world-attributes.csv").write_text("\n".join(truth) + "\n")
    pl.DataFrame(boxes).write_parquet(root / "curated" / "boxes.parquet")
    pl.DataFrame(images).write_parquet(root / "curated" / "images.parquet")


def box_row(
    box_id: str, image_id: str, split: str, shape: tuple[int, ...], o: SceneObject
) -> dict[str, str | int | bool]:
    return {
        "box_id": box_id,
        "image_id": image_id,
        "split": split,
        "label": o.attributes.shape.capitalize(),
        **dict(zip(("x0", "y0", "x1", "y1"), o.box, strict=True)),
        "height": shape[0],
        "width": shape[1],
        "is_truncated": o.is_truncated,
        "is_occluded": o.is_occluded,
    }


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw/ and curated/."""
    root = tmp_path_factory.mktemp("demo")
    write_world(root)
    return root


@pytest.fixture(scope="session")
def rules() -> CaseRules:
    return CaseRules(num_cases=12, min_area_frac=0.08, max_area_frac=0.6, image_px=32, pad_frac=0.06)


@pytest.fixture(scope="session")
def sweep() -> GuidanceSweep:
    return GuidanceSweep(scale=5.0, compared=(1.0, 5.0, 7.0), num_cases=5)


@pytest.fixture(scope="session")
def sampling() -> Sampling:
    return Sampling("plms", num_steps=2, guidance_interval=None, max_magnification=2.0, batch_size=4, seed=0)


@pytest.fixture(scope="session")
def bench(demo: Path, rules: CaseRules, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    out = tmp_path_factory.mktemp("bench") / "bench"
    return make_bench(demo / "raw", demo / "curated", out, rules, seed=0, truth=read_truth(demo / "raw"))


@pytest.fixture(scope="session")
def classifier() -> AttributeClassifier:
    """A classifier with random weights."""
    torch.manual_seed(0)
    return AttributeClassifier(width=8).eval()


@pytest.fixture(scope="session")
def painter() -> Painter:
    """A small painter with random weights."""
    torch.manual_seed(0)
    config = {
        "in_channels": 9, "sample_size": 8, "block_out_channels": [8], "layers_per_block": 1, "norm_num_groups": 4,
        "down_block_types": ["CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D"],
        "cross_attention_dim": 16, "attention_head_dim": 4,
    }  # fmt: skip
    unet = UNet(config)
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4), latent_channels=4, norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip
    tower = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=16, patch_size=8
    )
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True)
    return Painter(unet, vae, Conditioner(tower, 16), scheduler, image_px=32).eval()


@pytest.fixture(scope="session")
def model_folder(painter: Painter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pbe"
    painter.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder() -> PixelEncoder:
    return PixelEncoder()

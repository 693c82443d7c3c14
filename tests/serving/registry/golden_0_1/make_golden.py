"""Registers a model as version 0.1 did, and keeps what the registry then held. Run with the code of 0.1, once:

    git archive efc94f7 | tar -x -C OLD
    PYTHONPATH=OLD .venv/bin/python tests/serving/registry/golden_0_1/make_golden.py

Writes `model/`, the folder of the registered model without the copy of the package that it carries, and `version.json`,
the tags and aliases of its version. The weights are random: a painter of 32 px, small enough for git.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import mlflow
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPVisionConfig

from pbe.method.conditioner import Conditioner
from pbe.method.painter import Painter
from pbe.serving.registry import register
from pbe.settings import load_settings

OUT = Path(__file__).resolve().parent
ROOT = Path(os.environ["PYTHONPATH"]).resolve()
METRICS = {
    "methods": {
        "paint_by_example": {"fid": 0.013, "qs": 0.5, "clip_score": 88.0, "unmasked_max_abs_diff": 0},
        "copy_paste": {"fid": 0.015, "qs": 0.4, "clip_score": 99.0, "unmasked_max_abs_diff": 0},
        "source": {"fid": 0.011, "qs": 0.6, "clip_score": 3.0, "unmasked_max_abs_diff": 0},
    },
    "num_cases": 256,
}


def build_painter() -> Painter:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        in_channels=9,
        out_channels=4,
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=2,
        latent_channels=4,
    )
    tower = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=16, patch_size=8
    )
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True)
    return Painter(unet, vae, Conditioner(tower, 16), scheduler, image_px=32).eval()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        build_painter().save_pretrained(Path("pbe"))
        uri = f"sqlite:///{folder}/mlflow.db"
        settings = load_settings(ROOT / "params.yaml").register_
        hashes = {"git_commit": "efc94f7", "dvc.data/latents": "0a1b2c3d"}
        registered = register(Path("pbe"), METRICS, settings, tracking_uri=uri, hashes=hashes)
        client = mlflow.MlflowClient(uri)
        version = client.get_model_version(registered.name, str(registered.version))
        aliases = client.get_registered_model(registered.name).aliases
        model = Path(mlflow.artifacts.download_artifacts(f"models:/{registered.name}/{registered.version}"))
        shutil.rmtree(OUT / "model", ignore_errors=True)
        shutil.copytree(model, OUT / "model", ignore=shutil.ignore_patterns("code"))
        description = (OUT / "model/MLmodel").read_text().replace(folder, "/project").replace(str(ROOT), "/project")
        (OUT / "model/MLmodel").write_text(description)
        kept = {"name": registered.name, "tags": version.tags, "aliases": sorted(aliases)}
        (OUT / "version.json").write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

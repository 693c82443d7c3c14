"""The painter before the first training step, built from the parts of a backbone (section 3.2)."""

from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from pbe.errors import UserError
from pbe.method.backbone import check_backbone, is_painter
from pbe.method.conditioner import Conditioner
from pbe.method.denoiser import NUM_EXTRA_CHANNELS, NUM_LATENT_CHANNELS, PAPER_ORDER, reorder_input, widen_input
from pbe.method.painter import Painter
from pbe.method.pretrained import load_scheduler, load_tower, load_vae
from pbe.method.unet import UNet
from pbe.runtime.files import read_json


@torch.no_grad()
def empty_context(folder: Path) -> torch.Tensor:
    """Return the prior's state for the end token of the empty caption, (1, 1, D): its unconditional context."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    text_tower = load_tower(CLIPTextModel, folder / "text_encoder")
    tokens = tokenizer([""], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    states = text_tower(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return torch.as_tensor(states.pooler_output[:, None])


def build_painter(
    folder: Path, image_px: int, seed: int, *, prior: bool = True, bottleneck: bool = True, guidance: bool = True
) -> Painter:
    """Return the painter at step 0: the prior widened by zero-initialised channels, v the prior's empty caption.

    The official code draws v at random. `seed` decides all new weights. The switches are the paper's ablation: without
    `prior` the UNet and v are random, without `bottleneck` all tokens of the exemplar pass, without `guidance` v is not
    trained. A backbone that is a painter is the painter at step 0. Raises UserError when the backbone lacks a part, its
    UNet has neither 4 nor 9 input channels, it does not predict the noise, or it is a painter that was trained with
    other switches.
    """
    check_backbone(folder)
    if is_painter(folder):
        return trained_painter(folder, image_px, prior=prior, bottleneck=bottleneck, guidance=guidance)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = load_prior(folder / "unet") if prior else random_unet(folder / "unet")
        context_dim = unet.config["cross_attention_dim"]
        tower = folder / "image_encoder"
        conditioner = Conditioner.from_tower(tower, context_dim, bottleneck=bottleneck, guidance=guidance)
        if unet.config["in_channels"] == NUM_LATENT_CHANNELS:
            widen_input(unet)
    if prior:
        with torch.no_grad():
            conditioner.uncond_vector.copy_(empty_context(folder))
    scheduler = load_scheduler(folder / "scheduler")
    return Painter(unet, load_vae(folder), conditioner, scheduler, image_px).eval()


def trained_painter(folder: Path, image_px: int, *, prior: bool, bottleneck: bool, guidance: bool) -> Painter:
    """Return the painter in `folder`, to be trained further on images of `image_px`.

    Raises UserError when it was trained with other switches.
    """
    painter = Painter.from_pretrained(folder)
    conditioner = painter.conditioner
    for key, trained_with, given in (
        ("train.prior", True, prior),
        ("method.bottleneck", conditioner.bottleneck, bottleneck),
        ("guidance (train.drop_probability above 0)", conditioner.guidance, guidance),
    ):
        if given != trained_with:
            raise UserError(
                f"{folder}: this painter was trained with {key} {trained_with}; it cannot change to {given}"
            )
    painter.image_px = image_px
    return painter


def load_prior(folder: Path) -> UNet:
    """Return a text-to-image UNet (4 input channels), or an inpainting one (9) in the paper's order of channels.

    Raises UserError for any other number of input channels.
    """
    unet = UNet.from_pretrained(folder)
    num_channels = unet.config["in_channels"]
    if num_channels == NUM_LATENT_CHANNELS + NUM_EXTRA_CHANNELS:
        return reorder_input(unet, PAPER_ORDER)
    if num_channels != NUM_LATENT_CHANNELS:
        raise UserError(f"{folder}: a UNet with {num_channels} input channels; text-to-image has 4, inpainting 9")
    return unet


def random_unet(folder: Path) -> UNet:
    """Return a UNet of the prior's architecture with nine input channels and random weights."""
    config = read_json(folder / "config.json") | {"in_channels": NUM_LATENT_CHANNELS + NUM_EXTRA_CHANNELS}
    return UNet(config, folder / "config.json")

"""The painter before its first step, made of the backbone's parts."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from pbe.errors import UserError
from pbe.method.backbone import check_backbone, is_painter
from pbe.method.conditioner import Conditioner
from pbe.method.denoiser import NUM_EXTRA_CHANNELS, NUM_LATENT_CHANNELS, PAPER_ORDER, reorder_input, widen_input
from pbe.method.painter import Painter
from pbe.method.pretrained import load_scheduler, load_unet, load_vae


@torch.no_grad()
def empty_context(folder: Path) -> torch.Tensor:
    """The prior's state for the empty caption's end token, (1, 1, D): what it draws from when told nothing."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    text_tower = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    tokens = tokenizer([""], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    states = text_tower(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return torch.as_tensor(states.pooler_output[:, None])


def build_painter(
    folder: Path, image_px: int, seed: int, *, prior: bool = True, bottleneck: bool = True, guidance: bool = True
) -> Painter:
    """The painter at step 0: the prior widened by zero-initialised channels, v set to the prior's empty caption.

    `seed` decides all new weights. The switches are the paper's ablation: without `prior` the UNet and v are random,
    without `bottleneck` the exemplar's spatial tokens pass, without `guidance` v is not trained. A backbone that is a
    painter is the painter at step 0. Raises UserError when the backbone lacks a part, its UNet has neither 4 nor 9
    input channels or predicts no noise, or it is a painter that the switches do not describe.
    """
    check_backbone(folder)
    if is_painter(folder):
        return trained_painter(folder, image_px, prior=prior, bottleneck=bottleneck, guidance=guidance)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = load_prior(folder / "unet") if prior else random_unet(folder / "unet")
        context_dim = int(unet.config.cross_attention_dim)
        tower = folder / "image_encoder"
        conditioner = Conditioner.from_tower(tower, context_dim, bottleneck=bottleneck, guidance=guidance)
        if unet.config.in_channels == NUM_LATENT_CHANNELS:
            widen_input(unet)
    if prior:
        with torch.no_grad():
            conditioner.uncond_vector.copy_(empty_context(folder))
    scheduler = load_scheduler(folder / "scheduler")
    return Painter(unet, load_vae(folder), conditioner, scheduler, image_px).eval()


def trained_painter(folder: Path, image_px: int, *, prior: bool, bottleneck: bool, guidance: bool) -> Painter:
    """A painter that was trained before, to be trained further on images of `image_px`."""
    painter = Painter.from_pretrained(folder)
    was = painter.conditioner
    for key, wanted, given in (
        ("train.prior", True, prior),
        ("method.bottleneck", was.bottleneck, bottleneck),
        ("guidance (train.drop_probability above 0)", was.guidance, guidance),
    ):
        if given != wanted:
            raise UserError(f"{folder}: this painter was trained with {key} {wanted}, and cannot go on with {given}")
    painter.image_px = image_px
    return painter


def load_prior(folder: Path) -> UNet2DConditionModel:
    """A text-to-image UNet (4 input channels), or an inpainting one (9), brought into the paper's order of channels."""
    unet = load_unet(folder)
    num_channels = unet.config.in_channels
    if num_channels == NUM_LATENT_CHANNELS + NUM_EXTRA_CHANNELS:
        return reorder_input(unet, PAPER_ORDER)
    if num_channels != NUM_LATENT_CHANNELS:
        raise UserError(f"{folder}: a UNet of {num_channels} input channels; text-to-image has 4, inpainting 9")
    return unet


def random_unet(folder: Path) -> UNet2DConditionModel:
    """A UNet of the prior's architecture with nine input channels and random weights."""
    config = UNet2DConditionModel.load_config(folder)
    return UNet2DConditionModel.from_config(config, in_channels=NUM_LATENT_CHANNELS + NUM_EXTRA_CHANNELS)

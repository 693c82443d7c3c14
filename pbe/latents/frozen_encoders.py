"""The frozen encoders, VAE and CLIP tower: what they make of samples is all that training needs of them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pbe.method.conditioner import Conditioner, to_pixels
from pbe.method.denoiser import mask_latents
from pbe.method.pretrained import load_vae
from pbe.method.training_triplet import TrainingTriplet


class FrozenEncoders:
    """The VAE and the CLIP tower on one device; the tower gives T tokens, 1 behind the bottleneck."""

    def __init__(self, backbone: Path, device: str = "cpu", bottleneck: bool = True) -> None:
        self.device = device
        self.vae = load_vae(backbone).to(device)
        tower = Conditioner.from_tower(backbone / "image_encoder", context_dim=1, bottleneck=bottleneck)
        self.conditioner = tower.to(device)

    @torch.inference_mode()
    def encode(self, samples: list[TrainingTriplet]) -> dict[str, Tensor]:
        """Samples => fp16 latents (B, 4, h, w) twice, mask (B, 1, h, w), class tokens (B, E, T, W)."""
        source = to_pixels(np.stack([s.source for s in samples]), device=self.device)
        mask = torch.from_numpy(np.stack([s.mask for s in samples])).to(self.device)[:, None].float()
        exemplars = np.stack([s.exemplars for s in samples])
        both = self.vae.encode(torch.cat([source, source * (1 - mask)])).latent_dist.mode()
        source_latents, masked_latents = (both * self.vae.config.scaling_factor).chunk(2)
        tokens = self.conditioner.tokens(to_pixels(exemplars.reshape(-1, *exemplars.shape[2:]), device=self.device))
        batch = {
            "source_latents": source_latents,
            "masked_latents": masked_latents,
            "mask": mask_latents(mask, *source_latents.shape[-2:]),
            "class_tokens": tokens.view(len(samples), -1, *tokens.shape[1:]),
        }
        return {name: tensor.half().cpu() for name, tensor in batch.items()}

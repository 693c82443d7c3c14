"""The frozen encoders, VAE and CLIP tower: training needs only their output for each sample."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pbe.method.conditioner import Conditioner, to_pixels
from pbe.method.denoiser import mask_latents
from pbe.method.pretrained import load_vae
from pbe.method.training_triplet import TrainingTriplet


class FrozenEncoders:
    """The VAE and the CLIP tower of a backbone on one device.

    The tower gives T tokens for each exemplar: the class token alone with the bottleneck, all of its tokens without.
    """

    def __init__(self, backbone: Path, device: str = "cpu", bottleneck: bool = True) -> None:
        self.device = device
        self.vae = load_vae(backbone).to(device)
        tower = Conditioner.from_tower(backbone / "image_encoder", context_dim=1, bottleneck=bottleneck)
        self.conditioner = tower.to(device)

    @torch.inference_mode()
    def encode(self, samples: Sequence[TrainingTriplet]) -> dict[str, Tensor]:
        """Encode B samples with E exemplars each, and return fp16 tensors on the CPU.

        `source_latents` and `masked_latents` are (B, 4, h, w), `mask` is (B, 1, h, w), `class_tokens` (B, E, T, W).
        """
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

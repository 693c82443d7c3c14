"""Inpainting by text: what the painter's prior paints when it is told the exemplar's class in words.

The paper's step "from language to image condition" (section 3), and its baselines "Blended Diffusion, text" and "Stable
Diffusion inpainting, text". The prior is the text-to-image model that the painter was trained from. Outside the mask
its latents are replaced by the source's at every step (blended latent diffusion, Avrahami et al., 2023), guidance is by
the empty text, and windows, seeds, sampler and paste-back are the painter's. A backbone that is an inpainting model
also sees the mask and the masked source.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from pbe.evaluation.painting.windows import PaintSettings, Request, Squares, paint_windows
from pbe.method.backbone import BUNDLED, CARD
from pbe.method.initialization import build_painter
from pbe.method.painter import Painter
from pbe.method.pretrained import load_tower
from pbe.runtime.devices import DTYPES
from pbe.runtime.files import read_json
from pbe.types import Image


class TextEncoder:
    """The prior's text tower: texts => contexts (N, T, D) in fp32.

    A prior attends to the states of all tokens, as Stable Diffusion's do, or to the end token's alone, T = 1.
    """

    def __init__(self, folder: Path, *, all_tokens: bool) -> None:
        self._tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self._tower = load_tower(CLIPTextModel, folder / "text_encoder").eval()
        self._all_tokens = all_tokens

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Encode the texts one by one, so that a text has the same context in any company."""
        return torch.cat([self._encode(text) for text in texts])

    def _encode(self, text: str) -> Tensor:
        length = self._tokenizer.model_max_length
        tokens = self._tokenizer([text], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        states = self._tower(input_ids=tokens["input_ids"])
        return torch.as_tensor(states.last_hidden_state if self._all_tokens else states.pooler_output[:, None])


class TextPainter:
    """The prior, conditioned by text."""

    def __init__(self, painter: Painter, encoder: TextEncoder, settings: PaintSettings) -> None:
        self._painter = painter
        self._encoder = encoder
        self._settings = settings

    @classmethod
    def load(cls, folder: Path, image_px: int, settings: PaintSettings) -> "TextPainter":
        """Load the backbone in `folder` to paint squares of `image_px`; raises what `build_painter` raises."""
        painter = build_painter(folder, image_px, seed=0)
        encoder = TextEncoder(folder, all_tokens=not attends_to_end_token(folder))
        return cls(painter.place(torch.device(settings.device), DTYPES[settings.precision]), encoder, settings)

    def __call__(self, requests: Sequence[Request], guidance_scale: float) -> list[Image]:
        settings, device = self._settings, next(self._painter.parameters()).device
        uncond_context = self._encoder([""]).to(device)
        contexts = self._encoder([request.text for request in requests]).numpy()

        def paint(sources: Squares, masks: Squares, contexts: NDArray[np.float32], seeds: NDArray[np.int64]) -> Squares:
            return self._painter.paint_context(
                sources, masks, torch.from_numpy(contexts).to(device), uncond_context,
                guidance_scale=guidance_scale, seeds=seeds.tolist(), **settings.sampling,
            )  # fmt: skip

        return paint_windows(requests, contexts, self._painter.image_px, settings, paint)


def attends_to_end_token(folder: Path) -> bool:
    """Return whether a prior was trained on the end token alone, as the bundled ones (`pbe.demo.weights.prior`)."""
    card = folder / CARD
    return card.is_file() and read_json(card).get("source") in BUNDLED

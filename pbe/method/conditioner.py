"""The content bottleneck (section 3.2): the exemplar reaches the denoiser as one compressed token.

    c = MLP(CLIP(x_r)),   context (B, 1, D)

Only the class token of a frozen CLIP image tower passes, no spatial token. The MLP is the official code's: transformer
blocks on a sequence of one token, a layer norm and a linear projection. The learnable vector v of classifier-free
guidance is a parameter of this module. Parameter names are those of diffusers' `PaintByExampleImageEncoder`, so that
weights can be exchanged.

The paper's ablation leaves the bottleneck out. Then all T tokens of the tower (257 for ViT-L/14), the class token
first, pass through the same layers, whose blocks attend among them, and the context is (B, T, D).
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention import BasicTransformerBlock
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from pbe.errors import UserError
from pbe.method.pretrained import build_part, check_tensors, load_tower
from pbe.method.weight_files import check_finite, find_weights, read_weights
from pbe.runtime.files import read_json, write_json

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

WEIGHTS = "model.safetensors"
PICKLED_WEIGHTS = "pytorch_model.bin"  # the file of the published folder
_TOWER = re.compile(r"^model\.")


class Mapper(nn.Module):
    """Transformer blocks, one for every five layers of the tower. Each starts as the identity; the official: random."""

    def __init__(self, width: int, num_blocks: int) -> None:
        super().__init__()
        blocks = [
            BasicTransformerBlock(width, 1, width, activation_fn="gelu", attention_bias=True) for _ in range(num_blocks)
        ]
        self.blocks = nn.ModuleList(blocks)
        for block in blocks:
            for last in (block.attn1.to_out[0], block.ff.net[2]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class Conditioner(nn.Module):
    """Exemplar pixels (B, 3, e, e) in -1..1 => tokens (B, T, W) => context (B, T, D).

    With the `bottleneck` T is 1. Without `guidance` training drops no conditions and does not change v.
    """

    def __init__(
        self, config: CLIPVisionConfig, context_dim: int, *, bottleneck: bool = True, guidance: bool = True
    ) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.context_dim = context_dim
        self.bottleneck = bottleneck
        self.guidance = guidance
        self.model = CLIPVisionModel(config).requires_grad_(False)
        self.mapper = Mapper(width, (config.num_hidden_layers + 1) // 5)
        self.final_layer_norm = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, context_dim)
        self.uncond_vector = nn.Parameter(torch.randn(1, 1, context_dim), requires_grad=guidance)
        if width == context_dim:  # in the tiny backbone the tower's space is the prior's context space
            nn.init.eye_(self.proj_out.weight)
            nn.init.zeros_(self.proj_out.bias)

    @property
    def exemplar_px(self) -> int:
        """The side of the exemplars that the tower takes."""
        side = self.config.image_size
        assert isinstance(side, int)
        return side

    @property
    def uses_clip_statistics(self) -> bool:
        """Whether the tower takes pixels normalised as OpenAI's CLIP does; the tiny tower takes -1..1."""
        return self.exemplar_px >= 224

    @torch.no_grad()
    def class_token(self, pixels: Tensor) -> Tensor:
        """Return the frozen tower's class token after its last layer norm: (B, 3, e, e) => (B, W) float32."""
        return torch.as_tensor(self.model(pixel_values=self._normalise(pixels)).pooler_output).float()

    @torch.no_grad()
    def tokens(self, pixels: Tensor) -> Tensor:
        """Return the class token, or without the bottleneck all tokens after the same layer norm: (B, T, W) fp32."""
        if self.bottleneck:
            return self.class_token(pixels)[:, None]
        states = self.model(pixel_values=self._normalise(pixels)).last_hidden_state
        return torch.as_tensor(self.model.post_layernorm(states)).float()

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Return float32 pixels as the tower takes them, in the type of its weights."""
        if self.uses_clip_statistics:
            pixels = ((pixels + 1) / 2 - _channels(CLIP_MEAN, pixels)) / _channels(CLIP_STD, pixels)
        return pixels.to(self.model.dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, T, W) to the context (B, T, D), in the type of the weights."""
        return torch.as_tensor(self.proj_out(self.final_layer_norm(self.mapper(tokens.to(self.proj_out.weight.dtype)))))

    def describe(self, exemplars: NDArray[np.uint8]) -> Tensor:
        """Return the context (1, T, D) of one object from one picture of it, (e, e, 3) uint8, or several, (K, e, e, 3).

        The context of several pictures is the mean of theirs, after the MLP: cross attention to one token is linear in
        it, so that this is the mean of what each picture adds. Averaged before the MLP, identity was lower (see
        benchmarks/exemplars.py). Raises UserError for several pictures where the model has no bottleneck: the tokens of
        places in different pictures have no common mean.
        """
        pictures = exemplars.reshape(-1, *exemplars.shape[-3:])
        if len(pictures) > 1 and not self.bottleneck:
            raise UserError(f"{len(pictures)} exemplars: this model was trained without the bottleneck; give one")
        pixels = to_pixels(pictures, self.exemplar_px, self.uncond_vector.device)
        contexts = [self(self.tokens(each)) for each in pixels.split(1)]  # one by one: the same bits in any company
        return torch.cat(contexts).mean(0, keepdim=True) if len(contexts) > 1 else torch.as_tensor(contexts[0])

    @torch.inference_mode()
    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return class tokens as features of images: (B, h, w, 3) uint8 => (B, W) float32 of unit norm."""
        pixels = to_pixels(images, self.exemplar_px).to(self.uncond_vector.device)
        return np.asarray(F.normalize(self.class_token(pixels), dim=-1).cpu().numpy(), np.float32)

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and model.safetensors under the published names."""
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config.to_dict() | {
            "proj_size": self.context_dim,
            "bottleneck": self.bottleneck,
            "guidance": self.guidance,
            "architectures": ["PaintByExampleImageEncoder"],
        }
        write_json(folder / "config.json", config)
        state = {_TOWER.sub("model.vision_model.", k): v.contiguous() for k, v in self.state_dict().items()}
        save_file(state, folder / WEIGHTS)

    @classmethod
    def from_tower(
        cls, folder: Path, context_dim: int, *, bottleneck: bool = True, guidance: bool = True
    ) -> "Conditioner":
        """Return a conditioner with the tower of `folder`, CLIP's or a painter's, and a new mapper, projection and v.

        Raises UserError when the folder cannot be read or lacks a tensor.
        """
        config, tower = _read_tower(folder)
        conditioner = cls(config, context_dim, bottleneck=bottleneck, guidance=guidance)
        conditioner.model.load_state_dict(tower.state_dict())
        return conditioner.eval()

    @classmethod
    def from_pretrained(cls, folder: Path) -> "Conditioner":
        """Load a conditioner, this project's or the published one.

        Raises UserError when the folder does not hold one, or its weights lack a tensor or have an unknown one.
        """
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: not an image encoder (config.json is missing)")
        config = read_json(folder / "config.json")
        state = _read_weights(folder)
        if "proj_out.weight" not in state:
            raise UserError(f"{folder}: lacks proj_out.weight")
        tower = build_part(CLIPVisionConfig.from_dict, folder / "config.json", config)
        switches = {name: bool(config.get(name, True)) for name in ("bottleneck", "guidance")}
        conditioner = build_part(cls, folder / "config.json", tower, state["proj_out.weight"].shape[0], **switches)
        assert isinstance(conditioner, cls)
        check_tensors(folder, conditioner.state_dict(), state)
        conditioner.load_state_dict(state)
        return conditioner.eval()


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return a value for each channel, (1, C, 1, 1). Each is filled in on the device: a copy would wait for a GPU."""
    return torch.cat([like.new_full((1, 1, 1, 1), value) for value in values], dim=1)


def _read_tower(folder: Path) -> tuple[CLIPVisionConfig, nn.Module]:
    config = folder / "config.json"
    if config.is_file() and "proj_size" in read_json(config):  # a painter's, with its mapper
        trained = Conditioner.from_pretrained(folder)
        return trained.config, trained.model
    tower = load_tower(CLIPVisionModelWithProjection, folder)
    return tower.config, tower.vision_model


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors in fp32; the published file names the tower one level deeper and holds a constant."""
    state: dict[str, Any] = {}
    for file in find_weights(folder, *(Path(name).stem for name in (WEIGHTS, PICKLED_WEIGHTS))).files:
        state |= read_weights(file)
    named = {name.replace("model.vision_model.", "model."): value for name, value in state.items()}
    tensors = {name: value.float() for name, value in named.items() if isinstance(value, Tensor)}
    check_finite(folder, tensors)
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(".position_ids")}


def to_pixels(images: NDArray[np.uint8], size_px: int | None = None, device: str | torch.device = "cpu") -> Tensor:
    """Convert NHWC uint8 to NCHW float32 in -1..1, resized to `size_px` by area if smaller, bilinearly if larger.

    The bytes are copied to the device and become floats there.
    """
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    if size_px is None or x.shape[-2:] == (size_px, size_px):
        return x
    if min(x.shape[-2:]) >= size_px:
        return F.interpolate(x, size=(size_px, size_px), mode="area")
    return F.interpolate(x, size=(size_px, size_px), mode="bilinear", align_corners=False)

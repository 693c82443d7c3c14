"""The judge: reads shape, colours and pattern off a crop, to score edits of the demo world against the truth.

A plain convolutional net, trained by `pbe.demo.weights` on its own crops from its own seed: it shares nothing with the
CLIP tower that conditions the painter, so that the painter cannot please it by repeating the tower's mistakes.
"""

import json
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pbe.demo.scenes import COLOURS, PATTERNS, SHAPES
from pbe.errors import UserError
from pbe.method.exemplars import resize

CROP_PX = 32
CLASSES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "pattern": PATTERNS,
    "second_colour": COLOURS,
}


class Judge(nn.Module):
    """Crops (B, 3, 32, 32) in -1..1 => logits per attribute."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.trunk = nn.Sequential(
            *_block(3, width),
            *_block(width, width),
            nn.MaxPool2d(2),  # 16 x 16
            *_block(width, 2 * width),
            *_block(2 * width, 2 * width),
            nn.MaxPool2d(2),  # 8 x 8
            *_block(2 * width, 4 * width),
            nn.MaxPool2d(2),  # 4 x 4
            nn.Flatten(),
            nn.Linear(4 * width * 16, 4 * width),
            nn.ReLU(),
        )
        self.heads = nn.ModuleDict({name: nn.Linear(4 * width, len(words)) for name, words in CLASSES.items()})

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        hidden = self.trunk(crops)
        return {name: head(hidden) for name, head in self.heads.items()}

    @torch.inference_mode()
    def read(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """Read crops (B, h, w, 3) uint8 => per attribute the index of its word, (B,)."""
        square = np.stack([resize(crop, CROP_PX, CROP_PX) for crop in crops])
        x = torch.from_numpy(square).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return {name: logits.argmax(1).numpy() for name, logits in self(x).items()}

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"width": self.width, "classes": CLASSES}, indent=2) + "\n")
        save_file({k: v.half().contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: Path) -> "Judge":
        """Load a judge; raises UserError when the folder holds none."""
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: no judge here (config.json is missing)")
        config = json.loads((folder / "config.json").read_text())
        judge = cls(cast(int, config["width"]))
        judge.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        return judge.eval()


def _block(num_in: int, num_out: int) -> list[nn.Module]:
    return [nn.Conv2d(num_in, num_out, 3, padding=1), nn.GroupNorm(8, num_out), nn.ReLU()]

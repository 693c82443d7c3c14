"""A classifier that reads shape, colours and pattern from a crop, to score edits of the demo world against the truth.

A plain convolutional network, which `pbe.demo.weights` trains on its own crops from its own seed. It shares nothing
with the CLIP tower that conditions the painter, so that the painter cannot score by repeating the tower's errors.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pbe.demo.scenes import COLOURS, PATTERNS, SHAPES, Attributes
from pbe.errors import UserError, one_line
from pbe.evaluation.attributes import AttributeValues
from pbe.method.exemplars import crop_exemplar, resize
from pbe.types import Box, Image

FOLDER = "attribute_classifier"  # of its weights, in data/tiny
CROP_PX = 32
WORDS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "pattern": PATTERNS,
    "second_colour": COLOURS,
}
_PAD_FRAC = 0.06  # margin around a box, as in the crops that it was trained on


class AttributeClassifier(nn.Module):
    """Crops (B, 3, 32, 32) in -1..1 => logits (B, number of words) of each attribute in `WORDS`."""

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
        self.heads = nn.ModuleDict({name: nn.Linear(4 * width, len(words)) for name, words in WORDS.items()})

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        hidden = self.trunk(crops)
        return {name: head(hidden) for name, head in self.heads.items()}

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes."""
        return tuple(WORDS)

    @torch.inference_mode()
    def read(self, crops: NDArray[np.uint8]) -> list[AttributeValues]:
        """Read crops (B, 32, 32, 3) uint8: each reading has a word for each attribute."""
        device = next(self.parameters()).device
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float().div(127.5).sub(1).to(device)
        best = {name: logits.argmax(1).tolist() for name, logits in self(pixels).items()}
        return [{name: WORDS[name][indices[i]] for name, indices in best.items()} for i in range(len(crops))]

    def read_boxes(self, images: Sequence[Image], boxes: Sequence[Box]) -> list[AttributeValues]:
        """Read one box of each image, with a margin of 6 %."""
        pairs = zip(images, boxes, strict=True)
        return self.read(np.stack([crop_exemplar(image, box, _PAD_FRAC, CROP_PX) for image, box in pairs]))

    def read_exemplars(self, exemplars: Sequence[Image]) -> list[AttributeValues]:
        """Read exemplars of any size, which include their margin."""
        return self.read(np.stack([resize(exemplar, CROP_PX, CROP_PX) for exemplar in exemplars]))

    def caption(self, values: AttributeValues) -> str:
        """Return the caption of an object with the given words, such as "a plain red circle"."""
        return Attributes(**values).caption

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and the weights in half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"width": self.width, "classes": WORDS}, indent=2) + "\n")
        save_file({k: v.half().contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: Path) -> "AttributeClassifier":
        """Load a classifier; raises UserError when the folder does not hold one."""
        try:
            width = int(json.loads((folder / "config.json").read_text())["width"])
            weights = load_file(folder / "model.safetensors")
        except (FileNotFoundError, json.JSONDecodeError, SafetensorError) as error:
            raise UserError(f"{folder}: cannot be loaded as an attribute classifier: {one_line(error)}") from None
        classifier = cls(width)
        classifier.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        return classifier.eval()


def _block(num_in: int, num_out: int) -> list[nn.Module]:
    return [nn.Conv2d(num_in, num_out, 3, padding=1), nn.GroupNorm(8, num_out), nn.ReLU()]

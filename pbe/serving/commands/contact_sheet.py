"""A contact sheet of variants: the same part of the source and of each variant, side by side, with names below."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from pbe.method.windows import mask_box
from pbe.runtime.files import atomic_file
from pbe.types import Image

if TYPE_CHECKING:
    from pbe.serving.editor import Edit

CELL_PX, GAP_PX, TEXT_PX = 256, 8, 20
MARGIN = 0.5  # of the masks' box, shown around it on each side


class ContactSheet:
    """Collects small copies of pictures; the large ones need not stay in memory."""

    def __init__(self, edit: "Edit") -> None:
        """Begin with the source; cells show the surroundings of what the masks mark."""
        self._part = _surroundings(edit)
        self._cells: list[tuple[str, PILImage.Image]] = []
        self.add("source", edit.source.shown)

    def add(self, name: str, picture: Image) -> None:
        """Add a picture (H, W, 3) of the source's size."""
        cell = PILImage.fromarray(np.ascontiguousarray(picture[self._part]))
        scale = CELL_PX / max(cell.size)
        sides = [max(1, round(side * scale)) for side in cell.size]
        kind = PILImage.Resampling.LANCZOS if scale < 1 else PILImage.Resampling.BICUBIC
        self._cells.append((name, cell.resize((sides[0], sides[1]), kind)))

    def write(self, path: Path) -> None:
        """Write the sheet as PNG, complete or not at all."""
        with atomic_file(path) as part:
            self._drawn().save(part, format="PNG")

    def _drawn(self) -> PILImage.Image:
        columns = math.ceil(math.sqrt(len(self._cells)))
        width, height = (max(cell.size[side] for _, cell in self._cells) for side in (0, 1))
        step_x, step_y = width + GAP_PX, height + TEXT_PX + GAP_PX
        rows = math.ceil(len(self._cells) / columns)
        sheet = PILImage.new("RGB", (columns * step_x + GAP_PX, rows * step_y + GAP_PX), "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_PX * 0.7)
        for number, (name, cell) in enumerate(self._cells):
            row, column = divmod(number, columns)
            corner = GAP_PX + column * step_x, GAP_PX + row * step_y
            sheet.paste(cell, corner)
            draw.text((corner[0], corner[1] + height + 2), name, "black", font)
        return sheet


def _surroundings(edit: "Edit") -> tuple[slice, slice]:
    masks = [region.mask.astype(np.uint8) for region in edit.regions]
    x0, y0, x1, y1 = mask_box(np.maximum.reduce(masks))
    margin = round(MARGIN * max(x1 - x0, y1 - y0))
    return slice(max(0, y0 - margin), y1 + margin), slice(max(0, x0 - margin), x1 + margin)

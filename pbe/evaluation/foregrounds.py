"""Where a picture shows its object, found by U2-Net for pictures without a mask.

    evaluate.foreground: u2netp.onnx     the small U2-Net (Qin et al., 2020, Apache-2.0), as rembg publishes it

No package that is kept well carries these weights, so that the file is the user's. OpenCV runs it, in about a second
a picture on one core.
"""

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.errors import UserError, one_line
from pbe.runtime.files import file_sha256
from pbe.types import Image, Mask

_INPUT_PX = 320
_MEAN, _STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
_THRESHOLD = 0.5


class FindObject(Protocol):
    """Finds the object in a picture (H, W, 3): returns (H, W) uint8, 1 where it is."""

    @property
    def name(self) -> str:
        """What it is, with a digest of its weights."""

    def __call__(self, image: Image) -> Mask: ...


class SalientObject:
    """U2-Net, from an ONNX file with one input (1, 3, 320, 320) and the map of the object as its first output."""

    def __init__(self, file: Path) -> None:
        """Load the network. Raises UserError when the file is missing or OpenCV cannot read it."""
        if not file.is_file():
            raise UserError(f"{file}: no such file; evaluate.foreground is U2-Net as ONNX, such as rembg's u2netp.onnx")
        try:
            self._net = cv2.dnn.readNetFromONNX(str(file))
        except cv2.error as error:
            raise UserError(f"{file}: OpenCV cannot read it as ONNX: {one_line(error)}") from None
        self._output = self._net.getUnconnectedOutLayersNames()[0]
        self.name = f"{file.stem} {file_sha256(file)[:32]}"

    def __call__(self, image: Image) -> Mask:
        height, width = image.shape[:2]
        found = self._saliency(image)
        return np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) > _THRESHOLD, np.uint8)

    def _saliency(self, image: Image) -> NDArray[np.float32]:
        """Return the map of the object, stretched to 0..1, at the network's size."""
        pixels = cv2.resize(image, (_INPUT_PX, _INPUT_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
        pixels = (pixels / max(float(pixels.max()), 1.0) - _MEAN) / _STD
        self._net.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        found = np.asarray(self._net.forward(self._output), np.float32)[0, 0]
        low, high = float(found.min()), float(found.max())
        return np.asarray((found - low) / max(high - low, 1e-6), np.float32)

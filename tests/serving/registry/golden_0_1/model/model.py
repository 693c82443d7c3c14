"""The served model: MLflow loads this file as code (no pickle) and calls it with pictures as PNG or JPEG bytes.

One row is one edit: columns source, mask (white = repaint) and exemplar, answered by a column image (PNG). The
parameters guidance_scale, num_steps and seed hold for every row alike, so that a row's result does not depend on its
place in the request.
"""

import io
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image as PILImage

from pbe.data.images import read_image
from pbe.method.exemplars import Image
from pbe.method.painter import Painter
from pbe.serving.editor import Mask, check_mask, check_options, edit, read_mask

COLUMNS = ("source", "mask", "exemplar")


class PaintByExample(PythonModel):
    """Paint by Example behind MLflow's pyfunc interface."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the painter from the model's artifacts."""
        self.painter = Painter.from_pretrained(Path(context.artifacts["painter"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Edit every row; raises ValueError naming the row and the column of a picture that cannot be used."""
        given = {"guidance_scale": 5.0, "num_steps": 50, "seed": 0, **(params or {})}
        scale, num_steps, seed = float(given["guidance_scale"]), int(given["num_steps"]), int(given["seed"])
        check_options(scale, num_steps, seed)
        rows = [_decode(row, number) for number, row in enumerate(model_input[list(COLUMNS)].to_dict("records"))]
        edits = (edit(self.painter, *row, guidance_scale=scale, num_steps=num_steps, seed=seed) for row in rows)
        return pd.DataFrame({"image": [_png(image) for image in edits]})


def _decode(row: dict[Any, Any], number: int) -> tuple[Image, Mask, Image]:
    names = {column: f"row {number}, column {column}" for column in COLUMNS}
    for column, name in names.items():
        if not isinstance(row[column], bytes):
            raise ValueError(f"{name}: is {type(row[column]).__name__}, not the bytes of a PNG or JPEG file")
    source, mask = _read(row["source"], names["source"]), read_mask(row["mask"], names["mask"])
    check_mask(mask, source, mask_name=names["mask"], source_name="column source")
    return source, mask, _read(row["exemplar"], names["exemplar"])


def _read(content: bytes, name: str) -> Image:
    """Decode as every image of the project is decoded; read_image takes files, so it gets one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        path.write_bytes(content)
        try:
            return read_image(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from None


def _png(image: Image) -> bytes:
    stream = io.BytesIO()
    PILImage.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


mlflow.models.set_model(PaintByExample())

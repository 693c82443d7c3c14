"""The served model: MLflow loads this file as code, without pickle, and calls it with the bytes of PNG or JPEG files.

One row is one edit: the columns source, mask (white = repaint) and exemplar give a column image (PNG). The parameters
guidance_scale, num_steps and seed apply to every row, so a row's result does not depend on its place in the request.
"""

import io
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image as PILImage

from pbe.dataset.images import decode_image
from pbe.dataset.mask_images import decode_mask
from pbe.errors import UserError
from pbe.method.painter import Painter
from pbe.serving.editor import check_mask, check_options, edit
from pbe.serving.registered_models import ARTIFACT
from pbe.types import Image, Mask

COLUMNS = ("source", "mask", "exemplar")
DEFAULTS = {"guidance_scale": 5.0, "num_steps": 50, "seed": 0}


class PaintByExample(PythonModel):
    """Paint by Example behind MLflow's pyfunc interface."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the painter from the model's artifacts."""
        self.painter = Painter.from_pretrained(Path(context.artifacts[ARTIFACT]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Edit every row; raises UserError naming the row and the column of an image that cannot be used."""
        given = DEFAULTS | (params or {})
        scale, num_steps, seed = float(given["guidance_scale"]), int(given["num_steps"]), int(given["seed"])
        check_options(scale, num_steps, seed)
        rows = [_decode_row(row, number) for number, row in enumerate(model_input[list(COLUMNS)].to_dict("records"))]
        edits = (edit(self.painter, *row, guidance_scale=scale, num_steps=num_steps, seed=seed) for row in rows)
        return pd.DataFrame({"image": [_encode_png(image) for image in edits]})


def _decode_row(row: dict[Any, Any], number: int) -> tuple[Image, Mask, Image]:
    names = {column: f"row {number}, column {column}" for column in COLUMNS}
    for column, name in names.items():
        if not isinstance(row[column], bytes):
            raise UserError(f"{name}: is {type(row[column]).__name__}, not the bytes of a PNG or JPEG file")
    source, mask = decode_image(row["source"], names["source"]), decode_mask(row["mask"], names["mask"])
    check_mask(mask, source, mask_name=names["mask"], source_name="column source")
    return source, mask, decode_image(row["exemplar"], names["exemplar"])


def _encode_png(image: Image) -> bytes:
    stream = io.BytesIO()
    PILImage.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


mlflow.models.set_model(PaintByExample())

"""The served model: MLflow loads this file as code, without pickle, and calls it with images as bytes or Base64.

One row is one edit: the columns source, mask (white = repaint) and exemplar give the columns image (PNG) and notes. The
parameters apply to every row, so a row's result does not depend on its place in the request.

MLflow's server runs each request in a thread, and answers 504 after a time limit while the thread continues. The
threads share one editor, which paints for one of them at a time, and an edit stops at the limit.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from pbe.errors import UserError, one_line
from pbe.method.painter import Painter
from pbe.runtime.devices import choose_device, choose_precision
from pbe.serving.editor import (
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    Cancelled,
    Edit,
    EditOptions,
    Editor,
    Exemplar,
    Region,
    check_mask,
    check_seed,
    read_exemplar,
    read_mask,
    read_source,
)
from pbe.serving.pictures import encode_png, losses
from pbe.serving.registry.registered_models import ARTIFACT, CONFIG
from pbe.serving.request_images import image_bytes

COLUMNS = ("source", "mask", "exemplar")
DEFAULTS: dict[str, float | int | str | bool] = {
    "guidance_scale": 5.0,
    "num_steps": DEFAULT_STEPS,
    "seed": 0,
    "max_magnification": 2.0,
    "invert_mask": False,
    "sampler": DEFAULT_SAMPLER,
    "context_px": -1,  # see EditOptions; -1 is None
}
_SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"  # MLflow's server sets it


@dataclass(frozen=True)
class Options:
    """The parameters of a request."""

    edit: EditOptions
    seed: int
    invert_mask: bool


class RequestError(MlflowException):
    """An error that the caller is shown: MLflow's server would put the request's data before the message."""

    message = property(lambda self: self.args[0] if self.args else "", lambda self, value: None)


class PaintByExample(PythonModel):
    """Paint by Example behind MLflow's pyfunc interface."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the painter from the model's artifacts, as `device` and `precision` of the model's configuration say.

        Raises UserError for a device that does not exist and for fp16 on a CPU.
        """
        config = CONFIG | (context.model_config or {})
        device = choose_device(str(config["device"]), "model_config: device")
        dtype = choose_precision(str(config["precision"]), device, "model_config: precision")
        self.editor = Editor(Painter.from_pretrained(Path(context.artifacts[ARTIFACT])).place(device, dtype))
        logging.getLogger("mlflow.models.utils").addFilter(_refuse_unknown_params)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Edit every row; raises RequestError naming the row and the column of an image that cannot be used."""
        deadline = _deadline()
        with _reported_to_caller():
            options = _options(params or {})
            if missing := [column for column in COLUMNS if column not in model_input]:
                raise UserError(f"the request lacks the columns {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
            records = model_input[list(COLUMNS)].to_dict("records")
            edits = [_decode_row(row, number, options) for number, row in enumerate(records)]
            return pd.DataFrame([self._edit(edit, deadline) for edit in edits], columns=["image", "notes"])

    def _edit(self, edit: Edit, deadline: float) -> dict[str, Any]:
        try:
            edited = self.editor.edit(edit, cancelled=lambda: time.monotonic() > deadline)
        except Cancelled:
            raise _too_late() from None
        notes = [*losses(edit.source, "PNG", edit.regions[0].mask), *edited.notes]
        return {"image": encode_png(edited.picture), "notes": "; ".join(notes)}


def _options(params: dict[str, Any]) -> Options:
    """Return the checked parameters, or their defaults."""
    values = _values(params)
    seed, invert_mask, context_px = values.pop("seed"), values.pop("invert_mask"), values.pop("context_px")
    options = EditOptions(**values, context_px=None if context_px == -1 else context_px)
    options.check()
    check_seed(seed)
    return Options(options, seed, invert_mask)


def _values(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with their defaults, of the right types."""
    if unknown := sorted(params.keys() - DEFAULTS.keys()):
        raise UserError(f"unknown parameters: {', '.join(unknown)}; known are {', '.join(DEFAULTS)}")
    given = DEFAULTS | {
        name: value.item() if isinstance(value, np.generic) else value for name, value in params.items()
    }
    for name, default in DEFAULTS.items():
        value = given[name]
        if isinstance(default, str):
            if not isinstance(value, str):
                raise UserError(f"parameter {name} is {value!r}: give a text such as {default}")
            continue
        if isinstance(value, bool) is not isinstance(default, bool) or not isinstance(value, int | float):
            raise UserError(
                f"parameter {name} is {value!r}: give {'true or false' if default is False else 'a number'}"
            )
        if isinstance(default, int) and value != int(value):
            raise UserError(f"parameter {name} is {value!r}: give a whole number")
    return {name: type(default)(given[name]) for name, default in DEFAULTS.items()}


def _decode_row(row: dict[Any, Any], number: int, options: Options) -> Edit:
    names = {column: f"row {number}, column {column}" for column in COLUMNS}
    data = {column: image_bytes(row[column], name) for column, name in names.items()}
    source, mask = read_source(data["source"], names["source"]), read_mask(data["mask"], names["mask"])
    mask = 1 - mask if options.invert_mask else mask
    check_mask(mask, source.shown, mask_name=names["mask"], source_name="column source")
    exemplar = Exemplar(read_exemplar(data["exemplar"], names["exemplar"]))
    return Edit(source, (Region(mask, (exemplar,)),), options.seed, options.edit)


@contextmanager
def _reported_to_caller() -> Iterator[None]:
    """Turn what the caller can correct into an answer of status 400 with our sentence as its message."""
    try:
        yield
    except UserError as error:
        raise RequestError(one_line(error), error_code=INVALID_PARAMETER_VALUE) from None


def _deadline() -> float:
    """Return when MLflow's server answers 504, on the monotonic clock; infinity outside of it."""
    if os.environ.get(_SERVING) != "true":
        return float("inf")
    return time.monotonic() + float(MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())


def _too_late() -> RequestError:
    message = (
        "the edit was stopped at the server's time limit; set MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT to more seconds"
    )
    return RequestError(message, error_code=TEMPORARILY_UNAVAILABLE)


def _refuse_unknown_params(record: logging.LogRecord) -> bool:
    """Raise RequestError where MLflow only logs that it drops parameters, before the model sees them."""
    message = record.getMessage()
    if message.startswith("Unrecognized params") and all(name in message for name in DEFAULTS):
        raise RequestError(f"{message.split(' are ignored')[0]}; known are {', '.join(DEFAULTS)}",
                           error_code=INVALID_PARAMETER_VALUE)  # fmt: skip
    return True


mlflow.models.set_model(PaintByExample())

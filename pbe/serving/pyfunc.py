"""The served model: MLflow loads this file as code, without pickle, and calls it with images as bytes or Base64.

One row is one edit: the columns source, mask (white = repaint) and exemplar give the columns image (PNG) and notes. The
parameters apply to every row, so a row's result does not depend on its place in the request.

MLflow's server runs each request in a thread, and answers 504 after a time limit while the thread continues. Here the
edits of one process take turns, since two at a time are no faster and need twice the memory, and stop at the limit.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    check_mask,
    check_options,
    edit_picture,
    mask_notes,
    read_exemplar,
    read_mask,
    read_source,
)
from pbe.serving.pictures import Picture, encode_png, losses
from pbe.serving.registry.registered_models import ARTIFACT, CONFIG
from pbe.serving.request_images import image_bytes
from pbe.types import Image, Mask

COLUMNS = ("source", "mask", "exemplar")
DEFAULTS = {"guidance_scale": 5.0, "num_steps": 50, "seed": 0, "max_magnification": 2.0, "invert_mask": False}
_SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"  # MLflow's server sets it

Row = tuple[Picture, Mask, Image]


class RequestError(MlflowException):
    """An error that the caller is shown: MLflow's server would put the request's data before the message."""

    message = property(lambda self: self.args[0] if self.args else "", lambda self, value: None)


class PaintByExample(PythonModel):
    """Paint by Example behind MLflow's pyfunc interface."""

    turn = threading.Lock()  # of the edits in this process

    def load_context(self, context: PythonModelContext) -> None:
        """Load the painter from the model's artifacts, as `device` and `precision` of the model's configuration say.

        Raises UserError for a device that does not exist and for fp16 on a CPU.
        """
        config = CONFIG | (context.model_config or {})
        device = choose_device(str(config["device"]), "model_config: device")
        dtype = choose_precision(str(config["precision"]), device, "model_config: precision")
        self.painter = Painter.from_pretrained(Path(context.artifacts[ARTIFACT])).place(device, dtype)
        logging.getLogger("mlflow.models.utils").addFilter(_refuse_unknown_params)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Edit every row; raises RequestError naming the row and the column of an image that cannot be used."""
        deadline = _deadline()
        with _reported_to_caller():
            options = _options(params or {})
            invert = options.pop("invert_mask")
            if missing := [column for column in COLUMNS if column not in model_input]:
                raise UserError(f"the request lacks the columns {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
            records = model_input[list(COLUMNS)].to_dict("records")
            rows = [_decode_row(row, number, invert) for number, row in enumerate(records)]
            with _turn(self.turn, deadline):
                return pd.DataFrame([self._edit(row, options, deadline) for row in rows], columns=["image", "notes"])

    def _edit(self, row: Row, options: dict[str, Any], deadline: float) -> dict[str, Any]:
        source, mask, exemplar = row
        notes = losses(source, "PNG", mask) + mask_notes(mask, self.painter.image_px, options["max_magnification"])
        result = edit_picture(self.painter, source, mask, exemplar, **options, on_step=_until(deadline))
        return {"image": encode_png(result), "notes": "; ".join(notes)}


def _options(params: dict[str, Any]) -> dict[str, Any]:
    """Return the checked parameters with their defaults, of the right types."""
    if unknown := sorted(params.keys() - DEFAULTS.keys()):
        raise UserError(f"unknown parameters: {', '.join(unknown)}; known are {', '.join(DEFAULTS)}")
    given = DEFAULTS | {
        name: value.item() if isinstance(value, np.generic) else value for name, value in params.items()
    }
    for name, default in DEFAULTS.items():
        value = given[name]
        if isinstance(value, bool) is not isinstance(default, bool) or not isinstance(value, int | float):
            raise UserError(
                f"parameter {name} is {value!r}: give {'true or false' if default is False else 'a number'}"
            )
        if isinstance(default, int) and value != int(value):
            raise UserError(f"parameter {name} is {value!r}: give a whole number")
    options: dict[str, Any] = {name: type(default)(given[name]) for name, default in DEFAULTS.items()}
    check_options(**{name: value for name, value in options.items() if name != "invert_mask"})
    return options


def _decode_row(row: dict[Any, Any], number: int, invert_mask: bool) -> Row:
    names = {column: f"row {number}, column {column}" for column in COLUMNS}
    data = {column: image_bytes(row[column], name) for column, name in names.items()}
    source, mask = read_source(data["source"], names["source"]), read_mask(data["mask"], names["mask"])
    mask = 1 - mask if invert_mask else mask
    check_mask(mask, source.shown, mask_name=names["mask"], source_name="column source")
    return source, mask, read_exemplar(data["exemplar"], names["exemplar"])


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


@contextmanager
def _turn(lock: threading.Lock, deadline: float) -> Iterator[None]:
    """Hold the lock; raise RequestError when it is not free before the deadline."""
    left_s = deadline - time.monotonic()
    if not lock.acquire(timeout=-1 if left_s == float("inf") else max(0, left_s)):
        raise _too_late()
    try:
        yield
    finally:
        lock.release()


def _until(deadline: float) -> Callable[..., None]:
    """Return a step's callback that raises RequestError after the deadline, which stops the sampler."""

    def check(done: int, total: int, note: str = "") -> None:
        if time.monotonic() > deadline:
            raise _too_late()

    return check


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

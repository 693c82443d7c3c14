"""The served model: which forms of images and parameters it takes, and what it answers."""

import base64
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModelContext

from pbe.errors import UserError
from pbe.method.painter import Painter
from pbe.runtime.devices import choose_device, choose_precision
from pbe.serving.editor import Editor
from pbe.serving.pyfunc import DEFAULTS, PaintByExample, RequestError, _refuse_unknown_params
from pbe.serving.registry.versions import SIGNATURE
from pbe.serving.request_images import image_bytes

FILES = {"source": "s.png", "mask": "m.png", "exemplar": "e.jpg"}
STEPS = {"num_steps": 2}


@pytest.fixture
def served(painter: Painter) -> PaintByExample:
    model = PaintByExample()
    model.editor = Editor(painter)
    return model


@pytest.fixture
def row(images: Path) -> dict[str, bytes]:
    return {column: (images / file).read_bytes() for column, file in FILES.items()}


def predict(model: PaintByExample, row: dict[str, Any], **params: Any) -> pd.DataFrame:
    context = PythonModelContext(artifacts={}, model_config={})
    return model.predict(context, pd.DataFrame([row]), STEPS | params)


def load(model_folder: Path, **config: Any) -> Painter:
    """Load the served model with this configuration, and return its painter."""
    model = PaintByExample()
    model.load_context(PythonModelContext(artifacts={"painter": str(model_folder)}, model_config=config))
    painter = model.editor.painter
    assert isinstance(painter, Painter)
    return painter


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_configuration_says_where_and_in_which_precision_it_runs(
    model_folder: Path, precision: str, dtype: torch.dtype
) -> None:
    painter = load(model_folder, device="cpu", precision=precision)
    assert {(p.device.type, p.dtype) for p in painter.parameters()} == {("cpu", dtype)}


def test_a_model_that_was_logged_without_a_configuration_loads(model_folder: Path) -> None:
    device = choose_device("auto")
    parameter = next(load(model_folder).parameters())
    assert (parameter.device.type, parameter.dtype) == (device.type, choose_precision("auto", device))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"device": "cuda:99"}, "model_config: device 'cuda:99': this machine has "),
        ({"device": 0}, "model_config: device '0': unknown; choose auto, cpu, cuda or cuda:1"),
        ({"device": "cpu", "precision": "fp16"}, "model_config: precision 'fp16': needs a GPU"),
    ],
)
def test_a_configuration_that_this_machine_cannot_follow_is_an_error(
    model_folder: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as error:
        load(model_folder, **config)
    assert str(error.value).startswith(words)


def as_url_safe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def as_lines(data: bytes) -> str:
    return base64.encodebytes(data).decode()


FORMS: dict[str, Callable[[bytes], object]] = {
    "bytearray": bytearray,
    "base64": lambda data: base64.b64encode(data).decode(),
    "URL-safe": as_url_safe,
    "without padding": lambda data: as_url_safe(data).rstrip("="),
    "lines": as_lines,
    "data URI": lambda data: "data:image/png;base64," + base64.b64encode(data).decode(),
    "escaped data URI": lambda data: "data:;base64," + base64.b64encode(data).decode().replace("+", "%2B"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 2, 3, 257])
def test_bytes_are_read_in_every_form(form: str, length: int) -> None:
    data = bytes(reversed(range(256))) * 2
    assert image_bytes(FORMS[form](data[:length]), "row 0") == data[:length]


@pytest.mark.parametrize("value", ["not base64!", "a", 3, None, float("nan"), ["x"]])
def test_other_values_are_explained(value: object) -> None:
    with pytest.raises(UserError, match=r"^row 0, column mask: is .*base64"):
        image_bytes(value, "row 0, column mask")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_paints_the_same_image(form: str, served: PaintByExample, row: dict[str, bytes]) -> None:
    encoded = {column: FORMS[form](data) for column, data in row.items()}
    assert predict(served, encoded)["image"][0] == predict(served, row)["image"][0]


@pytest.mark.parametrize(
    ("change", "params", "words"),
    [
        ({"exemplar": b"no image"}, {}, "row 0, column exemplar: not an image"),
        ({"source": b"%!PS-Adobe-3.0 EPSF-3.0"}, {}, "row 0, column source: not an image"),
        ({"mask": "?"}, {}, "row 0, column mask: is text but not base64"),
        ({}, {"num_steps": 0}, "number of steps is 0"),
        ({}, {"num_steps": 2.5}, "parameter num_steps is 2.5: give a whole number"),
        ({}, {"seed": "a"}, "parameter seed is 'a': give a number"),
        ({}, {"guidance_scale": 1000.0}, "guidance scale is 1000"),
        ({}, {"guidance": 3}, "unknown parameters: guidance; known are guidance_scale, "),
        ({}, {"invert_mask": 1}, "parameter invert_mask is 1: give true or false"),
        ({}, {"sampler": "euler"}, "sampler is euler: give one of plms, "),
        ({}, {"sampler": 3}, "parameter sampler is 3: give a text such as unipc"),
        ({}, {"context_px": -2}, "context is -2 px: "),
    ],
)
def test_a_mistake_is_our_own_sentence_with_status_400(
    change: dict[str, Any], params: dict[str, Any], words: str, served: PaintByExample, row: dict[str, bytes]
) -> None:
    with pytest.raises(MlflowException) as error:
        predict(served, row | change, **params)
    error.value.message = f"Failed to predict data '...'. \nError: {error.value.message}"  # as MLflow's server does
    answer = json.loads(error.value.serialize_as_json())
    assert answer["message"].startswith(words)
    assert answer["error_code"] == "INVALID_PARAMETER_VALUE"
    assert error.value.get_http_status_code() == 400


def test_a_missing_column_is_named(served: PaintByExample, row: dict[str, bytes]) -> None:
    del row["mask"]
    with pytest.raises(RequestError, match="the request lacks the columns mask"):
        predict(served, row)


def test_parameters_that_mlflow_drops_are_refused() -> None:
    message = f"Unrecognized params ['guidance'] are ignored for inference. Supported params are: {set(DEFAULTS)}."
    record = logging.LogRecord("mlflow.models.utils", logging.WARNING, "", 0, message, None, None)
    with pytest.raises(RequestError, match=r"Unrecognized params \['guidance'\]; known are"):
        _refuse_unknown_params(record)
    other = logging.LogRecord("mlflow.models.utils", logging.WARNING, "", 0, "Something else", None, None)
    assert _refuse_unknown_params(other)


def test_the_signature_declares_the_parameters_and_their_defaults() -> None:
    assert {spec.name: spec.default for spec in SIGNATURE.params.params} == DEFAULTS


def test_notes_say_what_is_not_painted(served: PaintByExample, row: dict[str, bytes]) -> None:
    assert predict(served, row)["notes"][0] == ""
    assert "greyscale" in predict(served, row | {"source": row["mask"]})["notes"][0]


def test_an_inverted_mask_paints_the_rest(served: PaintByExample, row: dict[str, bytes]) -> None:
    plain, inverted = (predict(served, row, invert_mask=value)["image"][0] for value in (False, True))
    assert plain != inverted


def test_parallel_requests_get_the_images_of_requests_in_turn(served: PaintByExample, row: dict[str, bytes]) -> None:
    alone = [predict(served, row, seed=seed)["image"][0] for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: predict(served, row, seed=seed)["image"][0], range(8)))
    assert together == alone


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "1")


@pytest.mark.usefixtures("serving")
def test_a_request_stops_at_the_servers_time_limit(served: PaintByExample, row: dict[str, bytes]) -> None:
    before = time.monotonic()
    with pytest.raises(RequestError, match="stopped at the server's time limit"):
        predict(served, row, num_steps=1000)
    assert time.monotonic() - before < 5
    assert predict(served, row)["image"][0]  # the next one is served


@pytest.mark.usefixtures("serving")
def test_a_request_that_waits_too_long_for_its_turn_is_not_painted(
    served: PaintByExample, row: dict[str, bytes]
) -> None:
    with served.editor._turn, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(predict, served, row)
        with pytest.raises(RequestError, match="time limit"):
            waiting.result()

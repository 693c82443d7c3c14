"""The ComfyUI node against a running service, without ComfyUI."""

import importlib.util
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pbe.serving.editor import Edit, EditOptions, Exemplar, Region, picture_of
from tests.serving.conftest import build_painter
from tests.support.running_service import ALICE, RunningService, running_service, write_tokens

NODE_FILE = Path(__file__).parents[2] / "integrations" / "comfyui_pbe.py"


def load_node() -> Any:
    """Import the file as ComfyUI does, by its path."""
    spec = importlib.util.spec_from_file_location("comfyui_pbe", NODE_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("comfyui")
    build_painter(0).save_pretrained(folder / "pbe")
    with running_service(folder / "pbe", tokens_file=write_tokens(folder)) as running:
        yield running


@pytest.fixture
def inputs(service: RunningService) -> dict[str, Any]:
    """Return two images, a mask and an exemplar as ComfyUI has them."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(40, 48)
    mask[10:25, 8:30] = 1
    return {
        "source": torch.rand(2, 40, 48, 3, generator=generator),
        "mask": mask[None],
        "exemplar": torch.rand(1, 30, 20, 3, generator=generator),
        "server": service.url,
        "seed": 3,
        "guidance": 2.0,
        "token": ALICE,
        "num_steps": 2,
    }


def as_bytes(image: torch.Tensor) -> Any:
    return (255 * image.numpy()).astype(np.uint8)


def paint(inputs: dict[str, Any], **changes: Any) -> torch.Tensor:
    (result,) = load_node().PaintByExample().paint(**{**inputs, **changes})
    assert isinstance(result, torch.Tensor)
    return result


def test_the_node_is_registered_with_its_inputs() -> None:
    module = load_node()
    node = module.NODE_CLASS_MAPPINGS["PaintByExample"]
    sections = node.INPUT_TYPES()

    assert list(sections["required"]) == ["source", "mask", "exemplar", "server", "seed", "guidance"]
    assert node.RETURN_TYPES == ("IMAGE",)
    assert module.NODE_DISPLAY_NAME_MAPPINGS == {"PaintByExample": "Paint by Example"}


def test_a_batch_has_the_bits_that_the_editor_paints(service: RunningService, inputs: dict[str, Any]) -> None:
    result = paint(inputs)

    assert (result.shape, result.dtype) == (inputs["source"].shape, torch.float32)
    mask = inputs["mask"][0].numpy().astype(np.uint8)
    assert torch.equal(result[:, mask == 0], inputs["source"][:, mask == 0])  # floats, to the last bit
    editor = service.dispatcher.models.resolve(None).editor
    region = Region(mask, (Exemplar(as_bytes(inputs["exemplar"][0])),))
    for i, image in enumerate(inputs["source"]):
        options = EditOptions(guidance_scale=2.0, num_steps=2)
        edited = editor.edit(Edit(picture_of(as_bytes(image)), (region,), 3 + i, options)).picture.pixels
        np.testing.assert_array_equal(as_bytes(result[i] + 1e-4)[mask == 1], edited[mask == 1])


def test_several_exemplars_are_one_object_or_one_for_each_image(inputs: dict[str, Any]) -> None:
    exemplars = torch.cat([inputs["exemplar"], 1 - inputs["exemplar"]])
    averaged, each = (paint(inputs, exemplar=exemplars, exemplar_batch=how) for how in ("one object", "one per image"))
    first = paint(inputs)

    assert torch.equal(each[0], first[0])
    assert not torch.equal(each[1], first[1])
    assert not torch.equal(averaged[0], first[0])


def test_a_mask_for_each_image_and_a_mask_without_a_batch(inputs: dict[str, Any]) -> None:
    one = inputs["mask"][0]
    other = torch.roll(one, 10, dims=1)
    result = paint(inputs, mask=torch.stack([one, other]))

    assert torch.equal(result[0], paint(inputs, mask=one)[0])
    assert torch.equal(result[1][other == 0], inputs["source"][1][other == 0])


def test_the_token_may_come_from_the_environment(inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PBE_TOKEN", ALICE)
    assert torch.equal(paint(inputs, token="", server=f"{inputs['server']}/v1/"), paint(inputs))
    monkeypatch.delenv("PBE_TOKEN")
    with pytest.raises(RuntimeError, match=r"Paint by Example, image 1 of 2: .*\(HTTP 401 of http://127"):
        paint(inputs, token="")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": torch.zeros(1, 40, 48)}, r"image 1 of 2: .*mask marks nothing.*\(HTTP 400"),
        ({"mask": torch.ones(3, 40, 48)}, "mask: 3 masks for 2 images"),
        ({"mask": torch.ones(1, 64, 64)}, "mask is 64 x 64 but source is 48 x 40.*Load Image gives an empty mask"),
        ({"mask": torch.ones(1, 4, 4)}, "mask is 4 x 4 but source is 48 x 40: give both the same size$"),
        ({"exemplar": torch.ones(3, 8, 8, 3), "exemplar_batch": "one per image"}, "exemplar: 3 exemplars for 2"),
        ({"model": "other"}, r"other.*\(HTTP 404"),
        ({"server": "127.0.0.1:8000"}, "server: '127.0.0.1:8000' is no address; give http://HOST:PORT"),
        ({"server": "http://127.0.0.1:9"}, r"http://127\.0\.0\.1:9/v1/images/edits does not answer: .*refused"),
    ],
)
def test_an_error_is_a_sentence(inputs: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=message):
        paint(inputs, **changes)


def test_a_busy_service_is_waited_for_and_a_stranger_is_named(inputs: dict[str, Any]) -> None:
    codes = [429, 503, 200]

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(codes.pop(0))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(RuntimeError, match="the answer is not that of a Paint by Example service"):
                paint(inputs, server=f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert codes == []

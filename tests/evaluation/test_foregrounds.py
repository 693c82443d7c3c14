"""Objects found by a network in an ONNX file; here a single convolution that adds the channels up."""

from pathlib import Path

import numpy as np
import pytest

from pbe.errors import UserError
from pbe.evaluation.foregrounds import SalientObject


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes | str) -> bytes:
    """Return one field of a protocol buffer: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def value_info(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def write_network(file: Path) -> None:
    """Write a network (1, 3, 320, 320) -> (1, 1, 320, 320) whose output is the sum of the channels."""
    weights = np.ones((1, 3, 1, 1), np.float32)
    tensor = (
        b"".join(field(1, size) for size in weights.shape) + field(2, 1) + field(8, "w") + field(9, weights.tobytes())
    )
    node = field(1, "x") + field(1, "w") + field(2, "y") + field(4, "Conv")
    inputs, output = value_info("x", (1, 3, 320, 320)), value_info("y", (1, 1, 320, 320))
    graph = field(1, node) + field(2, "sum") + field(5, tensor) + field(11, inputs) + field(12, output)
    file.write_bytes(field(1, 7) + field(7, graph) + field(8, field(2, 11)))


def test_the_object_is_where_the_networks_map_is_above_half_of_its_range(tmp_path: Path) -> None:
    write_network(tmp_path / "bright.onnx")
    image = np.full((30, 40, 3), 20, np.uint8)
    image[10:20, 8:24] = 200
    mask = SalientObject(tmp_path / "bright.onnx")(image)
    expected = np.zeros((30, 40), np.uint8)
    expected[10:20, 8:24] = 1
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)


def test_a_picture_of_one_colour_shows_no_object(tmp_path: Path) -> None:
    write_network(tmp_path / "bright.onnx")
    assert not SalientObject(tmp_path / "bright.onnx")(np.full((8, 8, 3), 20, np.uint8)).any()


def test_the_name_holds_a_digest_of_the_weights(tmp_path: Path) -> None:
    write_network(tmp_path / "bright.onnx")
    assert SalientObject(tmp_path / "bright.onnx").name.startswith("bright ")


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file; evaluate\.foreground is U2-Net as ONNX"):
        SalientObject(tmp_path / "u2netp.onnx")
    (tmp_path / "u2netp.onnx").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"u2netp\.onnx: OpenCV cannot read it as ONNX"):
        SalientObject(tmp_path / "u2netp.onnx")

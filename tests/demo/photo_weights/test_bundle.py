"""Bundling a trained painter: half the bytes, the same model to fp16, and the card beside it stays."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pbe.demo.photo_weights.bundle import bundle
from pbe.errors import UserError
from pbe.method.painter import Painter
from tests.support.tiny_painter import changed_painter


def test_a_bundled_painter_is_the_model_in_fp16_beside_its_card(tmp_path: Path, backbone: Path) -> None:
    painter, out = changed_painter(backbone), tmp_path / "bundled"
    painter.save_pretrained(tmp_path / "model")
    (out / "unet").mkdir(parents=True)
    (out / "README.md").write_text("card")
    (out / "unet/old.safetensors").touch()
    bundle(tmp_path / "model", out)
    assert (out / "README.md").read_text() == "card"
    assert not (out / "unet/old.safetensors").exists()
    for file in out.rglob("*.safetensors"):
        assert {t.dtype for t in load_file(file).values() if t.is_floating_point()} == {torch.float16}
    read = Painter.from_pretrained(out).state_dict()
    for name, tensor in painter.state_dict().items():
        torch.testing.assert_close(read[name], tensor.half().float() if tensor.is_floating_point() else tensor)


def test_what_is_not_a_painter_is_refused(tmp_path: Path, backbone: Path) -> None:
    with pytest.raises(UserError, match="not a painter"):
        bundle(backbone, tmp_path / "bundled")
    assert not (tmp_path / "bundled").exists()

"""Files of weights: what is found in a folder, and how damaged files and other models are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pbe.errors import UserError
from pbe.method.painter import Painter
from pbe.method.weight_files import check_finite, check_weights, find_weights, read_weights
from tests.support.tiny_painter import changed_painter

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 1213000000\n"
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
ENCODER = "image_encoder/model.safetensors"


@pytest.fixture(scope="module")
def saved(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("painter")
    changed_painter(backbone).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of a complete model."""
    shutil.copytree(saved, tmp_path / "model")
    return tmp_path / "model"


def change_json(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_tensor(file: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(file)
    save_file(tensors | {name: change(tensors[name])}, file, {"format": "pt"})


@pytest.mark.parametrize("part", [UNET, VAE, ENCODER])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: LFS, "is a Git LFS pointer"),
        (lambda content: b"", "is empty"),
        (lambda content: content[:-1000], "bytes instead of"),
        (lambda content: content[:50], "bytes instead of"),
        (lambda content: content[:4], "bytes instead of"),
        (lambda content: b"<!DOCTYPE html>", "is a web page"),
        (lambda content: b"\0" * 5000, "is damaged"),
        (lambda content: content + b"more", "bytes instead of"),
    ],
    ids=["pointer", "empty", "cut", "cut in its header", "a few bytes", "page", "zeros", "longer"],
)
def test_a_damaged_file_is_named(part: str, damage: Callable[[bytes], bytes], words: str, folder: Path) -> None:
    (folder / part).write_bytes(damage((folder / part).read_bytes()))
    with pytest.raises(UserError, match=words) as error:
        Painter.from_pretrained(folder)
    assert Path(part).name in str(error.value)


@pytest.mark.parametrize("content", [LFS, b"", b"no pickle", b"PK\x03\x04 cut"])
@pytest.mark.parametrize("part", [UNET, ENCODER])
def test_a_damaged_pickle_is_named(part: str, content: bytes, folder: Path) -> None:
    file = (folder / part).with_name("pytorch_model.bin" if part == ENCODER else "diffusion_pytorch_model.bin")
    (folder / part).unlink()
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file.name}: is "):
        Painter.from_pretrained(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / ENCODER).unlink()
    with pytest.raises(UserError, match=r"image_encoder: holds no weights \(model.safetensors is missing\)"):
        Painter.from_pretrained(folder)


@pytest.mark.parametrize(
    "name", ["model_index.json", "image_encoder/config.json", "unet/config.json", "vae/config.json",
             "scheduler/scheduler_config.json"],
)  # fmt: skip
@pytest.mark.parametrize("content", ["", "{", "[]", '{"a"'])
def test_a_configuration_that_is_no_json_is_named(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=f"{name}: "):
        Painter.from_pretrained(folder)


@pytest.mark.parametrize("part", [UNET, VAE, ENCODER])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(part: str, value: float, folder: Path) -> None:
    name = sorted(load_file(folder / part))[0]
    change_tensor(folder / part, name, lambda tensor: torch.full_like(tensor, value))
    with pytest.raises(UserError, match="holds NaN or infinite values"):
        Painter.from_pretrained(folder)


def test_large_finite_weights_are_no_infinity() -> None:
    check_finite("x", {"a": torch.full((10,), 3e38), "steps": torch.tensor(3)})
    with pytest.raises(UserError, match="x: a holds NaN"):
        check_finite("x", {"a": torch.tensor([1.0, torch.inf])})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trained_betas", [0.1] * 1000),
        ("rescale_betas_zero_snr", True),
        ("prediction_type", "v_prediction"),
        ("beta_schedule", "linear"),
        ("beta_start", "a"),
        ("beta_end", 1.5),
        ("num_train_timesteps", "many"),
    ],
)
def test_a_noise_schedule_that_is_not_computed_is_refused(key: str, value: object, folder: Path) -> None:
    change_json(folder / "scheduler/scheduler_config.json", **{key: value})
    with pytest.raises(UserError, match=f"scheduler_config.json: .*{key}"):
        Painter.from_pretrained(folder)


def test_a_unet_of_four_channels_is_refused(folder: Path) -> None:
    change_tensor(folder / UNET, "conv_in.weight", lambda weight: weight[:, :4].contiguous())
    change_json(folder / "unet/config.json", in_channels=4)
    with pytest.raises(UserError, match=r"unet/config.json: in_channels is 4; Paint by Example needs 9"):
        Painter.from_pretrained(folder)


@pytest.mark.parametrize(("key", "value"), [("image_px", 30), ("image_px", "64"), ("mask_channel", "both")])
def test_an_index_out_of_range_is_refused(key: str, value: object, folder: Path) -> None:
    change_json(folder / "model_index.json", **{key: value})
    with pytest.raises(UserError, match=rf"model_index.json: {key} is "):
        Painter.from_pretrained(folder)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return Painter.from_pretrained(folder).state_dict()


def test_variants_in_half_precision_are_read(folder: Path) -> None:
    expected = tensors_of(folder)
    for file in (UNET, VAE, ENCODER):
        halves = {name: tensor.half() for name, tensor in load_file(folder / file).items()}
        save_file(halves, (folder / file).with_suffix(".fp16.safetensors"), {"format": "pt"})
        (folder / file).unlink()
    for name, tensor in tensors_of(folder).items():
        assert tensor.dtype == expected[name].dtype
        np.testing.assert_allclose(tensor, expected[name], rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_sharded_weights_are_read(suffix: str, folder: Path) -> None:
    expected = tensors_of(folder)
    for file in (UNET, VAE, ENCODER):
        shard((folder / file), suffix)
    read = tensors_of(folder)
    assert all(torch.equal(read[name], expected[name]) for name in expected)


def shard(file: Path, suffix: str) -> list[Path]:
    """Replace a file of weights by two shards and their index."""
    tensors = load_file(file)
    stem = "pytorch_model" if (suffix, file.stem) == (".bin", "model") else file.stem
    names = sorted(tensors)
    weight_map, files = {}, []
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard_file = file.with_name(f"{stem}-0000{number}-of-00002{suffix}")
        some = {name: tensors[name] for name in part}
        if suffix == ".bin":
            torch.save(some, shard_file)
        else:
            save_file(some, shard_file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, shard_file.name)
        files.append(shard_file)
    file.unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    file.with_name(f"{stem}{suffix}.index.json").write_text(json.dumps(index))
    return files


def test_a_missing_shard_is_named(folder: Path) -> None:
    first, _ = shard(folder / UNET, ".safetensors")
    first.unlink()
    with pytest.raises(UserError, match=f"{first.name}: is missing"):
        Painter.from_pretrained(folder)


def test_full_precision_comes_before_a_variant_and_safetensors_before_pickles(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2)}
    for name in ("model.fp16.safetensors", "model.safetensors"):
        save_file(tensors, tmp_path / name)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    found = find_weights(tmp_path, "model", "pytorch_model")
    assert found == ((tmp_path / "model.safetensors",), None)
    (tmp_path / "model.safetensors").unlink()
    assert find_weights(tmp_path, "model", "pytorch_model").variant == "fp16"


def test_a_file_that_holds_other_objects_than_tensors_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    torch.save([1], file)
    check_weights(file)
    with pytest.raises(UserError, match=r"a\.bin: holds list, not named tensors"):
        read_weights(file)
    torch.save({"a": Path("x")}, file)
    with pytest.raises(UserError, match=r"a\.bin: holds Python objects that are not tensors"):
        read_weights(file)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("unet/config.json", "act_fn", 3),
        ("unet/config.json", "attention_head_dim", 0),
        ("unet/config.json", "block_out_channels", []),
        ("vae/config.json", "norm_num_groups", 0),
        ("vae/config.json", "block_out_channels", "x"),
        ("image_encoder/config.json", "hidden_size", "x"),
        ("image_encoder/config.json", "hidden_size", 7),
        ("image_encoder/config.json", "hidden_act", "x"),
        ("image_encoder/config.json", "patch_size", 0),
        ("image_encoder/config.json", "image_size", None),
    ],
)
def test_values_that_no_model_can_have_are_one_line(
    name: str, key: str, value: object, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change_json(folder / name, **{key: value})
    with pytest.raises(UserError, match=name.split("/")[0]) as error:
        Painter.from_pretrained(folder)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_the_libraries_warnings_are_not_printed(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(folder / UNET)
    save_file({name: tensors[name] for name in sorted(tensors)[3:]} | {"more": torch.ones(1)}, folder / UNET)
    with pytest.raises(UserError, match="unet: lacks "):
        Painter.from_pretrained(folder)
    assert capfd.readouterr().err == ""

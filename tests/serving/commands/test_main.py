"""The `pbe` command: what it writes, what it reports for each mistake, and what a bug leaves."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from pbe.method.painter import Painter
from pbe.method.sampling import SAMPLERS
from pbe.runtime.devices import has_fast_bf16
from pbe.serving.commands.flags import PaintingFlags, Sampler
from pbe.serving.commands.main import main
from pbe.serving.commands.model_choice import _project_registry
from pbe.serving.editor import EditOptions
from pbe.training.lora import add_adapters, take_adapter, write_adapter
from pbe.training.painting_loss import PaintingLoss


def edit(images: Path, *more: str) -> int:
    """Run `pbe edit` in this process; later options override the usual ones."""
    usual = [f"--{name}={images / file}" for name, file in FILES.items()]
    return main(["edit", *usual, "--num-steps=2", *more])


FILES = {"source": "s.png", "mask": "m.png", "exemplar": "e.jpg", "out": "o.png"}


def test_an_edit_changes_masked_pixels_only(
    images: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit(images, f"--model={model_folder}") == 0

    source, mask, out = (np.asarray(PILImage.open(images / file)) for file in ("s.png", "m.png", "o.png"))
    assert np.array_equal(out[mask == 0], source[mask == 0])
    assert (out[mask == 255] != source[mask == 255]).any()
    assert capsys.readouterr().err == ""


def test_the_seed_decides_the_result(images: Path, model_folder: Path) -> None:
    results = []
    for seed in (1, 1, 2):
        assert edit(images, f"--model={model_folder}", f"--seed={seed}") == 0
        results.append((images / "o.png").read_bytes())

    assert results[0] == results[1] != results[2]


def test_in_bf16_the_result_differs_and_unmasked_pixels_stay(images: Path, model_folder: Path) -> None:
    painted = {}
    for precision in ("fp32", "bf16", "auto"):
        assert edit(images, f"--model={model_folder}", "--device=cpu", f"--precision={precision}") == 0
        painted[precision] = np.asarray(PILImage.open(images / "o.png"))
    source, mask = (np.asarray(PILImage.open(images / file)) for file in ("s.png", "m.png"))

    assert np.array_equal(painted["bf16"][mask == 0], source[mask == 0])
    assert not np.array_equal(painted["bf16"], painted["fp32"])
    fast = "bf16" if has_fast_bf16(torch.device("cpu")) else "fp32"
    assert np.array_equal(painted["auto"], painted[fast])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_missing_is_one_line(
    images: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit(images, f"--model={model_folder}", "--device=cuda") == 2
    message = "error: --device 'cuda': this machine has no GPU that PyTorch can use; choose auto or cpu\n"
    assert capsys.readouterr().err == message


MISTAKES = [
    (["--guidance-scale=-1"], "guidance scale is -1: "),
    (["--guidance-scale", "-1"], "guidance scale is -1: "),
    (["--guidance-scale=much"], "argument --guidance-scale: invalid float value: 'much'"),
    (["--num-steps=0"], "number of steps is 0: "),
    (["--seed=-1"], "seed is -1: "),
    (["--source={}/none.png"], "none.png: no such file"),
    (["--mask={}/none.png"], "none.png: no such file"),
    (["--exemplar={}/none.png"], "none.png: no such file"),
    (["--source={}/truncated.png"], "truncated.png: cannot be decoded"),
    (["--mask={}/small.png"], "small.png is 8 x 8 but source "),
    (["--mask={}/black.png"], "black.png marks nothing"),
    (["--out={}"], "is a folder"),
    (["--out={}/nowhere/o.png"], "there is no folder "),
    (["--out={}/o.gif"], "o.gif: name it .png"),
    (["--out={}/" + 250 * "o" + ".png"], "the name of 254 bytes is too long"),
    (["--out={}/link.png"], "link.png: is a link"),
    (["--out={}/dangling.png"], "dangling.png: is a link"),
    (["--out={}/protected.png"], "protected.png: is read-only"),
    (["--preview={}/link.png"], "--preview"),
    (["--exemplar={}/clear.png"], "clear.png is fully transparent"),
    (["--mask={}/moving.gif"], "moving.gif: refused: a GIF of several"),
    (["--mask={}/white.png", "--invert-mask"], "white.png marks nothing"),
    (["--guidance-scale=51"], "guidance scale is 51: "),
    (["--guidance-scale=nan"], "guidance scale is nan: "),
    (["--max-magnification=0"], "magnification is 0: "),
    (["--exemplar={}"], "cannot be read: is a directory"),
    (["--model={}/none"], "no such folder, and not a registered model ("),
    (["--model={}"], "not a model (model_index.json is missing)"),
    (["--model={}", "--device=cuda:99"], "error: --device 'cuda:99': this machine has "),
    (["--model={}", "--device=gpu"], "error: --device 'gpu': unknown; choose auto, cpu, cuda or cuda:1"),
    (["--model={}", "--device=cpu", "--precision=fp16"], "error: --precision 'fp16': needs a GPU; choose auto, bf16"),
    (["--precision=fp8"], "argument --precision: invalid choice: 'fp8'"),
    (["--colour=red"], "unrecognized arguments: --colour=red"),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(
    options: list[str], words: str, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PILImage.new("L", (8, 8), 255).save(images / "small.png")
    PILImage.new("L", (48, 40)).save(images / "black.png")
    PILImage.new("L", (48, 40), 255).save(images / "white.png")
    PILImage.new("RGBA", (9, 9)).save(images / "clear.png")
    PILImage.new("L", (48, 40)).save(
        images / "moving.gif", append_images=[PILImage.new("L", (48, 40), 9)], save_all=True
    )
    (images / "link.png").symlink_to(images / "s.png")
    (images / "dangling.png").symlink_to(images / "nowhere.png")
    (images / "protected.png").touch(0o444)
    (images / "truncated.png").write_bytes((images / "s.png").read_bytes()[:500])
    before = sorted(images.iterdir())

    assert edit(images, *(option.format(images) for option in options)) == 2

    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert printed.out == ""
    assert sorted(images.iterdir()) == before


@pytest.mark.parametrize(
    ("file", "content"),
    [("model_index.json", b"{"), ("unet/config.json", b"{"), ("scheduler/scheduler_config.json", b"[]"),
     ("image_encoder/model.safetensors", b"cut"), ("vae/diffusion_pytorch_model.safetensors", None)],
)  # fmt: skip
def test_a_damaged_model_is_one_line(
    file: str, content: bytes | None, images: Path, model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_folder, images / "model")
    (images / "model" / file).unlink() if content is None else (images / "model" / file).write_bytes(content)

    assert edit(images, f"--model={images / 'model'}") == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert str(images / "model") in error


def test_what_the_source_carries_is_kept_and_losses_are_said(
    images: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.asarray(PILImage.open(images / "s.png"))
    cut_out = np.dstack([pixels, np.where(np.arange(48) < 40, 255, 0)[None].repeat(40, 0).astype(np.uint8)])
    PILImage.fromarray(cut_out).save(images / "s.png", dpi=(300, 300))

    assert edit(images, f"--model={model_folder}") == 0
    assert capsys.readouterr().err == ""
    with PILImage.open(images / "o.png") as result:
        mask = np.asarray(PILImage.open(images / "m.png"))
        assert np.array_equal(np.asarray(result)[mask == 0], cut_out[mask == 0])
        assert result.info["dpi"] == pytest.approx((300, 300), abs=0.01)

    assert edit(images, f"--model={model_folder}", f"--out={images / 'o.jpg'}") == 0
    notes = capsys.readouterr().err.splitlines()
    assert [note.split(":")[0] for note in notes] == ["note", "note"]
    assert "transparen" in notes[0]
    assert "JPEG" in notes[1]


def test_a_speck_is_left_unpainted_with_a_note(
    images: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.array(PILImage.open(images / "m.png"))
    mask[39, 47] = 255
    PILImage.fromarray(mask).save(images / "m.png")

    assert edit(images, f"--model={model_folder}") == 0
    assert capsys.readouterr().err == "note: not painted: 1 speck of the mask, at most 2 x 2 px\n"
    source, out = (np.asarray(PILImage.open(images / file)) for file in ("s.png", "o.png"))
    assert np.array_equal(out[39, 47], source[39, 47])


def test_an_inverted_mask_repaints_the_rest(images: Path, model_folder: Path) -> None:
    assert edit(images, f"--model={model_folder}", "--invert-mask") == 0
    source, mask, out = (np.asarray(PILImage.open(images / file)) for file in ("s.png", "m.png", "o.png"))
    assert np.array_equal(out[mask == 255], source[mask == 255])
    assert (out[mask == 0] != source[mask == 0]).any()


def test_a_preview_is_written_without_painting(images: Path, model_folder: Path) -> None:
    usual = ["edit", f"--source={images / 's.png'}", f"--mask={images / 'm.png'}", f"--model={model_folder}"]
    assert main([*usual, f"--preview={images / 'p.png'}"]) == 0
    assert PILImage.open(images / "p.png").size == (48, 40)
    assert not (images / "o.png").exists()


def test_guidance_with_a_model_trained_without_it_is_one_line(
    images: Path, model_without_guidance: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit(images, f"--model={model_without_guidance}") == 2
    assert capsys.readouterr().err.startswith("error: guidance scale 5")
    assert edit(images, f"--model={model_without_guidance}", "--guidance-scale=1") == 0


def test_the_flags_default_to_the_editors_values() -> None:
    assert PaintingFlags().options() == EditOptions()
    assert get_args(Sampler) == tuple(SAMPLERS)


@pytest.mark.parametrize("argv", [[], ["paint"], ["edit"]])
def test_an_incomplete_command_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_full_disk_is_one_line_and_leaves_the_earlier_result(
    images: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "o.png").write_bytes(b"an earlier result")
    monkeypatch.setattr(PILImage.Image, "save", fail_with_a_full_disk)

    assert edit(images, f"--model={model_folder}") == 2
    assert (images / "o.png").read_bytes() == b"an earlier result"
    assert not list(images.glob(".*"))
    assert "the disk is full" in capsys.readouterr().err


def fail_with_a_full_disk(_: PILImage.Image, path: Path, **__: object) -> None:
    path.write_bytes(b"half")
    raise OSError(28, "No space left on device", str(path))


def test_no_registry_says_to_run_the_demo(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("pbe.serving.commands.model_choice._project_registry", lambda: None)

    assert edit(images, "--model=models:/paint-by-example@champion") == 2
    assert "run `make demo`" in capsys.readouterr().err


@pytest.mark.parametrize("variable", [None, "MLFLOW_REGISTRY_URI", "MLFLOW_WORKSPACE"])
def test_the_database_is_read_directly_unless_the_environment_names_another_registry(
    variable: str | None, images: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def find(model_uri: str, *, tracking_uri: str, direct: bool, cache: Path) -> Path:
        asked.append((model_uri, tracking_uri, direct))
        return model_folder

    monkeypatch.setattr("pbe.serving.registry.registered_models.painter_folder", find)
    monkeypatch.setattr("pbe.serving.registry.registered_models.find_version", lambda *_, **__: None)
    for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///x.db")
    if variable:
        monkeypatch.setenv(variable, "elsewhere")

    assert edit(images) == 0
    assert asked == [("models:/paint-by-example@champion", "sqlite:///x.db", variable is None)]


def test_the_registry_is_found_from_a_subfolder(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "mlflow.db").touch()
    (images / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(images / "a" / "b")

    assert _project_registry() == f"sqlite:///{images / 'mlflow.db'}"


BUG = """
import sys
import numpy as np
from pbe.serving.commands import loading
from pbe.serving.commands.main import main

class Painter:
    image_px, exemplar_px = 32, 16

    def place(self, device, dtype):
        return self

    def paint(self, *arrays, **options):
        return np.zeros(2) + np.zeros(3)

loading.load_painter = lambda folder: Painter()
sys.exit(main(sys.argv[1:]))
"""


def test_a_bug_in_painting_keeps_its_traceback_and_exits_with_1(images: Path) -> None:
    argv = ["edit", *(f"--{name}={images / file}" for name, file in FILES.items()), f"--model={images}"]
    ended = subprocess.run([sys.executable, "-c", BUG, *argv], capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback (most recent call last):")
    assert ended.stderr.splitlines()[-1].startswith("ValueError: operands could not be broadcast together")
    assert not (images / "o.png").exists()


def test_an_os_error_that_is_no_full_disk_keeps_its_traceback(
    images: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionResetError("a planted bug")

    monkeypatch.setattr(PILImage.Image, "save", fail)
    with pytest.raises(ConnectionResetError, match="a planted bug"):
        edit(images, f"--model={model_folder}")


def test_an_interrupt_exits_with_130(images: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pbe.serving.commands.loading.load_painter", interrupt)
    assert edit(images, f"--model={model_folder}") == 130


def test_help_and_mistakes_import_nothing_large() -> None:
    program = (
        "import sys; from pbe.serving.commands.main import main\n"
        "main(sys.argv[1:])\n"
        "assert not {'torch', 'mlflow', 'diffusers', 'transformers', 'fiftyone'} & set(sys.modules)"
    )
    for argv in (["--help"], ["edit", "--seed=x"], ["edit", *(f"--{name}=none.png" for name in FILES)]):
        done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_model_exported_and_imported_in_either_format_paints_the_same(
    images: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    painted = []
    for kind, name in (("ldm", "model.ckpt"), ("diffusers", "published")):
        assert main(["export", f"--model={model_folder}", f"--format={kind}", f"--out={images / name}"]) == 0
        assert "its mask channel is inverted" in capsys.readouterr().out
        assert main(["import", f"--from={images / name}", f"--out={images / kind}"]) == 0
        assert edit(images, f"--model={images / kind}") == 0
        painted.append((images / "o.png").read_bytes())
    assert painted[0] == painted[1]
    assert not list(images.glob("*.tmp"))


def written_adapter(model_folder: Path, folder: Path, rank: int) -> Path:
    painter = Painter.from_pretrained(model_folder)
    add_adapters(painter, rank, seed=rank)
    with torch.no_grad():
        for parameter in PaintingLoss(painter).trained().values():
            parameter.fill_(0.1)
    adapter = take_adapter(painter)
    assert adapter
    write_adapter(painter, adapter, folder)
    return folder


def test_adapters_are_merged_on_import(images: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (written_adapter(model_folder, images / f"adapter{rank}", rank) for rank in (1, 2))
    merged = images / "merged"
    flags = [f"--from={model_folder}", f"--out={merged}", f"--adapter={one}", f"--adapter={two}=0.5"]
    assert main(["import", *flags]) == 0
    assert "trained on other weights" not in capsys.readouterr().err
    before, after = (Painter.from_pretrained(f).conditioner.proj_out.weight for f in (model_folder, merged))
    torch.testing.assert_close(after, before + 0.1 * 0.1 * 1 + 0.5 * 0.1 * 0.1 * 2)
    assert main(["import", f"--from={merged}", f"--out={images / 'again'}", f"--adapter={one}=-1"]) == 0
    assert f"{one}: was trained on other weights than these" in capsys.readouterr().err
    for adapter, words in ((f"{one}=half", "the weight 'half' is not a number"), (images, "not an adapter")):
        assert main(["import", f"--from={model_folder}", f"--out={images / 'no'}", f"--adapter={adapter}"]) == 2
        assert words in capsys.readouterr().err
    assert not (images / "no").exists()


def test_mistakes_of_import_and_export_are_named(
    images: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "bad.ckpt").write_bytes(b"no checkpoint")
    for argv, words in (
        (["import", "--from=none.ckpt", f"--out={images / 'm'}"], "--from none.ckpt: no such file or folder"),
        (
            ["import", f"--from={images / 'bad.ckpt'}", f"--out={images / 'm'}"],
            "/bad.ckpt: is damaged, or not a file of weights",
        ),
        (["export", f"--model={model_folder}", "--format=ldm", f"--out={images}"], "already exists"),
        (["export", f"--model={model_folder}", "--format=onnx", f"--out={images / 'm'}"], "invalid choice"),
    ):
        assert main(argv) == 2
        assert words in capsys.readouterr().err
    assert not (images / "m").exists()

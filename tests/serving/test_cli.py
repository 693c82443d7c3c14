"""The `pbe` command: what it writes, and what it says of each mistake."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from pbe.serving.cli import main


def edit(pictures: Path, *more: str) -> int:
    """Run `pbe edit` in process, later options overriding the usual ones."""
    usual = [f"--{name}={pictures / file}" for name, file in FILES.items()]
    try:
        return main(["edit", *usual, "--num-steps=2", *more])
    except SystemExit as stop:
        return int(stop.code or 0)


FILES = {"source": "s.png", "mask": "m.png", "exemplar": "e.jpg", "out": "o.png"}


def test_an_edit_changes_masked_pixels_only(
    pictures: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit(pictures, f"--model={model_folder}") == 0

    source, mask, out = (np.asarray(PILImage.open(pictures / file)) for file in ("s.png", "m.png", "o.png"))
    assert np.array_equal(out[mask == 0], source[mask == 0])
    assert (out[mask == 255] != source[mask == 255]).any()
    assert capsys.readouterr().err == ""


def test_the_seed_decides_the_result(pictures: Path, model_folder: Path) -> None:
    results = []
    for seed in (1, 1, 2):
        assert edit(pictures, f"--model={model_folder}", f"--seed={seed}") == 0
        results.append((pictures / "o.png").read_bytes())

    assert results[0] == results[1] != results[2]


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
    (["--out={}/o.jpg"], "name it .png"),
    (["--model={}/none"], "no such folder, and not a registered model"),
    (["--model={}"], "no model here"),
    (["--colour=red"], "unrecognized arguments: --colour=red"),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(
    options: list[str], words: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PILImage.new("L", (8, 8), 255).save(pictures / "small.png")
    PILImage.new("L", (48, 40)).save(pictures / "black.png")
    (pictures / "truncated.png").write_bytes((pictures / "s.png").read_bytes()[:500])
    before = sorted(pictures.iterdir())

    assert edit(pictures, *(option.format(pictures) for option in options)) == 2

    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert printed.out == ""
    assert sorted(pictures.iterdir()) == before


@pytest.mark.parametrize("argv", [[], ["paint"], ["edit"]])
def test_an_incomplete_command_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)

    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_failed_write_leaves_nothing(pictures: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pictures / "o.png").write_bytes(b"what was there before")
    monkeypatch.setattr(PILImage.Image, "save", _disk_full)

    assert edit(pictures, f"--model={model_folder}") == 2
    assert (pictures / "o.png").read_bytes() == b"what was there before"
    assert not list(pictures.glob(".*"))


def _disk_full(_: PILImage.Image, path: Path, **__: object) -> None:
    path.write_bytes(b"half")
    raise OSError(28, "No space left on device", str(path))


def test_no_registry_says_to_run_the_demo(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("pbe.serving.cli._project_registry", lambda: None)

    assert edit(pictures) == 2
    assert "run `make demo`" in capsys.readouterr().err


def test_the_registry_is_found_from_a_folder_below(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pbe.serving.cli import _project_registry

    (pictures / "mlflow.db").touch()
    (pictures / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(pictures / "a" / "b")

    assert _project_registry() == f"sqlite:///{pictures / 'mlflow.db'}"


def test_help_and_mistakes_import_nothing_heavy() -> None:
    program = (
        "import sys; from pbe.serving.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'mlflow', 'diffusers', 'transformers', 'fiftyone'} & set(sys.modules)"
    )
    for argv in (["--help"], ["edit", "--seed=x"], ["edit", *(f"--{name}=none.png" for name in FILES)]):
        done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def run(*argv: str) -> int:
    try:
        return main(argv)
    except SystemExit as stop:
        return int(stop.code or 0)


def test_a_model_leaves_and_comes_back_through_both_layouts(
    pictures: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    painted = []
    for layout, name in (("ldm", "model.ckpt"), ("diffusers", "published")):
        assert run("export", f"--model={model_folder}", f"--format={layout}", f"--out={pictures / name}") == 0
        assert "its mask channel is turned" in capsys.readouterr().out
        assert run("import", f"--from={pictures / name}", f"--out={pictures / layout}") == 0
        assert edit(pictures, f"--model={pictures / layout}") == 0
        painted.append((pictures / "o.png").read_bytes())
    assert painted[0] == painted[1]
    assert not list(pictures.glob("*.tmp"))


def test_mistakes_of_import_and_export_are_named(
    pictures: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "bad.ckpt").write_bytes(b"no checkpoint")
    for argv, words in (
        (["import", "--from=none.ckpt", f"--out={pictures / 'm'}"], "--from none.ckpt: no such file or folder"),
        (["import", f"--from={pictures / 'bad.ckpt'}", f"--out={pictures / 'm'}"], "bad.ckpt: not a checkpoint"),
        (["export", f"--model={model_folder}", "--format=ldm", f"--out={pictures}"], "is there already"),
        (["export", f"--model={model_folder}", "--format=onnx", f"--out={pictures / 'm'}"], "invalid choice"),
    ):
        assert run(*argv) == 2
        assert words in capsys.readouterr().err
    assert not (pictures / "m").exists()

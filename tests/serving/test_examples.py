"""The example photographs in docs/examples: what README.md says of them, and that they can be painted."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image as PILImage

from pbe.serving.editor import check_mask, read_exemplar, read_mask, read_source

FOLDER = Path(__file__).parents[2] / "docs/examples"
MAX_SHEET_BYTES, MAX_FILE_BYTES = 1_500_000, 60_000


@pytest.fixture(scope="module")
def paint() -> ModuleType:
    return load("paint")


def load(name: str) -> ModuleType:
    """Import a script of the folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", FOLDER / f"{name}.py")
    assert spec
    assert spec.loader
    module = sys.modules[f"examples_{name}"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_folder_has_a_command_in_the_readme(paint: ModuleType) -> None:
    commands = paint.commands()
    assert set(commands) == {"can", "pliers", "label", "sheet"}
    for name, argv in commands.items():
        folder = f"docs/examples/{name}"
        assert argv == ["edit", "--model", "photo", "--source", f"{folder}/source.jpg", "--mask", f"{folder}/mask.png",
                        "--exemplar", f"{folder}/exemplar.png", "--out", f"{name}.png"]  # fmt: skip


def test_the_pictures_fit_together_and_are_small(paint: ModuleType) -> None:
    for name in paint.commands():
        files = [FOLDER / name / file for file in ("source.jpg", "mask.png", "exemplar.png")]
        source, mask = read_source(files[0]), read_mask(files[1])
        check_mask(mask, source.shown)
        assert 0.002 < mask.mean() < 0.2
        assert min(read_exemplar(files[2]).shape[:2]) >= 64
        sizes = [file.stat().st_size for file in files]
        assert max(sizes) < (MAX_SHEET_BYTES if name == paint.SHEET else MAX_FILE_BYTES)
    with PILImage.open(FOLDER / paint.SHEET / "source.jpg") as sheet:
        assert sheet.size == (2048, 2048)


def test_an_exemplar_comes_from_another_clip_than_its_source() -> None:
    rows = [line.split("|")[1:4] for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("| `")]
    examples = load("cut").EXAMPLES
    assert [folder.strip(" `") for folder, _, _ in rows] == list(examples)
    for (_, source, exemplar), example in zip(rows, examples.values(), strict=True):
        assert example.source in source
        assert example.exemplar in exemplar
        assert source.split(",")[-1].strip() != exemplar.split(",")[-1].strip()


def test_a_command_of_the_readme_paints_and_is_checked(
    paint: ModuleType, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER.parents[1])
    argv = paint.commands()["can"]
    options = ["--model", str(model_folder), "--num-steps=2"]
    painted = paint.paint("can", argv, options)
    changed = (painted.result != painted.source).any(-1)
    assert changed[painted.mask == 1].mean() > 0.9

    def spoil(argv: list[str]) -> int:
        out = next(option for option in argv if option.startswith("--out="))
        PILImage.fromarray(np.zeros_like(painted.source)).save(out.removeprefix("--out="))
        return 0

    monkeypatch.setattr(paint, "main", spoil)
    with pytest.raises(ValueError, match=r"can: \d+ pixels changed, \d+ of them outside the mask"):
        paint.paint("can", argv)

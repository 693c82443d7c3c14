"""The code blocks of the documentation: commands run or are parsed, parameters are valid, and excuses have a reason."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image as PILImage

from pbe.serving.commands.main import main
from pbe.settings import Settings
from tests.support.command_parsers import check, is_ours
from tests.support.doc_blocks import ROOT, SHELL, Block, blocks, pages
from tests.support.random_painter import build_painter

BLOCKS = [block for page in pages() for block in blocks(page)]
LANGUAGES = {*SHELL, "python", "yaml", "json", "text", "ini", "nginx", "dockerfile"}
RUN = (
    "edit",
    "batch",
    "export",
    "--version",
)  # quick with a tiny painter; the others are parsed here and run elsewhere
NAMES = (
    "photo",
    "mask",
    "left",
    "right",
    "cup",
    "cup2",
    "front",
    "side",
    "desk",
    "spoon",
    "spoon2",
    "lamp",
    "e",
    "s",
    "m",
)
RAN: set[tuple[str, ...]] = set()  # several pages have the same command
MASKS = {"mask": (4, 20), "m": (4, 20), "left": (2, 16), "right": (28, 44)}


def chosen(*languages: str, covered: bool = False) -> list[pytest.param]:  # type: ignore[valid-type]
    return [
        pytest.param(block, id=str(block))
        for block in BLOCKS
        if block.language in languages and (covered or not (block.not_run or block.run_by))
    ]


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a painter of random weights."""
    folder = tmp_path_factory.mktemp("painter") / "pbe"
    build_painter(0).save_pretrained(folder)
    return folder


@pytest.fixture
def project(tmp_path: Path, painter: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the files that the examples name; it is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for place in ("data/photo-painter", "models/pbe", "models/authors"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).symlink_to(painter)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    write_pictures(tmp_path)
    write_tables(tmp_path)
    return tmp_path


def write_pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in NAMES:
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        if name in MASKS:
            pixels = np.zeros((40, 48), np.uint8)
            left, right = MASKS[name]
            pixels[10:25, left:right] = 255
        for suffix in (".png", ".jpg"):
            PILImage.fromarray(pixels).save(folder / f"{name}{suffix}")
    for name in ("cup-on-desk", "lamp_mask"):
        shutil.copy(folder / "mask.png", folder / f"{name}.png")


def write_tables(folder: Path) -> None:
    """Write what the examples of `pbe batch` read: rows, a folder for each picture, and a COCO data set."""
    (folder / "rows.csv").write_text("source,exemplar,mask\nphoto.jpg,cup.jpg,mask.png\n")
    (folder / "rows.jsonl").write_text('{"source": "photo.jpg", "exemplar": "cup.jpg", "mask": "mask.png"}\n')
    for place, files in {
        "pictures/desk": {"source.jpg": "photo.jpg", "mask.png": "mask.png", "exemplar.jpg": "cup.jpg"},
        "photos/images": {"photo.jpg": "photo.jpg"},
        "tools/Hammer": {"hammer.png": "cup.png"},
    }.items():
        (folder / place).mkdir(parents=True)
        for name, origin in files.items():
            shutil.copy(folder / origin, folder / place / name)
    coco = {
        "images": [{"id": 1, "file_name": "photo.jpg", "width": 48, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 20, 20]}],
        "categories": [{"id": 1, "name": "Wrench"}],
    }
    (folder / "photos/instances_train.json").write_text(json.dumps(coco))


def test_every_block_names_its_language() -> None:
    assert len(BLOCKS) > 70
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []


def test_an_excuse_has_a_reason_and_a_test_exists() -> None:
    for block in BLOCKS:
        assert not block.not_run or len(block.not_run) > 12, block
        assert not block.run_by or (ROOT / block.run_by).is_file(), block
    for page, test in {(block.page, block.run_by) for block in BLOCKS if block.of_page}:
        assert page.name in (ROOT / test).read_text(), f"{test} does not read {page.name}"


def is_in_a_test(block: Block) -> bool:
    return block.run_by.startswith("tests/")


@pytest.mark.parametrize(
    "block",
    [param for param in chosen(*SHELL, covered=True) if not is_in_a_test(param.values[0])],  # type: ignore[arg-type]
)
def test_a_command_is_accepted_by_its_program(block: Block) -> None:
    commands = block.commands()
    assert commands
    for command in commands:
        if is_ours(command):
            check(command)
        else:
            assert block.not_run or block.run_by, f"{block}: {command[0]}: say before the block why it is not run"


@pytest.mark.parametrize(
    "block",
    [param for param in chosen(*SHELL) if any(Path(words[0]).name == "pbe" for words in param.values[0].commands())],  # type: ignore[attr-defined]
)
def test_what_is_quick_runs_as_it_stands(block: Block, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program, *words in block.commands():
        if program == "cd":
            monkeypatch.chdir(words[0])
        runs = Path(program).name == "pbe" and words[0] in RUN and not any("models:/" in word for word in words)
        if runs and tuple(words) not in RAN:
            RAN.add(tuple(words))
            few = ["--num-steps=1"] if words[0] in ("edit", "batch") and "--num-steps" not in words else []
            given = [word.replace("/tmp/", f"{project}/") for word in words]
            shutil.rmtree("painted", ignore_errors=True)  # one page paints three batches into it
            assert main([*given, *few]) == 0
            if "--out" in given and "--seed" not in given:
                assert Path(given[given.index("--out") + 1]).exists()


@pytest.mark.parametrize("block", chosen("python"))
def test_a_python_example_runs(block: Block, project: Path) -> None:
    exec(compile(block.text, str(block), "exec"), {"__name__": "example"})


@pytest.mark.parametrize("block", chosen("yaml"))
def test_parameters_are_valid(block: Block) -> None:
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, changes in yaml.safe_load(block.text).items():
        parameters[section] |= changes
    Settings.model_validate(parameters)


@pytest.mark.parametrize("block", chosen("json"))
def test_json_is_valid(block: Block) -> None:
    json.loads(block.text)

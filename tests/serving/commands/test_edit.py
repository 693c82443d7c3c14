"""`pbe edit`: several regions, exemplars and seeds, what it prints, and what Ctrl-C leaves."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from pbe.method.painter import Painter
from pbe.runtime.files import digest_folder
from pbe.serving.commands import loading
from pbe.serving.commands.main import main


@pytest.fixture
def folder(images: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory: the images, and further masks left.png, right.png and object.png."""
    monkeypatch.chdir(images)
    for name, columns in (("left", slice(2, 14)), ("right", slice(30, 44))):
        write_mask(images / f"{name}.png", (40, 48), (slice(8, 30), columns))
    write_mask(images / "object.png", (30, 20), (slice(5, 25), slice(5, 15)))
    (images / "model").symlink_to(model_folder)
    return images


def write_mask(path: Path, shape: tuple[int, int], marked: tuple[slice, slice]) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[marked] = 255
    PILImage.fromarray(mask).save(path)


def edit(*flags: str, one_region: bool = True) -> int:
    usual = ["--source=s.png", "--model=model", "--num-steps=2"]
    region = ["--mask=m.png", "--exemplar=e.jpg"] if one_region else []
    return main(["edit", *usual, *region, *flags])


def pixels(path: Path | str) -> np.ndarray:
    return np.asarray(PILImage.open(path))


@pytest.mark.usefixtures("folder")
def test_each_seed_has_a_file_with_the_bits_of_its_seed_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = []

    def load(path: Path) -> Painter:
        loaded.append(path)
        return Painter.from_pretrained(path)

    monkeypatch.setattr(loading, "load_painter", load)
    assert edit("--seed=0..5", "--out=o.png") == 0
    assert loaded == [Path("model")]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" in ")[0] for line in lines] == [
        f"o-{seed}.png: painted by model with seed {seed}" for seed in range(6)
    ]
    for seed in (0, 5):
        assert edit(f"--seed={seed}", "--out=alone.png") == 0
        assert Path("alone.png").read_bytes() == Path(f"o-{seed}.png").read_bytes()
    assert len({Path(f"o-{seed}.png").read_bytes() for seed in range(6)}) == 6


def test_a_list_of_seeds_fills_a_folder_with_a_contact_sheet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("--seed=9,1,1", "--out=variants", "--sheet") == 0
    assert sorted(path.name for path in (folder / "variants").iterdir()) == ["1.png", "9.png", "sheet.png"]
    assert capsys.readouterr().out.splitlines()[-1] == "variants/sheet.png: contact sheet"
    sheet = pixels("variants/sheet.png")
    assert sheet.shape[0] > 256 + 20
    assert (sheet == 255).mean() < 0.5

    assert edit("--seed=3,4", "--out=variants") == 0  # an existing folder
    assert {"3.png", "4.png"} <= {path.name for path in (folder / "variants").iterdir()}


@pytest.mark.usefixtures("folder")
def test_json_has_a_line_for_each_result(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("--seed=1,2", "--out=o.jpg", "--json") == 0
    captured = capsys.readouterr()
    first, second = map(json.loads, captured.out.splitlines())
    assert (first["path"], first["seed"], second["path"]) == ("o-1.jpg", 1, "o-2.jpg")
    assert first["model"] == {"name": "model", "version": None, "digest": digest_folder(model_folder)}
    assert first["seconds"] > 0
    assert first["changed_outside"] == 0
    assert first["notes"] == ["JPEG changes unmasked pixels slightly; PNG does not"]
    assert captured.err == "note: JPEG changes unmasked pixels slightly; PNG does not\n"

    assert edit("--seed=1", "--out=o.png", "--json") == 0
    digest = json.loads(capsys.readouterr().out)["digest"]
    assert digest == first["digest"]
    result = pixels("o.png")
    assert digest == hashlib.sha256(str(result.shape).encode() + result.tobytes()).hexdigest()


@pytest.mark.usefixtures("folder")
def test_several_regions_have_their_own_objects() -> None:
    assert edit("--region=left.png=e.jpg", "--region=right.png=s.png,e.jpg", "--out=o.png", one_region=False) == 0
    source, left, right, both = (pixels(file) for file in ("s.png", "left.png", "right.png", "o.png"))
    outside = (left == 0) & (right == 0)
    assert np.array_equal(both[outside], source[outside])
    assert (both[left > 0] != source[left > 0]).any(-1).mean() > 0.9
    assert (both[right > 0] != source[right > 0]).any(-1).mean() > 0.9

    flags = ["--mask=left.png", "--exemplar=e.jpg", "--region=right.png=s.png,e.jpg", "--out=flags.png"]
    assert edit(*flags, one_region=False) == 0
    assert np.array_equal(pixels("flags.png"), both)
    swapped = ["--region=left.png=s.png,e.jpg", "--region=right.png=e.jpg", "--out=swapped.png"]
    assert edit(*swapped, one_region=False) == 0
    assert not np.array_equal(pixels("swapped.png"), both)


@pytest.mark.usefixtures("folder")
def test_a_file_whose_name_has_a_comma_or_an_at_sign_is_one_exemplar(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a,b.jpg", "a@b.jpg"):
        Path("e.jpg").rename(name)
        assert edit(f"--region=left.png={name}", "--out=o.png", one_region=False) == 0
        Path(name).rename("e.jpg")
    assert edit("--region=left.png=e.jpg@object.png", "--out=o.png", one_region=False) == 0
    assert edit("--region=left.png=e.jpg@absent.png", "--out=o.png", one_region=False) == 2
    assert "absent.png: no such file" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_options_reach_the_painter() -> None:
    assert edit("--out=usual.png") == 0
    for flag in ("--sampler=ddim", "--context-px=12", "--guidance-interval=0..20", "--exemplar-mask=object.png"):
        assert edit(flag, "--out=o.png") == 0
        assert not np.array_equal(pixels("o.png"), pixels("usual.png")), flag


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seed=5..1"], "argument --seed: invalid range: '5..1'; give the lower seed first"),
        (["--seed=0..99999999"], "argument --seed: '0..99999999' are more than 1000 seeds"),
        (["--seed=1,x"], "argument --seed: invalid seed: 'x'; give a number such as 7, a range such as 0..7"),
        (["--seed=0,-1"], "seed is -1: "),
        (["--seed=0..2", "--out=o.gif"], "o.gif: name it .png"),
        (["--seed=0..2", "--out=absent/v"], "there is no folder absent"),
        (["--exemplar-mask=object.png", "--exemplar=s.png"], "--exemplar-mask: 1 for 2 --exemplar; give one for each"),
        (["--exemplar-mask=m.png"], "exemplar mask m.png is 48 x 40 but exemplar e.jpg is 20 x 30"),
        (["--region=left.png"], "--region left.png: give MASK=EXEMPLAR, or MASK=EXEMPLAR,EXEMPLAR"),
        (["--region=left.png=a.png,"], "--region left.png=a.png,: give MASK=EXEMPLAR"),
        (["--region=left.png=a.png"], "a.png: no such file"),
        (["--region=object.png=e.jpg"], "mask object.png is 20 x 30 but source s.png is 48 x 40"),
        (["--region=left.png=e.jpg"], "overlap in "),
        (["--context-px=-1"], "context is -1 px: "),
        (["--context-px=1.5"], "argument --context-px: invalid int value: '1.5'"),
        (["--guidance-interval=3"], "argument --guidance-interval: '3' is not an interval"),
        (["--sampler=euler"], "argument --sampler: invalid choice: 'euler' (choose from 'plms', "),
    ],
)
def test_a_mistake_is_one_line(flags: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert edit("--out=o.png", *flags) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert words in printed.err
    assert (printed.err.count("\n"), printed.out) == (1, "")
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("flags", "missing"),
    [(["--mask=m.png"], "--exemplar"), (["--exemplar=e.jpg"], "--mask"), ([], "--mask")],
)
@pytest.mark.usefixtures("folder")
def test_a_missing_flag_is_named(flags: list[str], missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("--out=o.png", *flags, one_region=False) == 2
    assert capsys.readouterr().err == f"error: the following arguments are required: {missing}\n"


@pytest.mark.usefixtures("folder")
def test_a_preview_shows_all_regions(capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("--region=left.png=e.jpg", "--region=right.png=e.jpg", "--preview=p.png", one_region=False) == 0
    assert capsys.readouterr().out == "p.png: preview of the windows of s.png\n"
    shown, source = pixels("p.png").astype(int), pixels("s.png").astype(int)
    for name in ("left.png", "right.png"):
        marked = pixels(name) > 0
        assert (shown - source)[marked].mean(0)[0] > (shown - source)[marked].mean(0)[1]  # red


def test_ctrl_c_stops_the_painting_and_keeps_complete_results_only(folder: Path) -> None:
    flags = ["--source=s.png", "--mask=m.png", "--exemplar=e.jpg", "--model=model", "--seed=0..999", "--out=variants"]
    command = [sys.executable, "-m", "pbe.serving.commands.main", "edit", *flags, "--num-steps=20"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (folder / "variants/4.png").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=5)

    assert (process.returncode, errors) == (130, b"")
    written = sorted((folder / "variants").iterdir())
    assert 5 <= len(written) < 1000
    assert all(path.name[0] != "." and PILImage.open(path).size == (48, 40) for path in written)

"""Every kind of damage is named and counted before anything is painted, and refused unless told otherwise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.errors import UserError
from pbe.evaluation.benches import bench_checks
from pbe.evaluation.benches.bench import Bench, exemplar_mask_path, exemplar_path, mask_path, source_path
from pbe.evaluation.benches.bench_checks import open_bench
from pbe.evaluation.benches.case_checks import ACCEPTABLE, Policy, Verdict
from tests.support.benches import make_case, write_bench

SKIP = Policy("skip")
IDS = (7, 8, 9, 10, 11)
BAD = 9  # the case that is damaged


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bench(tmp_path, IDS)


def truncate(folder: Path) -> None:
    path = source_path(folder, BAD)
    path.write_bytes(path.read_bytes()[:-40])  # the header is whole


def save_mask(folder: Path, mask: NDArray[np.uint8]) -> None:
    PillowImage.fromarray(mask.astype(np.uint8)).save(mask_path(folder, BAD))


def soften(folder: Path) -> None:
    save_mask(folder, make_case(BAD).mask * 200)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: exemplar_path(f, BAD).unlink(), r"009_ref\.png: no such file"),
    "misnamed": (
        lambda f: source_path(f, BAD).rename(f / "GT_3500" / "9_GT.png"),
        r"9_GT\.png: has this name instead of 000000000009_GT\.png",
    ),
    "unreadable": (truncate, r"009_GT\.png: cannot be decoded as an image: .*truncated"),
    "mask_size": (
        lambda f: save_mask(f, make_case(BAD, side=12).mask * 255),
        r"009_mask\.png: 12 x 12 px, but its source is 16 x 16 px",
    ),
    "greyscale": (
        lambda f: PillowImage.fromarray(make_case(BAD).source[..., 0]).save(source_path(f, BAD)),
        r"009_GT\.png: greyscale \(mode L\), not RGB",
    ),
    "transparent": (
        lambda f: PillowImage.new("RGBA", (5, 7), (9, 9, 9, 100)).save(exemplar_path(f, BAD)),
        r"009_ref\.png: has transparent pixels",
    ),
    "empty_mask": (
        lambda f: save_mask(f, make_case(BAD).mask * 100),
        r"009_mask\.png: no pixel is marked for repainting; its highest level is 100 of 255",
    ),
    "soft_mask": (soften, r"009_mask\.png: 56 pixels are neither black nor white"),
    "inverted": (
        lambda f: save_mask(f, 255 - make_case(BAD).mask * 255),
        r"009_mask\.png: 78 % is marked, with the whole border; white is what is repainted",
    ),
    "tiny": (
        lambda f: PillowImage.new("RGB", (3, 30)).save(exemplar_path(f, BAD)),
        r"009_ref\.png: 3 x 30 px is below 4 px",
    ),
}


def test_a_sound_bench_is_usable_and_its_files_are_not_changed(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    checked = open_bench(folder, Policy())
    assert checked.bench.ids == IDS
    assert checked.report.counts() == {"cases": 5, "usable": 5}
    assert checked.report.lines() == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("fault", DAMAGES)
def test_a_damaged_case_is_refused_on_one_line_or_skipped_and_counted(folder: Path, fault: str) -> None:
    damage, detail = DAMAGES[fault]
    damage(folder)
    words = fault.replace("_", " ")
    with pytest.raises(
        UserError, match=rf"1 of 5 cases cannot be used: 1 {words}; first: .*{detail}.*; or set "
    ) as caught:
        open_bench(folder, Policy())
    assert "evaluate.damaged: skip to leave them out" in str(caught.value)
    assert (f"evaluate.accept: [{fault}] to use these" in str(caught.value)) == (fault in ACCEPTABLE)
    checked = open_bench(folder, SKIP)
    assert checked.bench.ids == (7, 8, 10, 11)
    assert checked.report.counts() == {"cases": 5, "usable": 4, "skipped": {fault: 1}}
    assert len(checked.report.lines()) == 1


@pytest.mark.parametrize("fault", [fault for fault in ACCEPTABLE if fault in DAMAGES])
def test_an_accepted_fault_leaves_the_case_usable_and_counted(folder: Path, fault: str) -> None:
    DAMAGES[fault][0](folder)
    checked = open_bench(folder, Policy(accept=frozenset({fault})))  # type: ignore[arg-type]
    assert checked.bench.ids == IDS
    assert checked.report.counts() == {"cases": 5, "usable": 5, "accepted": {fault: 1}}
    assert checked.bench.case(BAD).source.shape == (16, 16, 3)


def test_a_case_with_two_faults_is_counted_once(folder: Path) -> None:
    truncate(folder)
    soften(folder)
    exemplar_path(folder, 7).unlink()
    assert open_bench(folder, SKIP).report.counts()["skipped"] == {"missing": 1, "unreadable": 1}


def test_a_bench_whose_masks_are_large_on_average_is_refused_as_inverted(folder: Path) -> None:
    for case_id in IDS[1:]:
        mask = np.full((16, 16), 255, np.uint8)
        mask[0, 0] = 0  # the border is not whole
        PillowImage.fromarray(mask).save(mask_path(folder, case_id))
    with pytest.raises(UserError, match=r"4 inverted; .*mark 84 % of the pictures on average: .*; invert them"):
        open_bench(folder, Policy())
    assert open_bench(folder, SKIP).bench.ids == (7,)
    assert len(open_bench(folder, Policy(accept=frozenset({"inverted"}))).bench) == 5


def test_a_bench_without_a_usable_case_is_refused_even_with_skip(folder: Path) -> None:
    for case_id in IDS:
        source_path(folder, case_id).unlink()
    with pytest.raises(UserError, match=r"5 of 5 cases cannot be used: 5 missing; first: [^;]*$"):
        open_bench(folder, SKIP)


def test_masks_of_0_and_1_are_read_and_noted(folder: Path) -> None:
    save_mask(folder, make_case(BAD).mask)
    checked = open_bench(folder, Policy())
    np.testing.assert_array_equal(checked.bench.case(BAD).mask, make_case(BAD).mask)
    assert checked.report.counts()["notes"] == {"zero_one_masks": 1}
    assert checked.report.lines() == ["1 masks have the levels 0 and 1 instead of 0 and 255; 1 is read as white"]


def test_the_grey_edge_of_a_resized_mask_is_noted_alone(folder: Path) -> None:
    mask = make_case(BAD).mask * 255
    mask[2, 3:11] = 130
    save_mask(folder, mask)
    report = open_bench(folder, Policy()).report
    assert (report.usable, report.counts()["notes"]) == (IDS, {"soft_edges": 1})


def test_the_first_cases_alone_are_checked(folder: Path) -> None:
    truncate(folder)
    assert open_bench(folder, Policy(), num_cases=2).report.counts() == {"cases": 2, "usable": 2}


def test_ids_of_the_files_are_reported(folder: Path) -> None:
    (folder / "id_list.npy").unlink()
    report = open_bench(folder, Policy()).report
    assert report.counts()["notes"] == {"ids_from_files": 5}
    assert report.lines() == ["id_list.npy is missing; the 5 ids are those of the files, in ascending order"]


def test_unchanged_files_are_opened_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truncate(folder)
    opened: list[int] = []
    check_case = bench_checks.check_case

    def counted(bench: Bench, case_id: int) -> Verdict:
        opened.append(case_id)
        return check_case(bench, case_id)

    monkeypatch.setattr(bench_checks, "check_case", counted)
    cache = tmp_path / "checked.json"
    first = open_bench(folder, SKIP, cache=cache)
    assert sorted(opened) == list(IDS)
    opened.clear()
    assert open_bench(folder, SKIP, cache=cache) == first
    assert opened == []
    PillowImage.fromarray(make_case(1).source).save(source_path(folder, BAD))
    assert open_bench(folder, Policy(), cache=cache).bench.ids == IDS
    assert opened == [BAD]


def test_a_damaged_cache_is_made_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "checked.json").write_text('{"format": 1, ')
    assert open_bench(folder, Policy(), cache=tmp_path / "checked.json").report.num_cases == 5
    assert open_bench(folder, Policy(), cache=tmp_path / "checked.json").report.num_cases == 5


def test_the_digest_is_of_the_usable_cases_bytes_and_ids(folder: Path) -> None:
    digest = open_bench(folder, Policy()).digest
    assert open_bench(folder, Policy(), num_cases=4).digest != digest
    case = make_case(BAD)
    save_mask(folder, np.flipud(case.mask) * 255)
    assert open_bench(folder, Policy()).digest != digest
    save_mask(folder, case.mask * 255)
    assert open_bench(folder, Policy()).digest == digest


def test_a_damaged_mask_of_an_exemplars_object_is_named(folder: Path) -> None:
    path = exemplar_mask_path(folder, BAD)
    path.parent.mkdir()
    path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1 unreadable; first: .*009_ref_mask\.png: not an image"):
        open_bench(folder, Policy())

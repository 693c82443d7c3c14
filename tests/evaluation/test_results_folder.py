"""Results of any tool are found by their names and checked before they are scored."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from pbe.errors import UserError
from pbe.evaluation.benches.bench import Bench, result_path, write_image
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.benches.case_checks import Policy
from pbe.evaluation.benches.results_folder import open_results
from tests.support.benches import make_case, write_bench

SKIP = Policy("skip")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return read_bench(write_bench(tmp_path / "bench", (7, 8, 9)))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The official code's folder: results beside samples and grid."""
    out = tmp_path / "out"
    for case_id in (7, 8, 9):
        write_image(result_path(out / "results", case_id), make_case(case_id + 100).source)
        write_image(out / "samples" / f"{case_id:012d}_GT.png", make_case(case_id).source)
        write_image(out / "grid" / f"grid-{case_id:012d}.png", make_case(case_id).source)
    return out


def test_the_official_codes_results_are_found_beside_its_samples(bench: Bench, results: Path) -> None:
    opened = open_results(results, bench, Policy())
    assert (opened.folder, opened.ids) == (results / "results", (7, 8, 9))
    assert opened.report.counts() == {"cases": 3, "usable": 3}
    np.testing.assert_array_equal(opened(bench.case(8)), make_case(108).source)


@pytest.mark.parametrize("name", ["{}.png", "{}.jpg", "{:06d}.webp", "{}_gen.png", "result_{}.png", "{:012d}_seed.png"])
def test_other_tools_names_are_found_and_counted(bench: Bench, tmp_path: Path, name: str) -> None:
    for case_id in bench.ids:
        write_image(tmp_path / "a.png", make_case(case_id).source)
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "a.png").rename(tmp_path / "other" / name.format(case_id))
    opened = open_results(tmp_path / "other", bench, Policy())
    assert opened.ids == (7, 8, 9)
    assert opened.report.notes["other_names"] == 3
    assert opened.report.notes.get("jpegs", 0) == (3 if name.endswith("jpg") else 0)


def test_two_results_of_one_case_are_refused(bench: Bench, results: Path) -> None:
    for name in ("7.png", "07.png"):
        write_image(results / "results" / name, make_case(1).source)
    opened = open_results(results, bench, Policy())
    assert opened.files[7].name == "000000000007.png"  # the official name decides
    result_path(results / "results", 7).unlink()
    with pytest.raises(UserError, match=r"7\.png: has the same id as 07\.png; remove one of the two"):
        open_results(results, bench, Policy())


def test_damaged_results_are_counted_by_fault_and_refused_or_skipped(bench: Bench, results: Path) -> None:
    folder = results / "results"
    result_path(folder, 7).unlink()
    path = result_path(folder, 8)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"2 of 3 cases cannot be used: 1 missing, 1 unreadable; first: .*07\.png: no "):
        open_results(results, bench, Policy())
    opened = open_results(results, bench, SKIP)
    assert opened.ids == (9,)
    assert opened.report.counts() == {"cases": 3, "usable": 1, "skipped": {"missing": 1, "unreadable": 1}}


def test_a_result_of_another_size_is_resized_only_when_told(bench: Bench, results: Path) -> None:
    write_image(result_path(results / "results", 8), make_case(8, side=32).source)
    with pytest.raises(
        UserError, match=r"08\.png: 32 x 32 px, but its source is 16 x 16 px; or set --accept wrong_size"
    ):
        open_results(results, bench, Policy(accept_text="--accept {fault}"))
    opened = open_results(results, bench, Policy(accept=frozenset({"wrong_size"})))
    assert opened.report.counts() == {"cases": 3, "usable": 3, "accepted": {"wrong_size": 1}}
    assert opened(bench.case(8)).shape == (16, 16, 3)


def test_a_greyscale_result_is_named(bench: Bench, results: Path) -> None:
    PillowImage.new("L", (16, 16)).save(result_path(results / "results", 8))
    with pytest.raises(UserError, match=r"1 greyscale; first: .*08\.png: greyscale"):
        open_results(results, bench, Policy())


def test_a_folder_without_results_of_the_bench_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent: no such folder"):
        open_results(tmp_path / "absent", bench, Policy())
    write_image(tmp_path / "other" / "5.png", make_case(5).source)
    with pytest.raises(UserError, match=r"no result of the bench .*; results have names such as 000000000007\.png"):
        open_results(tmp_path / "other", bench, Policy())


def test_the_digest_follows_the_bytes_and_the_cache_the_files(bench: Bench, results: Path, tmp_path: Path) -> None:
    cache = tmp_path / "checked.json"
    first = open_results(results, bench, Policy(), cache=cache)
    assert open_results(results, bench, Policy(), cache=cache).digest == first.digest
    write_image(result_path(results / "results", 8), make_case(5).source)
    assert open_results(results, bench, Policy(), cache=cache).digest != first.digest

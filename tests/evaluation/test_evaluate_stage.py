"""The stage `evaluate` on a small project of the demo world."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.bench import bench as make_bench
from flows.evaluate import check_bench, evaluate, paint_all, placement_of, usable_baselines
from flows.scores import SCORES
from pbe import layout
from pbe.dataset.images import read_image
from pbe.demo.attribute_classifier import FOLDER
from pbe.errors import UserError
from pbe.evaluation.benches.bench import source_path
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.painting.processes import Placement
from pbe.settings import Settings
from pbe.types import Progress, no_progress_bars
from tests.support import parameters


class Bars:
    """Progress bars that keep the last (done, total) of each."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[int, int]] = {}
        self.first: dict[str, tuple[int, int]] = {}

    def __call__(self, name: str) -> Progress:
        def progress(done: int, total: int, note: str = "") -> None:
            self.first.setdefault(name, (done, total))
            self.last[name] = (done, total)

        return progress


@pytest.fixture
def settings() -> Settings:
    options = parameters.evaluate(
        sweep=(1.0, 5.0, 7.0), sweep_cases=3, num_steps=2, batch_size=3, num_workers=2, diversity_cases=2,
        diversity_seeds=2, baselines=("copy_paste",), identity="none", bootstrap_draws=100,
    )  # fmt: skip
    sections = {"bench": parameters.bench(num_cases=6), "method": parameters.method(image_px=32), "evaluate": options}
    return parameters.PARAMETERS.model_copy(update=sections)


@pytest.fixture
def project(demo: Path, model_folder: Path, tmp_path: Path, settings: Settings) -> Path:
    """A folder with the outputs of the earlier stages."""
    tiny = parameters.ROOT / layout.TINY / FOLDER
    for path, target in (
        (layout.RAW, demo / "raw"),
        (layout.CURATED, demo / "curated"),
        (layout.MODEL, model_folder),
        (layout.TINY / FOLDER, tiny),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).symlink_to(target)
    make_bench(settings, tmp_path)
    return tmp_path


def changed(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"evaluate": settings.evaluate.replace(**changes)})


def test_the_stage_paints_then_scores_and_reuses_its_results(project: Path, settings: Settings) -> None:
    first, second = Bars(), Bars()
    counts = evaluate(settings, project, first)
    assert list(first.last) == ["cases checked", "cases painted", "real images encoded", "results scored"]
    assert (first.first["cases painted"], first.last["cases painted"]) == ((0, 17), (17, 17))  # 6 + 6 + 3 and 2 seeds
    assert first.last["results scored"] == (27, 27)  # and the source and the pasted exemplar
    metrics = (project / layout.METRICS).read_bytes()
    content = json.loads(metrics)
    assert list(content["methods"]) == ["paint_by_example", "source", "copy_paste"]
    assert content["bench"] == counts["bench"] == {"cases": 6, "usable": 6}
    scores = json.loads((project / layout.SCORES).read_text())
    assert {"clip_score", "fid", "shape_accuracy"} < set(scores) <= set(SCORES)
    assert scores.items() <= content["methods"]["paint_by_example"].items()
    assert "second_colour_accuracy" in content["methods"]["paint_by_example"]
    assert all((project / path).is_file() for path in (layout.PAGE, layout.GALLERY))

    assert evaluate(settings, project, second) == counts
    assert (second.first["cases painted"], second.first["results scored"]) == ((17, 17), (27, 27))
    assert "real images encoded" not in second.last
    assert (project / layout.METRICS).read_bytes() == metrics


def test_a_benchs_sources_may_be_larger_than_the_painters_square(project: Path, settings: Settings) -> None:
    assert read_bench(project / layout.BENCH).case(0).source.shape == (32, 32, 3)
    settings = settings.model_copy(update={"bench": parameters.bench(num_cases=2, image_px=48)})
    make_bench(settings, project)
    bench = read_bench(project / layout.BENCH)
    assert bench.case(0).source.shape == (48, 48, 3)
    paint_all(changed(settings, sweep=(), diversity_cases=0), project, bench, (), no_progress_bars)
    picture = next((project / layout.EVALUATION / "results/paint_by_example").glob("*.png"))
    assert read_image(picture).shape == (48, 48, 3)


def test_a_bench_as_cocoees_authors_give_it_is_evaluated_and_what_is_damaged_refused_before_painting(
    project: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "download" / "COCOEE" / "test_bench"
    given.parent.mkdir(parents=True)
    (project / layout.BENCH).rename(given)
    for name in ("id_list.npy", "cases.csv"):
        (given / name).unlink()
    path = source_path(given, 4)
    path.write_bytes(path.read_bytes()[:-60])
    names = ("copy_paste", "text_inpainting")
    settings = changed(
        settings, bench=str(tmp_path / "download"), baselines=names, guidance_scale=5.0, sweep=(5.0,), diversity_cases=0
    )
    bars = Bars()
    with pytest.raises(UserError, match=r"1 of 6 cases cannot be used: 1 unreadable; first: .*4_GT\.png: .*truncated"):
        evaluate(settings, project, bars)
    assert "cases painted" not in bars.first
    counts = evaluate(changed(settings, damaged="skip", num_cases=5), project, bars)
    assert counts["bench"] == {"cases": 5, "usable": 4, "skipped": {"unreadable": 1}, "notes": {"ids_from_files": 5}}
    assert bars.last["cases painted"] == (8, 8)  # with guidance and without
    printed = capsys.readouterr().out
    assert "id_list.npy is missing; the 5 ids are those of the files" in printed
    assert "so text_inpainting is left out" in printed


def test_a_painter_that_was_trained_further_leaves_text_inpainting_out(
    project: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    options = settings.evaluate.replace(baselines=("copy_paste", "text_inpainting"))
    bench = read_bench(project / layout.BENCH)
    names = dict.fromkeys(range(6), "heart")
    assert usable_baselines(options, bench, names, parameters.ROOT / layout.TINY) == list(options.baselines)
    assert usable_baselines(options, bench, names, project / layout.MODEL) == ["copy_paste"]
    assert capsys.readouterr().out == (
        "models/backbone: a painter, which knows no text, so text_inpainting is left out\n"
    )


def painted_again(settings: Settings, project: Path, **changes: Any) -> bool:
    """Paint with these changes of `evaluate`; return whether the results so far were of no use."""
    bars = Bars()
    settings = changed(settings, **changes)
    paint_all(settings, project, check_bench(settings.evaluate, project).bench, [], bars)
    return bars.first["cases painted"] != bars.last["cases painted"]


def test_results_are_kept_for_auto_and_what_it_means_and_not_for_another_precision(
    project: Path, settings: Settings
) -> None:
    auto = {"device": "auto", "precision": "auto"}
    placement = placement_of(settings.evaluate.replace(**auto))
    kind, other = placement.devices[0].partition(":")[0], {"bf16": "fp32", "fp32": "bf16"}[placement.precision]
    assert painted_again(settings, project, **auto)
    assert not painted_again(settings, project, device=kind, precision=placement.precision)
    assert painted_again(settings, project, device=kind, precision=other)


def test_a_project_without_a_bench_names_the_stage_that_makes_it(project: Path, settings: Settings) -> None:
    (project / layout.BENCH).rename(project / "elsewhere")
    with pytest.raises(UserError, match=r"data/bench: no such file or folder; run the bench stage first"):
        evaluate(settings, project, Bars())


@pytest.mark.parametrize("change", [{"device": "cuda:99"}, {"device": "cpu", "precision": "fp16"}])
def test_a_device_that_does_not_exist_is_named_with_its_key(settings: Settings, change: dict[str, str]) -> None:
    with pytest.raises(UserError, match=rf"^evaluate\.{list(change)[-1]} '{list(change.values())[-1]}': "):
        placement_of(settings.evaluate.replace(**change))


def test_each_gpu_has_one_process(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    options = settings.evaluate.replace(num_workers=8, device="auto", precision="fp16")
    assert placement_of(options) == Placement(("cuda:0", "cuda:1"), num_workers=1, precision="fp16")
    assert placement_of(options.replace(device="cuda:1")).devices == ("cuda:1",)
    assert placement_of(options.replace(device="cpu", precision="fp32")).num_workers == 8

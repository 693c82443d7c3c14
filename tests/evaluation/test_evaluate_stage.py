"""The stage `evaluate` on a small project of the demo world."""

import json
from pathlib import Path

import pytest

from flows.evaluate import evaluate, guidance_sweep, open_bench, paint_all, placement_of, sampling_of
from pbe import layout
from pbe.demo.attribute_classifier import FOLDER
from pbe.errors import UserError
from pbe.evaluation.painting import Placement
from pbe.settings import Settings
from pbe.types import Progress
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
def project(demo: Path, model_folder: Path, tmp_path: Path) -> Path:
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
    return tmp_path


@pytest.fixture
def settings() -> Settings:
    options = parameters.evaluate(
        num_cases=6, sweep=(1.0, 5.0, 7.0), sweep_cases=3, num_steps=2, batch_size=3, num_workers=2
    )
    return parameters.PARAMETERS.model_copy(update={"evaluate": options, "method": parameters.method(image_px=32)})


def test_the_stage_paints_then_scores_and_reuses_its_results(project: Path, settings: Settings) -> None:
    first, second = Bars(), Bars()
    methods = evaluate(settings, project, first)
    assert list(first.last) == ["cases painted", "cases scored"]
    assert (first.first["cases painted"], first.last["cases painted"]) == ((0, 15), (15, 15))
    assert first.last["cases scored"] == (6, 6)
    metrics = (project / layout.METRICS).read_bytes()
    assert json.loads(metrics)["methods"] == methods
    assert "second_colour_accuracy" in methods["paint_by_example"]
    assert all((project / path).is_file() for path in (layout.PAGE, layout.GALLERY))

    assert evaluate(settings, project, second) == methods
    assert second.first["cases painted"] == (15, 15)
    assert (project / layout.METRICS).read_bytes() == metrics


def test_a_given_bench_is_painted_and_recorded_and_the_projects_own_can_follow(
    project: Path, settings: Settings, tmp_path: Path
) -> None:
    evaluate(settings, project, Bars())
    given = tmp_path / "given"
    (project / layout.BENCH).rename(given)
    options = settings.evaluate.replace(bench=str(given))
    evaluate(settings.model_copy(update={"evaluate": options}), project, Bars())
    reference = json.loads((project / layout.BENCH / "bench.json").read_text())
    assert (reference["folder"], reference["num_cases"]) == (str(given), 6)
    assert len(reference["digest"]) == 64

    evaluate(settings, project, Bars())
    assert not (project / layout.BENCH / "bench.json").exists()
    assert len(list((project / layout.BENCH / "GT_3500").iterdir())) == 6


def painted_again(settings: Settings, project: Path, **changes: str) -> bool:
    """Paint with these changes of `evaluate`; return whether the results so far were of no use."""
    bars = Bars()
    changed = settings.model_copy(update={"evaluate": settings.evaluate.replace(**changes)})
    bench = open_bench(changed, project)
    placement = placement_of(changed.evaluate)
    paint_all(project, bench, guidance_sweep(changed.evaluate), sampling_of(changed), placement, bars)
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

"""The flow of the paper's tables on a small demo world: it trains, paints, scores and reports, and does so once."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from flows import tables
from flows.bench import bench as make_bench
from pbe import layout
from pbe.demo.attribute_classifier import FOLDER
from pbe.demo.tables.plan import Plan, make_plan
from pbe.demo.tables.tracking import EXPERIMENT
from pbe.latents.encoding import EncodeJob, ShardWriter
from pbe.latents.latent_cache import INDEX
from pbe.runtime.files import read_json, write_json
from pbe.settings import Settings
from tests.support import parameters

pytestmark = [pytest.mark.slow, pytest.mark.long]
TASKS = ("encode_latents", "train_models", "paint_models", "score", "record_models")


def encode_without_ray(settings: Settings, folder: Path, bars: Any) -> dict[str, int]:
    """Do what the stage encode does in one shard, without Ray, whose start takes longer than this test."""
    root = folder.resolve()
    paths = [root / path for path in (layout.RAW / "images", layout.CURATED, layout.BACKBONE, layout.LATENTS)]
    writer = ShardWriter(EncodeJob(*paths, settings.method, settings.encode, settings.seed), processes=False)
    rows = int(writer({"shard": 0})["rows"])
    write_json(root / layout.LATENTS / INDEX, {"rows": rows, "shards": 1, "shard_rows": settings.encode.shard_rows})
    (root / layout.LATENTS / "key.txt").write_text("k")
    return {"rows": rows}


@pytest.fixture
def plan(demo: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    for name in TASKS:
        monkeypatch.setattr(tables, name, getattr(tables, name).fn)
    monkeypatch.setattr(tables, "encode", encode_without_ray)
    monkeypatch.setattr(tables, "create_markdown_artifact", lambda *_, **__: None)
    for path, target in (
        (layout.RAW, demo / "raw"),
        (layout.CURATED, demo / "curated"),
        (layout.BACKBONE, backbone),
        (layout.TINY / FOLDER, parameters.ROOT / layout.TINY / FOLDER),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).symlink_to(target)
    sections = {
        "bench": parameters.bench(num_cases=6),
        "method": parameters.method(image_px=32),
        "encode": parameters.encode(exemplar_variants=1),
        "train": parameters.train(batch_size=2),
        "evaluate": parameters.evaluate(guidance_scale=5.0, num_steps=2, identity="none", bootstrap_draws=100),
    }
    settings = parameters.PARAMETERS.model_copy(update=sections)
    make_bench(settings, tmp_path)
    return make_plan(tmp_path, settings, (3,), (1.0,), sweep_cases=4, num_workers=2, steps=2)


def test_the_flow_writes_tables_runs_and_models_once(plan: Plan, tmp_path: Path) -> None:
    before = mlflow.get_tracking_uri()
    content = tables.run_plan(plan)
    assert read_json(tmp_path / layout.TABLES) == content
    assert "+ bottleneck" in (tmp_path / "reports/tables.md").read_text()
    assert (tmp_path / "reports/tables.png").stat().st_size > 10_000
    assert (
        content["num_pictures"] == 4 * 6 + 2 * 6 + 4 + 2 * 4 + 2 * 4
    )  # unguided, full, its irregular masks, texts, box masks
    assert [row["title"] for row in content["guidance"]] == ["1", "5"]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {project.name for project in plan.projects}
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".pbe/tables/*/models/pbe/model_index.json")}
    painted = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".pbe/tables/*/results/**/*.png")}
    assert len(trained) == 6
    assert len(painted) == content["num_pictures"]
    assert tables.run_plan(plan) == content
    for path, time in {**trained, **painted}.items():
        assert path.stat().st_mtime_ns == time, path
    mlflow.set_tracking_uri(before)

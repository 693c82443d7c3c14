"""The registry in an MLflow database: promotion, refusal, one version for each model, and use by alias."""

import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import grimp
import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image as PILImage

from pbe.errors import UnavailableError, UserError
from pbe.method.painter import Painter
from pbe.serving.commands.main import main
from pbe.serving.registry import versions as registry
from pbe.serving.registry.comparisons import Difference
from pbe.serving.registry.evaluations import Evaluation
from pbe.serving.registry.registered_models import painter_folder
from pbe.serving.registry.version_evaluations import evaluation_of
from pbe.serving.registry.version_records import Origin
from pbe.serving.registry.versions import Registered, champion_version, register, write_registered
from tests.support import parameters
from tests.support.planted_evaluations import planted

URI = "models:/paint-by-example@champion"
SETTINGS = parameters.register(bootstrap_draws=200)


def address(project: Path) -> str:
    return f"sqlite:///{project / 'mlflow.db'}"


@pytest.fixture
def project(empty_registry: Path, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(empty_registry, folder / "mlflow.db")
    yield folder
    mlflow.set_tracking_uri("")


def put(project: Path, model: Path, evaluation: Evaluation, **more: Any) -> Registered:
    options = {"tracking_uri": address(project), "artifact_location": (project / "mlruns").as_uri(), **more}
    return register(model, evaluation, SETTINGS, seed=0, experiment="paint-by-example", **options)


def put_other(project: Path, model: Path, identity: float, **more: Any) -> Registered:
    """Register another model, whose weights and case-level scores follow from its identity."""
    return put(project, other_model(model, identity), planted(int(identity), identity=identity), **more)


def other_model(model: Path, identity: float) -> Path:
    folder = model.with_name(f"{model.name} {identity}")
    if not folder.exists():
        shutil.copytree(model, folder, copy_function=os.link)
        (folder / "README.md").write_text(f"identity {identity}")
    return folder


def versions() -> list[Any]:
    return list(mlflow.MlflowClient().search_model_versions("name = 'paint-by-example'"))


def test_the_first_good_model_becomes_champion(project: Path, model_folder: Path) -> None:
    registered = put(
        project, model_folder, planted(), origin=Origin("abc", {"data/curated": "def", "data/raw": "123"}, "mit")
    )

    assert registered == Registered(
        "paint-by-example", 1, "champion", True, registered.reason, "first", registered.table
    )
    assert "first champion" in registered.reason
    version = mlflow.MlflowClient().get_model_version("paint-by-example", "1")
    assert set(version.aliases) == {"challenger", "champion"}
    assert version.tags.pop("weights") == registry.digest_model(model_folder)
    assert version.tags == {
        "git_commit": "abc", "data": "data/curated def", "licence": "mit", "evaluations": planted().key,
        "gate": registered.reason, "scores": "CLIP score 85.00, FID 1.000",
    }  # fmt: skip
    record = json.loads(next(project.rglob("version.json")).read_text())
    assert record == {
        "git_commit": "abc", "data": {"data/curated": "def", "data/raw": "123"}, "licence": "mit", "picture": "",
        "metrics": planted().metrics, "evaluation": planted().key, "gate": [asdict(row) for row in registered.table],
        "outcome": "first", "decided_on": planted().key,
    }  # fmt: skip
    assert mlflow.MlflowClient().get_run(version.run_id).data.metrics["paint_by_example.fid"] == 1.0


def test_a_worse_model_stays_challenger_and_a_better_one_takes_over(project: Path, model_folder: Path) -> None:
    put(project, other_model(model_folder, 60), planted(1))

    worse = put_other(project, model_folder, 58)
    assert (worse.version, worse.alias, worse.outcome) == (2, "challenger", "worse")
    assert "worse than the champion, version 1, on 60 cases: identity -" in worse.reason

    equal = put(project, other_model(model_folder, 61), planted(2))
    assert (equal.version, equal.alias, equal.outcome) == (3, "challenger", "tie")
    assert champion_version("paint-by-example", tracking_uri=address(project)) == 1

    better = put_other(project, model_folder, 62)
    assert (better.version, better.alias, better.outcome) == (4, "champion", "better")
    assert champion_version("paint-by-example", tracking_uri=address(project)) == 4


def test_the_same_model_again_is_the_same_version(project: Path, model_folder: Path) -> None:
    first = put_other(project, model_folder, 60)
    refused = put_other(project, model_folder, 58)

    assert put_other(project, model_folder, 60) == first  # as after an interruption between registry and file
    assert put_other(project, model_folder, 58) == refused
    assert len(versions()) == 2


def test_the_champion_evaluated_in_another_way_stays_champion_and_can_be_compared(
    project: Path, model_folder: Path
) -> None:
    champion, challenger = other_model(model_folder, 60), other_model(model_folder, 62)
    longer = {"num_steps": 50}
    put(project, champion, planted(1))

    refused = put(project, challenger, planted(2, identity=62, conditions=longer))
    assert (refused.version, refused.outcome) == (2, "incomparable")
    assert "was evaluated with num_steps 8, the challenger with 50" in refused.reason

    assert put(project, champion, planted(1, conditions=longer)).alias == "champion"
    promoted = put(project, challenger, planted(2, identity=62, conditions=longer))
    assert (promoted.version, promoted.outcome) == (2, "better")
    assert len(versions()) == 2


def test_a_version_keeps_what_a_comparison_needs(
    project: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "index.html"
    page.write_text("<html>")
    evaluation = planted(num_cases=40)
    put(project, model_folder, evaluation, report_files=[page])

    (folder,) = project.rglob("evaluations/*")
    assert folder.name == evaluation.key
    assert sorted(path.name for path in folder.iterdir()) == [
        "case_scores.parquet", "evaluation.json", "features.npz", "index.html", "metrics.json",
    ]  # fmt: skip
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20_000
    version = versions()[0]
    for fetched in (False, True):  # read in place, and fetched through MLflow
        if fetched:
            monkeypatch.setattr("pbe.serving.registry.version_files.stored_folder", lambda *_: None)
        kept = evaluation_of(version, evaluation.key, address(project))
        assert kept is not None
        assert (kept.metrics, kept.conditions) == (evaluation.metrics, evaluation.conditions)
        assert kept.cases.equals(evaluation.cases.filter(pl.col("method") == "paint_by_example"))
        assert np.array_equal(kept.features["paint_by_example"], evaluation.features["paint_by_example"])
        assert kept.reference is not None
        assert evaluation.reference is not None
        assert np.array_equal(kept.reference.covariance, evaluation.reference.covariance)


def test_a_champion_of_version_0_1_has_no_scores_of_cases(project: Path, model_folder: Path) -> None:
    """It has metrics.json alone, and a digest of weights and metrics together."""
    put_other(project, model_folder, 60)
    old = json.dumps({"methods": {}}, sort_keys=True)
    weights = versions()[0].tags["weights"]
    client = mlflow.MlflowClient()
    for tag in ("evaluations", "weights"):
        client.delete_model_version_tag("paint-by-example", "1", tag)
    client.delete_registered_model_tag("paint-by-example", "champions")
    client.set_model_version_tag("paint-by-example", "1", "was_champion", "true")
    next(project.rglob("version.json")).unlink()
    client.set_model_version_tag("paint-by-example", "1", "metrics", old)
    client.set_model_version_tag(
        "paint-by-example", "1", "model_hash", hashlib.sha256(f"{old}\n{weights}".encode()).hexdigest()
    )

    refused = put_other(project, model_folder, 62)
    assert (refused.version, refused.outcome) == (2, "incomparable")
    assert "version 1, carries no scores of single cases" in refused.reason

    assert put_other(project, model_folder, 60).version == 1
    assert put_other(project, model_folder, 60).version == 1
    assert put_other(project, model_folder, 62).outcome == "better"


def test_a_champion_that_was_made_in_the_registry_stays_champion(project: Path, model_folder: Path) -> None:
    refused = put(project, model_folder, planted(fid=9.0))
    mlflow.MlflowClient().set_registered_model_alias("paint-by-example", "champion", str(refused.version))

    registered = put(project, model_folder, planted(fid=9.0))
    assert (registered.alias, registered.reason) == ("champion", "Made champion in the registry, not by the gate.")


@pytest.mark.parametrize("step", ["set_registered_model_alias", "set_model_version_tag", "create_model_version"])
def test_registering_again_after_an_interrupt_gives_one_version(
    step: str, project: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, step, killed)
        with pytest.raises(KeyboardInterrupt):
            put(project, model_folder, planted())

    registered = put(project, model_folder, planted())
    assert (registered.version, registered.alias) == (1, "champion")
    assert len(versions()) == 1


def test_a_rollback_holds_when_the_same_model_is_registered_again(project: Path, model_folder: Path) -> None:
    for identity in (60, 62, 64):
        assert put_other(project, model_folder, identity).promoted
    mlflow.MlflowClient().set_registered_model_alias("paint-by-example", "champion", "1")

    registered = put_other(project, model_folder, 64)
    assert (registered.version, registered.alias, registered.promoted) == (3, "challenger", False)
    assert "version 3 was champion before, and version 1 has replaced it" in registered.reason
    assert champion_version("paint-by-example", tracking_uri=address(project)) == 1

    assert put_other(project, model_folder, 66).promoted  # a new model is


def test_a_moved_project_registers_in_its_new_place(project: Path, model_folder: Path, tmp_path: Path) -> None:
    put(project, model_folder, planted())
    moved = tmp_path / "moved"
    shutil.move(project, moved)

    assert painter_folder(URI, tracking_uri=address(moved)).is_relative_to(moved)
    assert put(moved, model_folder, planted(conditions={"num_steps": 50})).version == 1
    assert put_other(moved, model_folder, 58).outcome == "worse"
    assert put_other(moved, model_folder, 62).version == 3
    assert painter_folder(URI, tracking_uri=address(moved)).is_relative_to(moved / "mlruns")
    assert not project.exists()
    project.mkdir()


def test_a_model_whose_files_are_gone_is_registered_anew(project: Path, model_folder: Path) -> None:
    put(project, model_folder, planted())
    shutil.rmtree(project / "mlruns")

    registered = put(project, model_folder, planted())
    assert registered.version == 2
    assert painter_folder("models:/paint-by-example/2", tracking_uri=address(project)).is_dir()
    assert put(project, model_folder, planted()).version == 2


def test_the_served_champion_paints_and_names_broken_images(project: Path, model_folder: Path, images: Path) -> None:
    put(project, model_folder, planted())

    folder = painter_folder(URI, tracking_uri=address(project))
    assert folder.is_relative_to(project / "mlruns")
    assert Painter.from_pretrained(folder).image_px == 32

    model = mlflow.pyfunc.load_model(URI)
    row = {"source": "s.png", "mask": "m.png", "exemplar": "e.jpg"}
    frame = pd.DataFrame([{column: (images / file).read_bytes() for column, file in row.items()}])
    result = model.predict(frame, params={"num_steps": 2, "seed": 3})
    out = np.asarray(PILImage.open(io.BytesIO(result["image"][0])))
    source, mask = (np.asarray(PILImage.open(images / file)) for file in ("s.png", "m.png"))
    assert np.array_equal(out[mask == 0], source[mask == 0])
    assert (out[mask == 255] != source[mask == 255]).any()

    for column, content in (("exemplar", b"no image"), ("mask", b"no image"), ("source", "a path")):
        broken = frame.copy()
        broken.loc[0, column] = content
        with pytest.raises(Exception, match=f"row 0, column {column}|Incompatible input types for column {column}"):
            model.predict(broken, params={"num_steps": 2})


def test_mlflow_users_choose_device_and_precision_as_they_load_a_model(
    project: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(project, model_folder, planted())
    model = mlflow.pyfunc.load_model(URI, model_config={"device": "cpu", "precision": "bf16"})
    assert next(model.unwrap_python_model().editor.painter.parameters()).dtype == torch.bfloat16
    monkeypatch.setenv("MLFLOW_PYFUNC_INFERENCE_CONFIG", '{"device": "cpu", "precision": "fp32"}')
    model = mlflow.pyfunc.load_model(URI)
    assert next(model.unwrap_python_model().editor.painter.parameters()).dtype == torch.float32


def test_pbe_edit_uses_the_champion_of_the_project(
    project: Path, model_folder: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(project, model_folder, planted())
    mlflow.set_tracking_uri("")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(project)
    files = {"source": "s.png", "mask": "m.png", "exemplar": "e.jpg", "out": "o.png"}
    argv = ["edit", "--num-steps=2", *(f"--{name}={images / file}" for name, file in files.items())]

    assert main(argv) == 0
    by_alias = (images / "o.png").read_bytes()
    assert main([*argv, f"--model={model_folder}"]) == 0
    assert (images / "o.png").read_bytes() == by_alias


@pytest.mark.parametrize("uri", [URI, "models:/other/1", "models:/paint-by-example/x", "models:/"])
def test_a_model_that_does_not_exist_is_one_line(
    uri: str, project: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address(project))
    files = {"source": "s.png", "mask": "m.png", "exemplar": "e.jpg", "out": "o.png"}

    assert main(["edit", f"--model={uri}", *(f"--{name}={images / file}" for name, file in files.items())]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "make demo" in error


def test_the_model_is_logged_to_its_training_run_if_the_server_has_it(project: Path, model_folder: Path) -> None:
    mlflow.set_tracking_uri(address(project))
    client = mlflow.MlflowClient()
    run = client.create_run(client.create_experiment("x", (project / "mlruns").as_uri()))

    put(project, model_folder, planted(), run_id=run.info.run_id)
    assert versions()[0].run_id == run.info.run_id

    put_other(project, model_folder, 62, run_id="0" * 32)
    assert len({version.run_id for version in versions()}) == 2


def test_the_digest_covers_weights_and_names(model_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(model_folder, copy)
    original = registry.digest_model(model_folder)

    assert registry.digest_model(copy) == original
    (copy / "model_index.json").write_text("{}")
    assert registry.digest_model(copy) != original
    with pytest.raises(UserError, match="holds no model"):
        registry.digest_model(tmp_path / "none")


def test_registered_json(tmp_path: Path) -> None:
    row = Difference("fid", "champion", 2.0, 1.0, 1.0, 0.5, 1.5, 60, "worse")
    registered = Registered("paint-by-example", 3, "challenger", False, "Refused: x.", "worse", (row,))
    write_registered(registered, tmp_path / "registered.json")

    content = json.loads((tmp_path / "registered.json").read_text())
    assert list(content) == ["name", "version", "alias", "promoted", "reason", "outcome", "table"]
    assert content.pop("table") == [asdict(row)]
    assert replace(registered, **content) == registered
    assert [path.name for path in tmp_path.iterdir()] == ["registered.json"]


def test_requirements_are_pinned_and_portable() -> None:
    pins = registry.pip_requirements()

    assert any(pin == "torch==2.13.0" for pin in pins)
    assert all("==" in pin and "+" not in pin for pin in pins)


def test_every_package_that_the_served_model_imports_is_pinned() -> None:
    graph = grimp.build_graph("pbe", include_external_packages=True, cache_dir=None, exclude_type_checking_imports=True)
    imported = {module.partition(".")[0] for module in graph.find_upstream_modules("pbe.serving.pyfunc")} - {"pbe"}
    owners = packages_distributions()
    unpinned = [
        module
        for module in sorted(imported - sys.stdlib_module_names)
        if not {owner.lower() for owner in owners[module]} & set(registry.PACKAGES)
    ]
    # diffusers and transformers require huggingface_hub; boto3 is imported where a registry in S3 fails
    assert set(unpinned) <= {"huggingface_hub", "boto3", "botocore"}


def test_a_server_that_does_not_answer_is_named(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UnavailableError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer: "):
        put(Path("/nowhere"), model_folder, planted(), tracking_uri="http://127.0.0.1:9")
    mlflow.set_tracking_uri("")

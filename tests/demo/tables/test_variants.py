"""The models of the tables: their changes are those that docs/method.md gives for `dvc exp run`, and valid settings."""

from pathlib import Path

from pbe.demo.tables.projects import latents_name, open_project
from pbe.demo.tables.variants import ABLATION, BOX_MASKS, FULL, VARIANTS, settings_of
from tests.support.parameters import PARAMETERS, ROOT


def test_the_full_method_is_params_yaml_and_each_row_switches_one_part_off() -> None:
    assert settings_of(FULL, PARAMETERS, PARAMETERS.seed) == PARAMETERS
    baseline = settings_of(ABLATION[0], PARAMETERS, 7)
    assert baseline.seed == 7
    assert not baseline.train.prior
    assert not baseline.method.bottleneck
    assert not baseline.method.exemplar.augment
    assert baseline.method.mask.shape == "box"
    assert baseline.train.drop_probability == 0
    for fewer, more in zip(ABLATION[1:], ABLATION[:-1], strict=True):
        assert dict(fewer.changes).items() < dict(more.changes).items()


def test_the_switches_are_those_of_the_documentation() -> None:
    page = (ROOT / "docs/method.md").read_text()
    command = page[page.index("dvc exp run --name baseline") : page.index("dvc exp show")]
    for key, value in ABLATION[0].changes.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        assert f"{key}={text}" in command.replace("drop_probability=0 ", "drop_probability=0.0 "), key


def test_models_with_the_same_triplets_share_their_latents(tmp_path: Path) -> None:
    projects = {v.name: open_project(tmp_path, v, PARAMETERS, seed=4) for v in VARIANTS}
    folders = {name: (project.folder / "data/latents").resolve() for name, project in projects.items()}
    assert folders["baseline"] == folders["prior"]
    assert folders["bottleneck"] == folders["guidance"]
    assert len(set(folders.values())) == 4
    assert latents_name(PARAMETERS, 0) != latents_name(PARAMETERS, 1)
    assert (projects["baseline"].folder / "models/backbone").readlink() == (tmp_path / "models/backbone").absolute()
    assert open_project(tmp_path, BOX_MASKS, PARAMETERS, seed=4).folder == projects["box_masks"].folder

"""params.yaml: what is accepted, and how a mistake in it is told."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pbe.settings import Settings, load_settings

ROOT = Path(__file__).parents[1]


def load(folder: Path, text: str) -> Settings:
    (folder / "params.yaml").write_text(text)
    return load_settings(folder / "params.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sead: 1\n", "sead: unknown key; did you mean seed?"),
        ("filter:\n  min_area: 0.1\n", "filter.min_area: unknown key; did you mean min_area_frac?"),
        (
            "method:\n  mask:\n    jitter: 1\n",
            "method.mask.jitter: unknown key; the keys here are irregular",
        ),
        ("train:\n  lr: -1\n", "train.lr: input should be greater than 0 (got -1)"),
        ("train:\n  steps: many\n", "train.steps: input should be a valid integer"),
        (
            "acquire:\n  source: ftp\n",
            "acquire.source: input should be 'demo', 'openimages', 's3', 'folder', 'coco', 'yolo', 'voc', 'csv', ",
        ),
        ("evaluate:\n  guidance_scale: -1\n", "evaluate.guidance_scale: input should be greater than or equal to 0"),
        ("train: [\n", "not YAML"),
        ("- seed\n", "(top level): "),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"params\.yaml") as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert f"params.yaml: {told}" in message
    assert "\n" not in message


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"params.yaml: no such file; run inside the project"):
        load_settings(tmp_path / "params.yaml")


def test_two_mistakes_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sead: unknown key; did you mean seed\?; .*|.*; sead: unknown key"):
        load(tmp_path, "sead: 1\nseed: -1\n")


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().train.steps = 1  # type: ignore[misc]


def test_params_yaml_names_every_key() -> None:
    """A key that is left out would follow a changed default without DVC seeing it."""
    known = Settings().model_dump(by_alias=True)
    assert keys(yaml.safe_load((ROOT / "params.yaml").read_text())) == keys(known)
    load_settings(ROOT / "params.yaml")


def keys(tree: Any, prefix: str = "") -> set[str]:
    if not isinstance(tree, dict):
        return {prefix}
    return {name for key, value in tree.items() for name in keys(value, f"{prefix}.{key}")}

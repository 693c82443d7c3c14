"""params.yaml: which values it takes, and how an error in it is reported."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pbe.errors import UserError
from pbe.settings import Settings, load_settings
from tests.support.parameters import PARAMETERS, ROOT

SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())


def load(folder: Path, content: object) -> Settings:
    path = folder / "params.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_settings(path)


def changed(key: str, value: object) -> dict[str, Any]:
    """Return the shipped parameters with one dotted key set."""
    tree = yaml.safe_load(yaml.safe_dump(SHIPPED))
    *parents, last = key.split(".")
    section = tree
    for parent in parents:
        section = section[parent]
    section[last] = value
    return tree


def without(key: str) -> dict[str, Any]:
    """Return the shipped parameters without one dotted key."""
    tree = changed(key, None)
    *parents, last = key.split(".")
    section = tree
    for parent in parents:
        section = section[parent]
    del section[last]
    return tree


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sead", 1, "sead: unknown key; did you mean seed?"),
        ("filter.min_area", 0.1, "filter.min_area: unknown key; did you mean min_area_frac?"),
        ("register.max_fid_increase", 0.05, "register.max_fid_increase: is gone: the gate compares by intervals; see"),
        ("evaluate.min_area_frac", 0.1, "evaluate.min_area_frac: is bench.min_area_frac now"),
        ("evaluate.bench", "boxes", "evaluate.bench: value error, this is a path now; write data/bench (got 'boxes')"),
        ("evaluate.real", None, "evaluate.real: value error, this is a path now; write data/curated (got None)"),
        ("method.mask.jitter", 1, "method.mask.jitter: unknown key; the keys here are irregular"),
        ("train.lr", -1, "train.lr: input should be greater than 0 (got -1)"),
        ("train.steps", "many", "train.steps: input should be a valid integer"),
        (
            "acquire.source",
            "ftp",
            "acquire.source: input should be 'demo', 'openimages', 's3', 'folder', 'coco', 'yolo', 'voc', 'csv', ",
        ),
        ("evaluate.guidance_scale", -1, "evaluate.guidance_scale: input should be greater than or equal to 0"),
        ("acquire.short_side_px", 32, "(top level): value error, acquire.short_side_px 32 is below method.image_px 64"),
        ("train.drop_probability", 0, "(top level): value error, train.drop_probability 0 does not train v"),
    ],
)
def test_an_error_is_one_line_that_names_file_and_key(tmp_path: Path, key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, changed(key, value))
    assert f"params.yaml: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_min_snr_weighting_and_zero_terminal_snr_exclude_each_other(tmp_path: Path) -> None:
    tree = changed("train.min_snr_gamma", 5.0)
    load(tmp_path, tree)
    tree["train"]["zero_terminal_snr"] = True
    with pytest.raises(UserError, match=r"min_snr_gamma weights errors of the noise; train\.zero_terminal_snr"):
        load(tmp_path, tree)


@pytest.mark.parametrize("text", ["train: [\n", "\xff\n\x00"])
def test_a_file_that_is_not_yaml_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: not valid YAML"):
        load(tmp_path, text)


def test_a_list_is_no_parameter_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: \(top level\): "):
        load(tmp_path, "- seed\n")


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params.yaml: no such file; run this command in the project folder"):
        load_settings(tmp_path / "params.yaml")


def test_two_errors_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seed: .*; sead: unknown key; did you mean seed\?"):
        load(tmp_path, changed("seed", -1) | {"sead": 1})


def keys(tree: Any, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return [prefix.removeprefix(".")]
    return [name for key, value in tree.items() for name in keys(value, f"{prefix}.{key}")]


@pytest.mark.parametrize("key", keys(SHIPPED))
def test_a_deleted_line_is_an_error_and_no_other_value(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=rf"params\.yaml: {key}: missing; params\.yaml must set every parameter"):
        load(tmp_path, without(key))


def test_an_empty_file_lacks_every_section(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seed: missing.*register: missing"):
        load(tmp_path, "")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        PARAMETERS.train.steps = 1  # type: ignore[misc]


def test_a_replaced_value_is_validated() -> None:
    assert PARAMETERS.train.replace(steps=3).steps == 3
    with pytest.raises(ValidationError):
        PARAMETERS.train.replace(steps=0)
    with pytest.raises(ValidationError):
        PARAMETERS.train.replace(stepz=1)

"""The page of parameters is made from the settings: every key, with a meaning, and the stages that it makes stale."""

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest
import yaml

from pbe.settings import Settings
from tests.support.doc_blocks import ROOT


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """Import docs/parameters_page.py, which is no package."""
    spec = importlib.util.spec_from_file_location("parameters_page", ROOT / "docs/parameters_page.py")
    assert spec
    assert spec.loader
    module = sys.modules["parameters_page"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in values.items():
        found += keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return found


def test_every_parameter_is_on_the_page_with_its_meaning(page: ModuleType) -> None:
    text = page.markdown()
    for each in page.parameters():
        assert each.schema.get("description"), f"{each.key} has no description in pbe/settings.py"
        assert f"| `{each.key}` |" in text
    assert [each.key for each in page.parameters()] == keys(yaml.safe_load((ROOT / "params.yaml").read_text()))


def test_a_parameter_says_its_range_its_value_and_what_it_makes_stale(page: ModuleType) -> None:
    rows = {line.split("`")[1]: line for line in page.markdown().splitlines() if line.startswith("| `")}
    assert "whole number ≥ 32, ≤ 1,024, multiple of 8 | `64`; photographs `128` |" in rows["method.image_px"]
    assert "`ddp` / `fsdp` | `ddp` |" in rows["train.strategy"]
    assert rows["train.steps"].endswith("| train |")
    assert rows["method.exemplar.pad_frac"].endswith("| encode, train, bench |")
    assert rows["encode.num_workers"].endswith("| none |")


def test_what_changes_no_result_makes_no_stage_stale(page: ModuleType) -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, field in Settings.model_fields.items():
        for key in getattr(field.annotation, "no_result", ()):
            assert page.stale_stages(f"{field.alias or name}.{key}", stages) == []

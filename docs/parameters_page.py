"""The page of all parameters, made from pbe/settings.py, params.yaml and dvc.yaml whenever the site is built.

For each key: its type and range, its value in params.yaml, its meaning, and the stages that a change makes stale. A
stage after a stale one runs only if what it reads has really changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pbe.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
_LIMITS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
}
_INTRODUCTION = """\
# Parameters

`params.yaml` holds the value of every parameter, and a missing or unknown key is an error. This page is made from
`pbe/settings.py`, `params.yaml`, `projects/photo/params.yaml` ([photographs](photographs.md)) and `dvc.yaml` when the
site is built.

**Stale** names the stages that run again when the key changes. The stages after them run only if what they read has
changed. `none` marks a key that cannot change a result.

`dvc repro` runs what is stale. `dvc exp run -S train.steps=2400` sets a value for one experiment. Servers' addresses
belong to a machine and not to a result, so they are [environment variables](running.md#servers).

"""


@dataclass(frozen=True)
class Parameter:
    """A key of params.yaml, its JSON schema, its value, and that of projects/photo."""

    key: str
    schema: Mapping[str, Any]
    value: Any
    photo: Any


def parameters() -> Iterator[Parameter]:
    """Yield every parameter, in the order of params.yaml's sections."""
    schema = Settings.model_json_schema()
    demo, photo = (yaml.safe_load((ROOT / place / "params.yaml").read_text()) for place in (".", "projects/photo"))
    yield from _leaves(schema, schema["$defs"], demo, photo, "")


def stale_stages(key: str, stages: Mapping[str, Any]) -> list[str]:
    """Return the stages of dvc.yaml that name the key, or a section that holds it, as their parameter."""
    return [name for name, stage in stages.items() if any(_covers(each, key) for each in stage.get("params", ()))]


def markdown() -> str:
    """Return the page."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    sections: dict[str, list[Parameter]] = {}
    for each in parameters():
        sections.setdefault(each.key.partition(".")[0], []).append(each)
    texts = [_section(name, listed, stages) for name, listed in sections.items()]
    return _INTRODUCTION + "\n\n".join(texts) + "\n"


def _leaves(
    node: Mapping[str, Any], definitions: Mapping[str, Any], demo: Any, photo: Any, key: str
) -> Iterator[Parameter]:
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    if "properties" not in node:
        yield Parameter(key, node, demo, photo)
        return
    for name, inner in node["properties"].items():
        yield from _leaves(inner, definitions, demo[name], photo[name], f"{key}.{name}" if key else name)


def _covers(parameter: str, key: str) -> bool:
    return key == parameter or key.startswith(f"{parameter}.")


def _section(name: str, listed: list[Parameter], stages: Mapping[str, Any]) -> str:
    rows = "\n".join(_row(each, stages) for each in listed)
    return f"## {name}\n\n| key | type | value | meaning | stale |\n|---|---|---|---|---|\n{rows}"


def _row(each: Parameter, stages: Mapping[str, Any]) -> str:
    stale = stale_stages(each.key, stages)
    cells = (
        f"`{each.key}`",
        _type(each.schema),
        f"`{_shown(each.value)}`" + ("" if each.photo == each.value else f"; photographs `{_shown(each.photo)}`"),
        each.schema.get("description", ""),
        ", ".join(stale) or "none",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _type(schema: Mapping[str, Any]) -> str:
    """Return the type of a value in words, with its range or its choices."""
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " / ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}" if "items" in schema else f"{schema['minItems']} values"
    if "pattern" in schema:
        return "`auto` / `cpu` / `cuda` / `cuda:N`"
    name = {"string": "text", "number": "number", "integer": "whole number", "boolean": "true / false", "null": "null"}
    limits = [f"{sign} {_number(schema[limit])}" for limit, sign in _LIMITS.items() if limit in schema]
    return " ".join([name[schema["type"]], ", ".join(limits)]).strip()


def _number(value: float) -> str:
    return "2^63" if value == 2**63 else f"{value:,g}" if isinstance(value, float) else f"{value:,}"

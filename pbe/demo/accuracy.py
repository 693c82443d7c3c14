"""The true attributes of every box in the demo world, which the evaluation's accuracies are measured against."""

import csv
from pathlib import Path

from pbe.demo.bucket import ATTRIBUTES_FILE
from pbe.demo.scenes import Attributes
from pbe.evaluation.attributes import AttributeValues, BoxTruth

_COLUMNS = ("Shape", "Colour", "Pattern", "SecondColour")


def read_truth(raw: Path) -> dict[str, BoxTruth]:
    """Return the truth by box id, as `acquire` left it in `raw`; empty for data of another source."""
    path = raw / "annotations" / ATTRIBUTES_FILE.name
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = {row["box_id"]: Attributes(*(row[column] for column in _COLUMNS)) for row in csv.DictReader(file)}
    return {box_id: BoxTruth(scored_values(attributes), attributes.caption) for box_id, attributes in rows.items()}


def scored_values(attributes: Attributes) -> AttributeValues:
    """Return the attributes that are scored: the second colour only of patterned objects, as plain ones have none."""
    values = {"shape": attributes.shape, "colour": attributes.colour, "pattern": attributes.pattern}
    return values if attributes.pattern == "plain" else values | {"second_colour": attributes.second_colour}

"""The command `python -m pbe.demo.weights`, which trains the weights in data/tiny."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from pbe import layout
from pbe.demo import weights
from pbe.demo.weights.classifier import train_classifier
from pbe.demo.weights.clip import train_clip
from pbe.demo.weights.prior import refine_middle, refine_patterns, refine_prior, train_prior
from pbe.demo.weights.recipe import Recipe
from pbe.demo.weights.tower import refine_tower
from pbe.demo.weights.vae import train_vae

PARTS: dict[str, Callable[[Recipe, Path, Path], dict[str, float]]] = {
    "vae": train_vae,
    "clip": train_clip,
    "tower": refine_tower,
    "attribute_classifier": train_classifier,
    "prior": train_prior,
    "detail": refine_prior,
    "patterns": refine_patterns,
    "middle": refine_middle,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=weights.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--state",
        type=Path,
        default=layout.STATE / "tiny-backbone",
        help="folder of what a training that was stopped resumes from; with the state of a finished training, "
        "the same weights are written again without training (default: %(default)s)",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    record_path = arguments.out / "recipe.json"
    record = json.loads(record_path.read_text()) if record_path.exists() else {"quality": {}}
    recipe = Recipe()
    for part in arguments.parts:
        torch.set_num_threads(recipe.prior_threads if part == "prior" else 1)
        record["quality"][part] = PARTS[part](recipe, arguments.out, arguments.state)
        record |= {"recipe": asdict(recipe), "torch": torch.__version__}
        record_path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

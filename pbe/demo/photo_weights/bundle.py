"""The command that bundles a trained painter: `python -m pbe.demo.photo_weights.bundle MODEL OUT`.

Writes a copy of the model folder with its weights in fp16 into OUT, which may hold a model card, and replaces the model
that is there.
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pbe.errors import UserError
from pbe.method.backbone import INDEX, PAINTER_PARTS, is_painter
from pbe.runtime.files import atomic_folder


def bundle(model: Path, out: Path) -> None:
    """Copy the painter in `model` into `out` in fp16. Raises UserError when `model` is not a painter."""
    if not is_painter(model):
        raise UserError(f"{model}: not a painter (its {INDEX} is missing or names another class)")
    out.mkdir(parents=True, exist_ok=True)
    for part in PAINTER_PARTS:
        with atomic_folder(out / part) as copy:
            for file in sorted((model / part).iterdir()):
                if file.suffix == ".safetensors":
                    weights = {name: _half(tensor) for name, tensor in load_file(file).items()}
                    save_file(weights, copy / file.name, metadata={"format": "pt"})
                else:
                    shutil.copy(file, copy / file.name)
    shutil.copy(model / INDEX, out / INDEX)


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    try:
        bundle(arguments.model, arguments.out)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()

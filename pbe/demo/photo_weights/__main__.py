"""The command `python -m pbe.demo.photo_weights`, which trains the weights in data/photo."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from pbe.demo import photo_weights
from pbe.demo.photo_weights.photos import PhotoSet, pack
from pbe.demo.photo_weights.prior import train_prior
from pbe.demo.photo_weights.recipe import PhotoRecipe
from pbe.demo.photo_weights.towers import train_towers
from pbe.demo.photo_weights.vae import train_vae
from pbe.demo.weights.recipe import recipe_key
from pbe.errors import UserError
from pbe.runtime.devices import choose_device
from pbe.runtime.files import digest_files, read_json, write_json

Part = Callable[[PhotoRecipe, PhotoSet, Path, str, torch.device], dict[str, float]]
PARTS: dict[str, Part] = {"vae": train_vae, "towers": train_towers, "prior": train_prior}
READS = {"prior": ("vae", "image_encoder", "text_encoder", "tokenizer")}  # the weights that a part reads


def main() -> None:
    parser = argparse.ArgumentParser(
        description=photo_weights.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--packed", type=Path, required=True, help="the file of photographs; packed first if missing")
    parser.add_argument("--fod-a", type=Path, help="FOD-A as Pascal VOC with scenes.csv")
    parser.add_argument("--photos", type=Path, help="COCO files whose images lie in images/caltech-101")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:1")
    arguments = parser.parse_args()
    try:
        _train(arguments)
    except UserError as error:
        raise SystemExit(str(error)) from None


def _train(arguments: argparse.Namespace) -> None:
    if not arguments.packed.is_file():
        if arguments.fod_a is None or arguments.photos is None:
            raise UserError(f"{arguments.packed}: does not exist; name the folders to pack with --fod-a and --photos")
        pack(arguments.fod_a, arguments.photos, arguments.packed)
    torch.set_num_threads(1)
    train_parts(arguments.parts, PhotoRecipe(), arguments.packed, arguments.out, choose_device(arguments.device))


def train_parts(parts: Iterable[str], recipe: PhotoRecipe, packed: Path, out: Path, device: torch.device) -> None:
    """Train parts of the backbone in `out` on the photographs of the file `packed`, and record them in recipe.json."""
    data, record_path = digest_files([packed]), out / "recipe.json"
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        quality = PARTS[part](recipe, PhotoSet(packed), out, state_key(part, recipe, data, out), device)
        record = read_json(record_path) if record_path.exists() else {"quality": {}}
        record["quality"][part] = quality
        record |= {"recipe": asdict(recipe), "photographs": data, "torch": torch.__version__}
        write_json(record_path, record)


def state_key(part: str, recipe: PhotoRecipe, data: str, out: Path) -> str:
    """Return what decides a part's weights: its numbers of the recipe, the photographs, and the weights it reads."""
    folders = [out / name for name in READS.get(part, ())]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: does not exist; {part} reads it: train the other parts first")
    return f"{data} {recipe_key(recipe, part, *folders)}"


if __name__ == "__main__":
    main()

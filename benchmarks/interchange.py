"""Export and import at full size: UNet 860 M, VAE 84 M, CLIP ViT-L/14 with mapper 367 M, with random weights.

    python benchmarks/interchange.py                  # needs 10 GB of disk, 15 GB of memory and minutes

A painter is written as the authors' model.ckpt and as the published folder, and read again. Prints how many tensors are
equal, and whether the outputs of the parts are equal bit for bit: UNet on 8 x 8 latents, VAE on 64 x 64 pixels, tower
and mapper on an exemplar.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from pbe.interchange.architecture import AUTHORS, empty_painter
from pbe.interchange.folder import write_published
from pbe.interchange.ldm import read_ldm, write_ldm
from pbe.method.painter import Painter


def random_painter(seed: int) -> Painter:
    """Return a painter of the authors' architecture with small uniform weights and norms whose weights are about 1."""
    generator = torch.Generator().manual_seed(seed)
    painter = empty_painter(AUTHORS)
    state = {}
    for name, tensor in painter.state_dict().items():
        spread = 1 / max(1, tensor[0].numel() if tensor.ndim > 1 else 100) ** 0.5
        state[name] = torch.empty(tensor.shape).uniform_(-spread, spread, generator=generator)
        if tensor.ndim == 1 and "norm" in name and name.endswith("weight"):
            state[name] += 1
    painter.load_state_dict(state, assign=True)
    return painter


@torch.inference_mode()
def outputs(painter: Painter) -> dict[str, Tensor]:
    """Return the outputs of the parts for fixed random inputs."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(1, 3, 64, 64, generator=generator) * 2 - 1
    exemplar = torch.rand(1, 3, 224, 224, generator=generator) * 2 - 1
    context = painter.conditioner(painter.conditioner.tokens(exemplar))
    latents = painter.encode(pixels)
    x = torch.randn(1, 9, 8, 8, generator=generator)
    return {
        "context": context,
        "v": painter.conditioner.uncond_vector,
        "noise": painter.unet(x, torch.tensor([500]), context).sample,
        "latents": latents,
        "pixels": painter.decode(latents),
    }


def compare(name: str, again: Painter, state: dict[str, Tensor], expected: dict[str, Tensor], seconds: float) -> None:
    tensors = again.state_dict()
    equal = sum(torch.equal(tensors[key], tensor) for key, tensor in state.items())
    print(f"{name}: {equal} of {len(state)} tensors equal, {len(tensors)} read; written and read in {seconds:.0f} s")
    for key, tensor in outputs(again).items():
        print(f"  {key:8} equal {torch.equal(tensor, expected[key])}  (deviation of its values {tensor.std():.3g})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="the folder to write to (default: the system's temporary folder)")
    options = parser.parse_args()
    painter = random_painter(0)
    sizes = (
        sum(p.numel() for p in part.parameters()) / 1e6 for part in (painter.unet, painter.vae, painter.conditioner)
    )
    print("millions of parameters: UNet {:.1f}, VAE {:.1f}, tower with mapper {:.1f}".format(*sizes))
    state, expected = painter.state_dict(), outputs(painter)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file = Path(folder) / "model.ckpt"
        start = time.perf_counter()
        write_ldm(painter, file)
        again = read_ldm(file)
        compare(f"model.ckpt, {file.stat().st_size / 1e9:.2f} GB", again, state, expected, time.perf_counter() - start)
        del again
        file.unlink()
        start = time.perf_counter()
        write_published(painter, Path(folder) / "published")
        again = Painter.from_pretrained(Path(folder) / "published")
        compare("published folder", again, state, expected, time.perf_counter() - start)


if __name__ == "__main__":
    main()

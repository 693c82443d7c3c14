"""A guided call of the UNet by the official LDM code, by stock diffusers and by ours, on the same weights in one run.

    .venv/bin/python benchmarks/unet.py [--size sd] [--latent-px 64] [--dtypes fp32 bf16] [--threads 2] [--repeats 3]

Guidance needs two predictions, for v and for c, on the same latents: a batch of two. The official arithmetic is in
`ldm_unet.py`; stock is diffusers' UNet. Ours is `pbe.method.unet`: cross attention over one token is the vector per
sample that it is, and the layers before it run once for both halves; also in channels_last. The predictions are
compared before the measurement. Prints seconds and ratios and asserts nothing about time.
"""

import argparse
from collections.abc import Callable

import torch
from ldm_unet import LdmUNet
from sizes import SIZES, machine, medians_s, random_unet, stock_unet
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="sd")
    parser.add_argument("--latent-px", type=int, default=64)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["fp32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    unet = random_unet(options.size).eval()
    stock = stock_unet(unet)
    generator = torch.Generator().manual_seed(0)
    side = options.latent_px
    noisy = torch.randn(1, 9, side, side, generator=generator).repeat(2, 1, 1, 1)
    context = torch.randn(2, 1, SIZES[options.size]["context"], generator=generator)
    timesteps = torch.full((2,), 500)
    ldm = LdmUNet(unet)
    print(f"{sum(p.numel() for p in unet.parameters()) / 1e6:.0f} M parameters, {side} x {side} latents; {machine()}")

    def predict(name: str, dtype: torch.dtype) -> Tensor:
        x, c = noisy.to(dtype), context.to(dtype)
        if name == "official":
            return ldm(x, timesteps, c)
        if name.startswith("stock"):
            return torch.as_tensor(stock(x, timesteps, c).sample)
        both = 1 if "prefix" in name else 2  # rows of latents for two contexts
        return torch.as_tensor(unet(x[:both], timesteps[:both], c))

    with torch.inference_mode():
        for kind in options.dtypes:
            for each in (unet, stock):
                each.to(DTYPES[kind], memory_format=torch.contiguous_format)
            first = ("official", "stock", "ours: one token", "ours: one token, prefix")
            results = measure(predict, first, DTYPES[kind], options.repeats)
            for each in (unet, stock):
                each.to(memory_format=torch.channels_last)
            noisy = noisy.to(memory_format=torch.channels_last)
            second = ("stock, channels_last", "ours: one token, prefix, channels_last")
            results |= measure(predict, second, DTYPES[kind], options.repeats)
            noisy = noisy.contiguous()
            for name, (took, difference) in results.items():
                ratios = f"{results['official'][0] / took:5.2f} x official {results['stock'][0] / took:5.2f} x stock"
                print(f"{kind} {name:<40}{took:8.3f} s  {ratios}  differs by {difference:.1e}", flush=True)


def measure(
    predict: Callable[[str, torch.dtype], Tensor], names: tuple[str, ...], dtype: torch.dtype, repeats: int
) -> dict[str, tuple[float, float]]:
    """Return the median seconds of each variant and the largest difference from the first one's prediction."""
    outs = {name: predict(name, dtype) for name in names}
    variants = {name: (lambda name=name: predict(name, dtype)) for name in names}
    took = medians_s(variants, repeats, warm=False)
    return {name: (took[name], float((outs[name] - outs[names[0]]).abs().max())) for name in names}


if __name__ == "__main__":
    main()

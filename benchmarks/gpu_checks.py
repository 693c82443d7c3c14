"""The checks that come before `gpu.py`'s table: what is fast computes what is slow."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from encode import measure_rounding
from gpu_project import Project
from gpu_report import Report
from sizes import SIZES, stock_unet
from torch import Tensor

UNET_LIMIT = 1e-4  # in fp32, relative to the largest prediction
BF16_RATIO = 1.5  # our bf16 error relative to that of diffusers in bf16
LOSS_LIMIT = 0.02  # mean relative difference of the losses
LATENT_LIMIT = 0.03  # root mean square, relative; bf16 keeps 8 bits


def run_checks(project: Project, report: Report) -> None:
    """Compare UNet and latents with their fp32 peers, and record whether each is close enough."""
    plan = project.plan
    report.heading("checks", "UNet and latents against fp32")
    if report.fits("checks", "UNet", 20 if plan.on_gpu else 0):
        check_unet(project, report)
    if report.fits("checks", "latents", 10 if plan.on_gpu else 0):
        check_latents(project, report)


@contextmanager
def exact_fp32() -> Iterator[None]:
    """Compute float32 products in float32 instead of TF32."""
    kept = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(kept[0])
        torch.backends.cudnn.allow_tf32 = kept[1]


@torch.inference_mode()
def check_unet(project: Project, report: Report) -> None:
    """Compare our UNet in fp32 with diffusers' in fp32, and ours in bf16, channels_last, with both; guided as well."""
    plan = project.plan
    ours = project.painter().unet.to(plan.device).eval()
    stock = stock_unet(ours)
    side, generator = plan.image_px // 8, torch.Generator().manual_seed(1)
    latents = torch.randn(2, 9, side, side, generator=generator).to(plan.device)
    timesteps = torch.tensor([37, 801], device=plan.device)
    context = torch.randn(4, 1, SIZES[plan.size]["context"], generator=generator).to(plan.device)

    def predict_stock(dtype: torch.dtype) -> Tensor:
        twice = latents.to(dtype).repeat(2, 1, 1, 1)
        return torch.as_tensor(stock(twice, timesteps.repeat(2), context.to(dtype)).sample).float()

    with exact_fp32():
        wanted = predict_stock(torch.float32)
        for name, rows in (("UNet", 2), ("guided UNet", 4)):
            difference = largest_difference(ours(latents, timesteps, context[:rows]), wanted[:rows])
            report.check(f"{name} fp32 against diffusers", difference, UNET_LIMIT)
    ours.to(torch.bfloat16, memory_format=torch.channels_last)
    stock.to(torch.bfloat16)
    error = rms_difference(ours(latents, timesteps, context).float(), wanted)
    stock_error = rms_difference(predict_stock(torch.bfloat16), wanted)
    detail = f"(relative to diffusers', whose bf16 differs by {stock_error:.1e} from fp32; ours by {error:.1e})"
    report.check("UNet bf16 against fp32", error / stock_error, BF16_RATIO, detail)


def check_latents(project: Project, report: Report) -> None:
    """Compare latents and tokens of the bf16 encoders with fp32's, unrounded, beside what fp16 storage loses."""
    drawer = project.drawer(2)
    samples = [drawer.draw(box, 0) for box in project.boxes[:4]]
    with exact_fp32():
        found = measure_rounding(project.folder / "backbone", samples, project.plan.device)
    for name, row in found.items():
        detail = f"(root mean square, relative; fp16 storage loses {row['fp16_storage_rms']:.1e})"
        report.check(f"{name} bf16 against fp32", row["bf16_rms"], LATENT_LIMIT, detail)


def check_losses(project: Project, report: Report) -> None:
    """Compare the losses of the trainer as it runs with those of the same trainer in fp32, eager, not captured."""
    plan = project.plan
    report.heading("losses", "of the trainer as it runs, against fp32")
    if not report.fits("checks", "losses", 145 if plan.on_gpu else 0):
        return
    changes = {"lr": 1e-4, "warmup_steps": 10}
    eager = {"precision": "fp32", "compile": False, "gradient_checkpointing": True}
    fast = {} if plan.on_gpu else {"precision": "bf16"}
    kept = torch.get_float32_matmul_precision()
    losses = {}
    for name, chosen in (("fp32", eager), ("bf16", fast)):
        trainer = project.trainer(project.train(plan.check_batch, **changes, **chosen))
        losses[name] = torch.tensor([trainer.run_step().loss for _ in range(plan.check_steps)])
        del trainer
        gc.collect()
    torch.set_float32_matmul_precision(kept)
    relative = (losses["bf16"] - losses["fp32"]).abs() / losses["fp32"]
    first, last = losses["fp32"][0], losses["fp32"][-1]
    detail = f"(mean relative; largest {relative.max():.1e}; fp32 from {first:.4f} to {last:.4f})"
    report.check(f"losses of {plan.check_steps} steps, bf16 against fp32", float(relative.mean()), LOSS_LIMIT, detail)


def largest_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def rms_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt() / b.square().mean().sqrt())

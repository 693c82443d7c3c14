"""The recipe of the bundled tiny backbone: a VAE, a CLIP image and text tower, a text-to-image prior, a judge.

    python -m pbe.training.tiny --out data/tiny          # all four, in order; each is also a part of its own

Everything is trained on the demo world only, seeded, in fp32, and saved in diffusers' layout as fp16. `recipe.json`
beside the weights records the settings, the versions and the measured quality. The judge reads shape, colours and
pattern off a crop; it shares neither weights, data order nor architecture with the tower that conditions the painter.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from pbe.data import world
from pbe.method.exemplars import augment_exemplar, crop_exemplar
from pbe.method.windows import cut_window, square_window
from pbe.settings import ExemplarAugmentation
from pbe.training.judge import CLASSES, Judge

CONTEXT_DIM = 128
MAX_TOKENS = 12
IMAGE_PX = 64
EXEMPLAR_PX = 32
NUM_UNSEEN = 800  # scenes that quality is measured on
UNCHANGED = ExemplarAugmentation(flip_probability=0, rotate_probability=0, blur_probability=0, elastic_probability=0)


@dataclass(frozen=True)
class Recipe:
    """Every number that decides the weights."""

    seed: int = 20
    num_scenes: int = 12000
    vae_steps: int = 2550
    vae_horizon: int = 3800  # of its cosine, which it leaves at `vae_cooldown_from` to go to zero in a straight line
    vae_cooldown_from: int = 2050
    vae_batch: int = 16
    vae_lr: float = 1.5e-3
    clip_steps: int = 1500
    clip_batch: int = 128
    clip_lr: float = 1e-3
    judge_steps: int = 1200
    judge_batch: int = 96
    judge_lr: float = 2e-3
    prior_steps: int = 6000
    prior_batch: int = 16
    prior_lr: float = 1e-3
    prior_drop: float = 0.1


# --- data -----------------------------------------------------------------------------------------------------------


def draw_scenes(num_scenes: int, seed: int, max_objects: int) -> list[world.Scene]:
    """Draw scenes from a seed of their own; none of them is part of the demo bucket."""
    rng = np.random.default_rng([seed, max_objects, 77])
    return [world.draw_scene(rng, max_objects, rare_kinds=False) for _ in tqdm(range(num_scenes), "scenes")]


def square_crop(scene: world.Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random 64 x 64 window of a scene."""
    height, width = scene.image.shape[:2]
    top, left = rng.integers(0, height - IMAGE_PX + 1), rng.integers(0, width - IMAGE_PX + 1)
    return scene.image[top : top + IMAGE_PX, left : left + IMAGE_PX]


def to_tensor(images: list[NDArray[np.uint8]]) -> Tensor:
    """NHWC uint8 => NCHW float32 in -1..1."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def clear_objects(scenes: list[world.Scene]) -> list[tuple[world.Scene, world.SceneObject]]:
    """The objects that a caption describes fully: whole, not covered, at least 10 px on each side."""
    return [
        (s, o)
        for s in scenes
        for o in s.objects
        if not (o.is_truncated or o.is_occluded) and min(o.box.width, o.box.height) >= 10
    ]


def draw_crops(
    pairs: list[tuple[world.Scene, world.SceneObject]],
    size: int,
    rng: np.random.Generator,
    augment: ExemplarAugmentation,
) -> tuple[Tensor, list[world.Attributes]]:
    """A batch of augmented object crops, (B, 3, 32, 32) in -1..1, and what they show."""
    crops, attributes = [], []
    for index in rng.integers(len(pairs), size=size):
        scene, o = pairs[index]
        crop = crop_exemplar(scene.image, tuple(o.box), float(rng.uniform(0.0, 0.12)), EXEMPLAR_PX)
        crops.append(augment_exemplar(crop, augment, rng))
        attributes.append(o.attributes)
    return to_tensor(crops), attributes


# --- optimisation ---------------------------------------------------------------------------------------------------


def cosine(step: int, horizon: int) -> float:
    """A short warm-up, then half a cosine to zero at `horizon`; 0..1."""
    return float(min(1.0, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * min(1.0, step / horizon))))


def vae_rate(step: int, recipe: Recipe) -> float:
    """The cosine, left early for a straight line to zero; 0..1."""
    start = recipe.vae_cooldown_from
    if step < start:
        return cosine(step, recipe.vae_horizon)
    return cosine(start, recipe.vae_horizon) * (recipe.vae_steps - step) / (recipe.vae_steps - start)


def optimise(
    parameters: list[nn.Parameter],
    loss_of: Callable[[int], Tensor],
    steps: int,
    lr: float,
    name: str,
    rate: Callable[[int], float] | None = None,
) -> Iterator[float]:
    """AdamW at `lr` times `rate` of the step, a cosine to zero by default; yields the loss of each step."""
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate or (lambda step: cosine(step, steps)))
    with tqdm(total=steps, desc=name, mininterval=5) as bar:
        for step in range(steps):
            loss = loss_of(step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            yield loss.item()


# --- VAE ------------------------------------------------------------------------------------------------------------


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=IMAGE_PX,
        mid_block_add_attention=False,
    )


def train_vae(recipe: Recipe, out: Path) -> dict[str, float]:
    """Train the autoencoder; returns its PSNR in dB on unseen scenes."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng([recipe.seed, 1])
    scenes = draw_scenes(recipe.num_scenes, recipe.seed, max_objects=4)
    vae = build_vae()

    def loss_of(step: int) -> Tensor:
        batch = [square_crop(scenes[i], rng) for i in rng.integers(len(scenes), size=recipe.vae_batch)]
        x = to_tensor([np.ascontiguousarray(b[:, ::-1]) if rng.random() < 0.5 else b for b in batch])
        posterior = vae.encode(x).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        reconstruction = F.mse_loss(decoded, x) + 0.1 * F.l1_loss(decoded, x)
        return torch.as_tensor(reconstruction + 1e-6 * posterior.kl().mean())

    def rate(step: int) -> float:
        return vae_rate(step, recipe)

    for _ in optimise(list(vae.parameters()), loss_of, recipe.vae_steps, recipe.vae_lr, "vae", rate):
        pass
    vae.eval()
    quality = measure_vae(
        vae, draw_scenes(NUM_UNSEEN, recipe.seed + 1, max_objects=4), np.random.default_rng(recipe.seed)
    )
    vae.register_to_config(scaling_factor=1.0 / quality["latent_std"])
    vae.half().save_pretrained(out / "vae")
    return quality


@torch.no_grad()
def measure_vae(vae: AutoencoderKL, scenes: list[world.Scene], rng: np.random.Generator) -> dict[str, float]:
    """PSNR in dB (mean over images, of 8-bit results) and the latents' standard deviation."""
    psnrs, latents = [], []
    for start in range(0, len(scenes), 32):
        crops = [square_crop(s, rng) for s in scenes[start : start + 32]]
        z = vae.encode(to_tensor(crops)).latent_dist.mode()
        decoded = vae.decode(z).sample.clamp(-1, 1).add(1).mul(127.5).round().permute(0, 2, 3, 1).numpy()
        mse = np.square(decoded - np.stack(crops).astype(np.float32)).mean(axis=(1, 2, 3))
        psnrs.append(10 * np.log10(255**2 / mse))
        latents.append(z)
    return {"psnr_db": float(np.concatenate(psnrs).mean()), "latent_std": float(torch.cat(latents).std())}


# --- CLIP -----------------------------------------------------------------------------------------------------------


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer whose byte-pair merges spell the words of the world's captions."""
    words = sorted({"a", "with", "and", *world.SHAPES, *world.PATTERNS, *world.COLOURS})
    alphabet = sorted({c for w in words for c in w})
    symbols = [*alphabet, *(f"{c}</w>" for c in alphabet)]
    merges: list[tuple[str, str]] = []
    for word in words:
        left = word[0] if len(word) > 1 else f"{word}</w>"
        for i, c in enumerate(word[1:], 1):
            right = f"{c}</w>" if i == len(word) - 1 else c
            if (left, right) not in merges:
                merges.append((left, right))
                symbols.append(left + right)
            left += right
    vocab = {s: i for i, s in enumerate(dict.fromkeys(symbols))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=cast(list[str], merges), model_max_length=MAX_TOKENS)


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Two small towers that meet without projections: the class token itself lies in the text tokens' space."""
    eos = tokenizer.eos_token_id
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        hidden_size=CONTEXT_DIM,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=CONTEXT_DIM,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    vision = CLIPVisionConfig(
        image_size=EXEMPLAR_PX,
        patch_size=8,
        hidden_size=CONTEXT_DIM,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        projection_dim=CONTEXT_DIM,
    )
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=CONTEXT_DIM)
    )
    for projection in (model.visual_projection, model.text_projection):
        nn.init.eye_(projection.weight).requires_grad_(False)
    return model


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> dict[str, Tensor]:
    encoded = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def train_clip(recipe: Recipe, out: Path) -> dict[str, float]:
    """Train both towers by contrast, and pull matching pairs together; returns retrieval on unseen crops."""
    torch.manual_seed(recipe.seed + 2)
    rng = np.random.default_rng([recipe.seed, 2])
    pairs = clear_objects(draw_scenes(recipe.num_scenes, recipe.seed + 2, max_objects=3))
    tokenizer = build_tokenizer()
    model = build_clip(tokenizer)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def loss_of(step: int) -> Tensor:
        images, attributes = draw_crops(pairs, recipe.clip_batch, rng, ExemplarAugmentation())
        captions = [a.caption for a in attributes]
        image, text = _embed(model, images, tokenize(tokenizer, captions))
        same = torch.tensor([[a == b for b in captions] for a in captions]).float()
        target = same / same.sum(1, keepdim=True)
        logits = model.logit_scale.exp().clamp(max=50) * image @ text.T
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return contrast + 0.5 * (1 - (image * text).sum(1)).mean()

    losses = list(optimise(parameters, loss_of, recipe.clip_steps, recipe.clip_lr, "clip"))
    model.eval()
    unseen = clear_objects(draw_scenes(NUM_UNSEEN, recipe.seed + 3, max_objects=3))
    images, attributes = draw_crops(unseen, 512, np.random.default_rng(3), ExemplarAugmentation())
    captions = [a.caption for a in attributes]
    with torch.no_grad():
        image, text = _embed(model, images, tokenize(tokenizer, captions))
    best = (image @ text.T).argmax(1)
    recall = float(np.mean([captions[int(j)] == captions[i] for i, j in enumerate(best)]))
    save_clip(model, tokenizer, out)
    return {
        "loss": float(np.mean(losses[-50:])),
        "recall_at_1_of_512": recall,
        "cosine": float((image * text).sum(1).mean()),
    }


def save_clip(model: CLIPModel, tokenizer: CLIPTokenizer, out: Path) -> None:
    """Save the towers in diffusers' layout: `text_encoder` and `tokenizer`, and `image_encoder` beside them."""
    image_tower = CLIPVisionModelWithProjection(cast(CLIPVisionConfig, model.config.vision_config))
    image_tower.vision_model.load_state_dict(model.vision_model.state_dict())
    image_tower.visual_projection.load_state_dict(model.visual_projection.state_dict())
    text_tower = CLIPTextModel(cast(CLIPTextConfig, model.config.text_config))
    text_tower.load_state_dict(model.text_model.state_dict())
    image_tower.half().save_pretrained(out / "image_encoder")
    text_tower.half().save_pretrained(out / "text_encoder")
    tokenizer.save_pretrained(out / "tokenizer")


def _embed(model: CLIPModel, images: Tensor, tokens: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    image = model.vision_model(pixel_values=images).pooler_output
    text = model.text_model(**tokens).pooler_output
    return F.normalize(image, dim=-1), F.normalize(text, dim=-1)


# --- judge ----------------------------------------------------------------------------------------------------------


def train_judge(recipe: Recipe, out: Path) -> dict[str, float]:
    """Train the judge on lightly changed crops; returns its accuracies on unseen crops."""
    torch.manual_seed(recipe.seed + 4)
    rng = np.random.default_rng([recipe.seed, 4])
    pairs = clear_objects(draw_scenes(recipe.num_scenes, recipe.seed + 4, max_objects=3))
    judge = Judge()
    gentle = ExemplarAugmentation(max_rotation_deg=8.0, elastic_probability=0.0, blur_probability=0.4)

    def loss_of(step: int) -> Tensor:
        images, attributes = draw_crops(pairs, recipe.judge_batch, rng, gentle)
        logits = judge(images)
        return sum(
            (F.cross_entropy(logits[k], t, label_smoothing=0.02) for k, t in _targets(attributes).items()),
            torch.zeros(()),
        )

    for _ in optimise(list(judge.parameters()), loss_of, recipe.judge_steps, recipe.judge_lr, "judge"):
        pass
    judge.eval()
    unseen = clear_objects(draw_scenes(NUM_UNSEEN, recipe.seed + 5, max_objects=3))
    images, attributes = draw_crops(unseen, 2000, np.random.default_rng(5), UNCHANGED)
    with torch.no_grad():
        logits = judge(images)
    judge.save_pretrained(out / "judge")
    return {k: float((logits[k].argmax(1) == t).float().mean()) for k, t in _targets(attributes).items()}


def _targets(attributes: list[world.Attributes]) -> dict[str, Tensor]:
    return {k: torch.tensor([words.index(getattr(a, k)) for a in attributes]) for k, words in CLASSES.items()}


# --- prior ----------------------------------------------------------------------------------------------------------


def build_prior() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=IMAGE_PX // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=CONTEXT_DIM,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def train_prior(recipe: Recipe, out: Path) -> dict[str, float]:
    """Train the text-to-image prior on single objects; half the captions are given by their last token alone.

    A caption's end token sums it up, as CLIP's class token sums up an image: a prior that has drawn from it alone is
    ready for the paper's one-token condition.
    """
    torch.manual_seed(recipe.seed + 6)
    rng = np.random.default_rng([recipe.seed, 6])
    scenes = [
        s for s in draw_scenes(recipe.num_scenes, recipe.seed + 6, max_objects=1) if not s.objects[0].is_truncated
    ]
    latents, inside = encode_scenes(scenes, out / "vae", rng)
    contexts, empty = encode_captions([scenes[i].caption for i in inside], out)
    unet, schedule = build_prior(), DDPMScheduler(**SCHEDULE)
    ema = EMAModel(unet.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)

    def loss_of(step: int) -> Tensor:
        index = torch.from_numpy(rng.integers(len(latents), size=recipe.prior_batch))
        context = torch.where(
            torch.from_numpy(rng.random(len(index)) < recipe.prior_drop)[:, None, None], empty, contexts[index]
        )
        if step % 2:
            context = context[:, -1:]
        return denoising_loss(unet, schedule, latents[index], context)

    losses = []
    PNDMScheduler(**SCHEDULE, skip_prk_steps=True, steps_offset=1).save_pretrained(out / "scheduler")
    for loss in optimise(list(unet.parameters()), loss_of, recipe.prior_steps, recipe.prior_lr, "prior"):
        losses.append(loss)
        ema.step(unet.parameters())
        if len(losses) % 500 == 0 or len(losses) == recipe.prior_steps:
            averaged = build_prior()
            ema.copy_to(averaged.parameters())
            averaged.half().save_pretrained(out / "unet")
    return {"loss": float(np.mean(losses[-500:]))}


SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def denoising_loss(unet: UNet2DConditionModel, schedule: DDPMScheduler, latents: Tensor, context: Tensor) -> Tensor:
    noise = torch.randn_like(latents)
    timesteps = torch.randint(0, 1000, (len(latents),))
    predicted = unet(schedule.add_noise(latents, noise, timesteps), timesteps, context).sample
    return F.mse_loss(predicted, noise)


@torch.no_grad()
def encode_scenes(scenes: list[world.Scene], vae_folder: Path, rng: np.random.Generator) -> tuple[Tensor, list[int]]:
    """Scaled latents of two windows of each scene that hold the whole object, and the scene of each."""
    vae = AutoencoderKL.from_pretrained(vae_folder, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    crops, inside = [], []
    for i, scene in enumerate(scenes):
        for _ in range(2):
            window = square_window(scene.image.shape[0], scene.image.shape[1], scene.objects[0].box, rng)
            crops.append(cut_window(scene.image, window, IMAGE_PX))
            inside.append(i)
    chunks = [
        vae.encode(to_tensor(crops[i : i + 64])).latent_dist.mode() for i in tqdm(range(0, len(crops), 64), "latents")
    ]
    return torch.cat(chunks) * vae.config.scaling_factor, inside


@torch.no_grad()
def encode_captions(captions: list[str], folder: Path) -> tuple[Tensor, Tensor]:
    """Token states of the captions, (N, 12, 128), and of the empty caption; the end token's state is also put last."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tower = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)

    def encode(texts: list[str]) -> Tensor:
        states = tower(**tokenize(tokenizer, texts))
        return torch.cat([states.last_hidden_state[:, :-1], states.pooler_output[:, None]], 1)

    unique = sorted(set(captions))
    table = dict(zip(unique, torch.cat([encode(unique[i : i + 256]) for i in range(0, len(unique), 256)]), strict=True))
    return torch.stack([table[c] for c in captions]), encode([""])


# --- command --------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Recipe, Path], dict[str, float]]] = {
    "vae": train_vae,
    "clip": train_clip,
    "judge": train_judge,
    "prior": train_prior,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--threads", type=int, default=1, help="part of the recipe: other counts give other bits")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    record_path = arguments.out / "recipe.json"
    record = json.loads(record_path.read_text()) if record_path.exists() else {"quality": {}}
    recipe = Recipe()
    for part in arguments.parts:
        record["quality"][part] = PARTS[part](recipe, arguments.out)
        record |= {"recipe": asdict(recipe), "torch": torch.__version__}
        record_path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Two small CLIP towers, for 64 px crops of objects and for their classes' names.

The image tower learns three things. Two crops of one object, of two frames of a clip where there are clips, have
features nearer than those of other objects (Khosla et al., "Supervised Contrastive Learning", 2020); other clips of
the same class do not count as others, because they often show the same object. The features agree with the class's
name (CLIP). And a small network can draw a 16 px thumbnail of the crop from the class token, so that the token holds
the colours and the pose that the painter needs.
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from pbe.demo.photo_weights.captions import MAX_TOKENS, draw_caption, photo_tokenizer
from pbe.demo.photo_weights.photos import Photo, PhotoSet
from pbe.demo.photo_weights.recipe import CONTEXT_DIM, EXEMPLAR_PX, PhotoRecipe
from pbe.demo.weights.clip import save_clip
from pbe.demo.weights.crops import to_tensor
from pbe.demo.weights.recipe import AUGMENTATION
from pbe.demo.weights.resumable import Progress, optimize
from pbe.method.exemplars import augment_exemplar, crop_exemplar, resize_fast
from pbe.types import Image

THUMBNAIL_PX = 16


def build_towers(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return two small towers without projections: the class token lies in the space of the text tokens."""
    width: dict[str, Any] = {"hidden_size": CONTEXT_DIM, "intermediate_size": 4 * CONTEXT_DIM, "num_attention_heads": 4}
    eos = tokenizer.eos_token_id
    text = CLIPTextConfig(
        **width, vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, num_hidden_layers=2,
        projection_dim=CONTEXT_DIM, bos_token_id=tokenizer.bos_token_id, eos_token_id=eos, pad_token_id=eos,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        **width, image_size=EXEMPLAR_PX, patch_size=8, num_hidden_layers=4, projection_dim=CONTEXT_DIM
    )
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=CONTEXT_DIM)
    )
    for projection in (model.visual_projection, model.text_projection):
        nn.init.eye_(projection.weight).requires_grad_(False)
    return model


def draw_exemplar(image: Image, photo: Photo, rng: np.random.Generator) -> Image:
    """Draw an augmented crop of the box, (64, 64, 3), a third of them of low resolution."""
    crop = crop_exemplar(image, photo.box, float(rng.uniform(0.0, 0.15)), EXEMPLAR_PX, fast=True)
    crop = augment_exemplar(crop, AUGMENTATION, rng)
    if rng.random() < 1 / 3:
        side = int(rng.integers(16, EXEMPLAR_PX))
        crop = resize_fast(resize_fast(crop, side, side), EXEMPLAR_PX, EXEMPLAR_PX)
    return crop


def train_towers(recipe: PhotoRecipe, photos: PhotoSet, out: Path, key: str, device: torch.device) -> dict[str, float]:
    """Train and save both towers and the tokenizer; return their quality on the photographs held back."""
    torch.manual_seed(recipe.seed + 2)
    rng = np.random.default_rng([recipe.seed, 3])
    train = photos.of("train")
    tokenizer = photo_tokenizer(sorted({photo.label for photo in photos.photos}))
    model = build_towers(tokenizer)
    model.to(device)  # type: ignore[arg-type]
    draw_thumbnail = nn.Sequential(
        nn.Linear(CONTEXT_DIM, 512), nn.GELU(), nn.Linear(512, 3 * THUMBNAIL_PX**2)
    ).to(device)  # fmt: skip
    frames: dict[str, list[Photo]] = {}
    for photo in train:
        frames.setdefault(photo.clip, []).append(photo)
    clips = sorted(frames)
    weights = np.array([len(frames[clip]) ** 0.5 for clip in clips])
    weights /= weights.sum()

    def loss_of(step: int) -> Tensor:
        drawn = [clips[i] for i in rng.choice(len(clips), recipe.towers_batch, p=weights)]
        pairs = [[frames[clip][i] for i in rng.integers(len(frames[clip]), size=2)] for clip in drawn]
        views = [photo for k in range(2) for photo in (pair[k] for pair in pairs)]
        x = to_tensor([draw_exemplar(photos.read(photo.file), photo, rng) for photo in views]).to(device)
        captions = [draw_caption(photo.label, rng) for photo in views]
        with torch.autocast(device.type, torch.bfloat16):
            tokens = model.vision_model(pixel_values=x).pooler_output.float()
            words = model.text_model(**_tokenize(tokenizer, captions, device)).pooler_output.float()
            thumbnails = draw_thumbnail(tokens).float()
        image, text = F.normalize(tokens, dim=-1), F.normalize(words, dim=-1)
        same_clip = _equal([photo.clip for photo in views], device)
        same_label = _equal([photo.label for photo in views], device)
        target = F.interpolate(x, size=THUMBNAIL_PX, mode="area")
        return (
            contrast(image, image, same_clip & ~torch.eye(len(views), dtype=torch.bool, device=device), same_label)
            + recipe.towers_text * contrast(image, text, same_label, same_label)
            + recipe.towers_thumbnail * F.mse_loss(thumbnails.view_as(target), target)
        )

    members = {"model": model, "thumbnail": draw_thumbnail}
    progress = Progress(out / "state" / "towers.pt", key, members, rng)
    parameters = [p for p in [*model.parameters(), *draw_thumbnail.parameters()] if p.requires_grad]
    losses = optimize(parameters, loss_of, recipe.towers_steps, recipe.towers_lr, "towers", progress)
    model.eval()
    quality = measure_towers(model, tokenizer, photos, recipe, device)
    save_clip(model.cpu(), tokenizer, out)
    return {"loss": float(np.mean(losses[-50:])), **quality}


@torch.no_grad()
def measure_towers(
    model: CLIPModel, tokenizer: CLIPTokenizer, photos: PhotoSet, recipe: PhotoRecipe, device: torch.device
) -> dict[str, float]:
    """Return how often, on held-back photographs, the nearest crop is of the same clip, and the nearest name right."""
    rng = np.random.default_rng([recipe.seed, 4])
    held = [photo for photo in photos.of("val") if photo.file.startswith("fod-a/")]
    views = to_tensor([draw_exemplar(photos.read(photo.file), photo, rng) for photo in held]).to(device)
    image = F.normalize(model.vision_model(pixel_values=views).pooler_output, dim=-1)
    labels = sorted({photo.label for photo in held})
    names = [f"a {label.lower()}" for label in labels]
    text = F.normalize(model.text_model(**_tokenize(tokenizer, names, device)).pooler_output, dim=-1)
    similarity = image @ image.T - 2 * torch.eye(len(held), device=device)
    same = [held[i].clip == held[int(j)].clip for i, j in enumerate(similarity.argmax(1))]
    named = [held[i].label == labels[int(j)] for i, j in enumerate((image @ text.T).argmax(1))]
    return {"same_clip_recall_at_1": float(np.mean(same)), "name_accuracy": float(np.mean(named))}


def contrast(queries: Tensor, keys: Tensor, positives: Tensor, ignored: Tensor) -> Tensor:
    """Return the supervised contrastive loss at temperature 0.1; ignored pairs that are no positives do not count."""
    logits = (queries @ keys.T / 0.1).masked_fill(ignored & ~positives, -1e4)
    shares = positives.float() / positives.sum(1, keepdim=True).clamp(min=1)
    return -(shares * F.log_softmax(logits, dim=1)).sum(1).mean()


def _equal(names: list[str], device: torch.device) -> Tensor:
    _, codes = np.unique(names, return_inverse=True)
    return torch.from_numpy(codes[:, None] == codes[None]).to(device)


def _tokenize(tokenizer: CLIPTokenizer, captions: list[str], device: torch.device) -> dict[str, Tensor]:
    encoded = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return {name: cast(Tensor, encoded[name]).to(device) for name in ("input_ids", "attention_mask")}

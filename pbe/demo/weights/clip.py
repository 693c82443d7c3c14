"""Two small CLIP towers, for 32 px crops of objects and for their captions, and their tokenizer."""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from pbe.demo import scenes
from pbe.demo.weights.crops import clear_objects, draw_crops, draw_scenes
from pbe.demo.weights.recipe import AUGMENTATION, CONTEXT_DIM, EXEMPLAR_PX, NUM_UNSEEN, Recipe, recipe_key
from pbe.demo.weights.resumable import Progress, optimize
from pbe.demo.weights.tokenizer import word_tokenizer

MAX_TOKENS = 8


def build_tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer whose byte pairs make every word of the captions one token."""
    return word_tokenizer({"a", "with", *scenes.SHAPES, *scenes.PATTERNS, *scenes.COLOURS}, MAX_TOKENS)


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return two small towers without projections: the class token lies in the space of the text tokens."""
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


def train_clip(recipe: Recipe, out: Path, state: Path) -> dict[str, float]:
    """Train both towers with a contrastive loss and the cosine of pairs; return their retrieval of unseen crops."""
    torch.manual_seed(recipe.seed + 2)
    rng = np.random.default_rng([recipe.seed, 2])
    pairs = clear_objects(draw_scenes(recipe.num_scenes, recipe.seed + 2, max_objects=3))
    tokenizer = build_tokenizer()
    model = build_clip(tokenizer)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def loss_of(step: int) -> Tensor:
        images, attributes = draw_crops(pairs, recipe.clip_batch, rng, AUGMENTATION)
        captions = [a.caption for a in attributes]
        image, text = _embed(model, images, tokenize(tokenizer, captions))
        same = torch.tensor([[a == b for b in captions] for a in captions]).float()
        target = same / same.sum(1, keepdim=True)
        logits = model.logit_scale.exp().clamp(max=50) * image @ text.T
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return contrast + 0.5 * (1 - (image * text).sum(1)).mean()

    progress = Progress(state / "clip.pt", recipe_key(recipe, "clip"), {"clip": model}, rng)
    losses = optimize(parameters, loss_of, recipe.clip_steps, recipe.clip_lr, "clip", progress)
    model.eval()
    unseen = clear_objects(draw_scenes(NUM_UNSEEN, recipe.seed + 3, max_objects=3))
    images, attributes = draw_crops(unseen, 512, np.random.default_rng(3), AUGMENTATION)
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
    """Save the towers in diffusers' layout, as `text_encoder`, `tokenizer` and `image_encoder`."""
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

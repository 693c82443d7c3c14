"""The second part of the image tower's training: against all captions of the demo world at once.

In a batch of 128 objects hardly two differ in the pattern alone, so that the contrastive loss leaves a checked and a
dotted circle beside each other. Here each object chooses among every caption that there is. The text tower stays, and
with it the prior, which is conditioned on its end tokens.
"""

from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from pbe.demo import scenes
from pbe.demo.scenes import Attributes
from pbe.demo.weights.clip import tokenize
from pbe.demo.weights.crops import clear_objects, draw_crops, draw_scenes
from pbe.demo.weights.recipe import AUGMENTATION, NUM_UNSEEN, Recipe, recipe_key
from pbe.demo.weights.resumable import Progress, optimize

LOGIT_SCALE = 50.0  # the largest that the contrastive loss allows


def refine_tower(recipe: Recipe, out: Path, state: Path) -> dict[str, float]:
    """Train the image tower in `out` on, and return which share of unseen crops chooses its caption among all.

    Needs what the part clip has written; a tower that was refined before is refined again.
    """
    torch.manual_seed(recipe.seed + 4)
    rng = np.random.default_rng([recipe.seed, 4])
    pairs = clear_objects(draw_scenes(recipe.num_scenes, recipe.seed + 2, max_objects=3))
    everything = all_attributes()
    number = {attributes: i for i, attributes in enumerate(everything)}
    texts = encode_texts(out, [attributes.caption for attributes in everything])
    tower = CLIPVisionModelWithProjection.from_pretrained(out / "image_encoder").float().train()
    parameters = [p for p in tower.vision_model.parameters() if p.requires_grad]

    def choose(images: Tensor) -> Tensor:
        return F.normalize(tower.vision_model(pixel_values=images).pooler_output, dim=-1) @ texts.T

    def loss_of(step: int) -> Tensor:
        images, attributes = draw_crops(pairs, recipe.tower_batch, rng, AUGMENTATION)
        target = torch.tensor([number[each] for each in attributes])
        cosines = choose(images)
        own = cosines.gather(1, target[:, None])
        return F.cross_entropy(LOGIT_SCALE * cosines, target) + 0.5 * (1 - own).mean()

    key = recipe_key(recipe, "tower", out / "image_encoder", out / "text_encoder", out / "tokenizer")
    progress = Progress(state / "tower.pt", key, {"tower": tower}, rng)
    losses = optimize(parameters, loss_of, recipe.tower_steps, recipe.tower_lr, "tower", progress)
    tower.eval()
    unseen = clear_objects(draw_scenes(NUM_UNSEEN, recipe.seed + 3, max_objects=3))
    images, attributes = draw_crops(unseen, 512, np.random.default_rng(3), AUGMENTATION)
    with torch.no_grad():
        chosen = [everything[int(i)] for i in choose(images).argmax(1)]
    tower.half().save_pretrained(out / "image_encoder")
    pairs_chosen = list(zip(chosen, attributes, strict=True))
    return {
        "loss": float(np.mean(losses[-50:])),
        "caption": float(np.mean([one == other for one, other in pairs_chosen])),
        "pattern": float(np.mean([one.pattern == other.pattern for one, other in pairs_chosen])),
        "second_colour": float(np.mean([one.second_colour == other.second_colour for one, other in pairs_chosen])),
    }


def all_attributes() -> list[Attributes]:
    """Return the attributes of every object that the demo world can draw."""
    return [
        Attributes(shape, colour, pattern, second)
        for shape, colour, pattern, second in product(scenes.SHAPES, scenes.COLOURS, scenes.PATTERNS, scenes.COLOURS)
        if (colour == second) == (pattern == "plain")
    ]


@torch.no_grad()
def encode_texts(out: Path, captions: list[str]) -> Tensor:
    """Return the end tokens of captions, (N, D) of unit norm."""
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    tower = CLIPTextModel.from_pretrained(out / "text_encoder").float().eval()
    return F.normalize(torch.as_tensor(tower(**tokenize(tokenizer, captions)).pooler_output), dim=-1)

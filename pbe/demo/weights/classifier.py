"""The judge that reads shape, colours and pattern off a crop.

It shares neither weights, data order nor architecture with the tower that conditions the painter.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pbe.demo import scenes
from pbe.demo.attribute_classifier import CLASSES, Judge
from pbe.demo.weights.crops import clear_objects, draw_crops, draw_scenes
from pbe.demo.weights.recipe import AUGMENTATION, NUM_UNSEEN, Recipe, optimise

UNCHANGED = AUGMENTATION.replace(flip_probability=0, rotate_probability=0, blur_probability=0, elastic_probability=0)


def train_judge(recipe: Recipe, out: Path) -> dict[str, float]:
    """Train the judge on lightly changed crops; returns its accuracies on unseen crops."""
    torch.manual_seed(recipe.seed + 4)
    rng = np.random.default_rng([recipe.seed, 4])
    pairs = clear_objects(draw_scenes(recipe.num_scenes, recipe.seed + 4, max_objects=3))
    judge = Judge()
    gentle = AUGMENTATION.replace(max_rotation_deg=8.0, elastic_probability=0.0, blur_probability=0.4)

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


def _targets(attributes: list[scenes.Attributes]) -> dict[str, Tensor]:
    return {k: torch.tensor([words.index(getattr(a, k)) for a in attributes]) for k, words in CLASSES.items()}

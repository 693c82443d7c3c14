"""The attribute classifier, which reads shape, colours and pattern from a crop.

Its weights, data and architecture are independent of the tower that conditions the painter.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pbe.demo.attribute_classifier import FOLDER, WORDS, AttributeClassifier
from pbe.demo.scenes import Attributes
from pbe.demo.weights.crops import clear_objects, draw_crops, draw_scenes
from pbe.demo.weights.recipe import AUGMENTATION, NUM_UNSEEN, Recipe, recipe_key
from pbe.demo.weights.resumable import Progress, optimize

UNCHANGED = AUGMENTATION.replace(flip_probability=0, rotate_probability=0, blur_probability=0, elastic_probability=0)


def train_classifier(recipe: Recipe, out: Path, state: Path) -> dict[str, float]:
    """Train the classifier on lightly augmented crops, save it, and return its accuracies, 0..1, on unseen crops."""
    torch.manual_seed(recipe.seed + 4)
    rng = np.random.default_rng([recipe.seed, 4])
    pairs = clear_objects(draw_scenes(recipe.num_scenes, recipe.seed + 4, max_objects=3))
    classifier = AttributeClassifier()
    gentle = AUGMENTATION.replace(max_rotation_deg=8.0, elastic_probability=0.0, blur_probability=0.4)

    def loss_of(step: int) -> Tensor:
        images, attributes = draw_crops(pairs, recipe.classifier_batch, rng, gentle)
        logits = classifier(images)
        return sum(
            (F.cross_entropy(logits[k], t, label_smoothing=0.02) for k, t in _targets(attributes).items()),
            torch.zeros(()),
        )

    key = recipe_key(recipe, "classifier")
    progress = Progress(state / "classifier.pt", key, {"classifier": classifier}, rng)
    parameters = list(classifier.parameters())
    optimize(parameters, loss_of, recipe.classifier_steps, recipe.classifier_lr, "classifier", progress)
    classifier.eval()
    unseen = clear_objects(draw_scenes(NUM_UNSEEN, recipe.seed + 5, max_objects=3))
    images, attributes = draw_crops(unseen, 2000, np.random.default_rng(5), UNCHANGED)
    with torch.no_grad():
        logits = classifier(images)
    classifier.save_pretrained(out / FOLDER)
    return {k: float((logits[k].argmax(1) == t).float().mean()) for k, t in _targets(attributes).items()}


def _targets(attributes: list[Attributes]) -> dict[str, Tensor]:
    return {k: torch.tensor([words.index(getattr(a, k)) for a in attributes]) for k, words in WORDS.items()}

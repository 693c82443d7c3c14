"""Captions of the photographs' classes, and the tokenizer that makes each of their words one token."""

import numpy as np
from transformers import CLIPTokenizer

from pbe.demo.weights.tokenizer import word_tokenizer
from pbe.evaluation.labels import words_of

TEMPLATES = ("{}", "a {}", "a photo of a {}")
MAX_TOKENS = 10


def draw_caption(label: str, rng: np.random.Generator) -> str:
    """Draw one of the ways in which a class is named: as words, or as the label itself."""
    name = words_of(label) if rng.random() < 0.7 else label.lower()
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(name)


def photo_tokenizer(labels: list[str]) -> CLIPTokenizer:
    """Return a CLIP tokenizer whose byte pairs make each word of these labels' captions one token."""
    forms = [form for label in labels for form in (words_of(label), label.lower())]
    words = {word for form in (*forms, *TEMPLATES) for word in form.split() if word != "{}"}
    return word_tokenizer(words, MAX_TOKENS)

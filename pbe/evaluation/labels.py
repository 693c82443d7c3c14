"""Class names as words, which text-conditioned models and captions need: data sets write AdjustableClamp or traffic_light."""

import re

_BETWEEN_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_")


def words_of(label: str) -> str:
    """Return a class name in lower-case words: "adjustable clamp" for AdjustableClamp, "dog" for Dog."""
    return _BETWEEN_WORDS.sub(" ", label).lower()

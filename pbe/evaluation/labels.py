"""Class names as words, for captions and for models conditioned by text: AdjustableClamp, traffic_light."""

import re

_BETWEEN_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_")


def words_of(label: str) -> str:
    """Return a class name in lower-case words: "adjustable clamp" for AdjustableClamp, "dog" for Dog."""
    return _BETWEEN_WORDS.sub(" ", label).lower()

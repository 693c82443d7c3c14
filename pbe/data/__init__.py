"""Data: acquired, filtered, curated and encoded, from OpenImages, from people's own files or from the demo world."""

"""Stage encode: training triplets drawn from images, and the cache of their latents and class tokens."""

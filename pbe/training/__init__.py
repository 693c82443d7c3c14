"""Training: the loop, its distributed run and its checkpoints; and the recipe of the bundled weights."""

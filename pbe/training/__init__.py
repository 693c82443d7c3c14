"""Stage train: the loop, its distributed run with Ray Train, and its checkpoints."""

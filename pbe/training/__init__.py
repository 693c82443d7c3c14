"""The train stage: the loss over cached latents, the training loop, Ray Train's workers, checkpoints and tracking."""

"""Paint by Example, from a bucket of boxed images to a registered model."""

"""The latent cache: samples drawn from curated boxes, the frozen encoders, and the shards that hold their output."""

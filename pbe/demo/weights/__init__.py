"""The recipe of the bundled weights in data/tiny: VAE, CLIP, text-to-image prior and attribute classifier."""

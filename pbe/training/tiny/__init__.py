"""The recipe of the bundled tiny backbone: a VAE, a CLIP image and text tower, a text-to-image prior, and a judge.

    python -m pbe.training.tiny --out data/tiny          # all four, in order; each is also a part of its own

Everything is trained on the demo world only, seeded, in fp32, and saved in diffusers' layout as fp16. `recipe.json`
beside the weights records the settings, the versions and the measured quality.
"""

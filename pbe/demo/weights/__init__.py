"""The recipe of the weights in data/tiny: VAE, CLIP, attribute classifier and text-to-image prior.

The command trains all of them, or those that --parts names, and records their quality in recipe.json. A training that
was stopped resumes, and ends with the same bytes.
"""

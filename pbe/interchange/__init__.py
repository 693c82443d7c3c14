"""Other people's files: the authors' `model.ckpt`, and the published folder in diffusers' layout. In, and out again.

Names of tensors are translated one for one (`names`), checked for completeness, and never guessed: what is missing or
left over is told by name. `ldm` is the single file, `folder` the published folder, `mask_channel` the one difference
that is not a name: the authors' network wants a mask that is 1 where to keep.
"""

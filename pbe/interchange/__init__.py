"""Import and export of other projects' files: the authors' `model.ckpt` and the published folder in diffusers' layout.

Tensor names are translated one for one (`names`) and checked for completeness: a missing or unknown tensor is an error
that names it. `ldm` is the single file, `folder` the published folder, `mask_channel` the one difference that is not a
name: the authors' network takes a mask that is 1 where to keep.
"""

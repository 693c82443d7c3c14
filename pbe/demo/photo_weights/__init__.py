"""The recipe of the weights in data/photo: a backbone for photographs, 128 px.

First `pack` gathers the photographs in one file of 45 MB at most; the other parts read only that file, and need torch,
diffusers and transformers, so that they run on any machine. Each part resumes where it was killed, with the same bits.
"""

"""Image encoders, whose features FID, QS and the CLIP score are computed on.

The paper uses CLIP ViT-B/32. Where it is not available, the painter's own CLIP tower takes its place, and every report
names the encoder: numbers of different encoders are not comparable. By default features are fp32 on every
device: in bf16 a CLIP score moves by up to 0.5 (`benchmarks/precision.py`).
"""

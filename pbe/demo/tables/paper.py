"""The paper's numbers, for comparison: tables 1 and 2 of Yang et al., "Paint by Example", CVPR 2023 (arXiv 2211.13227).

They are of COCOEE at 512 px, with CLIP ViT-B/32. Numbers of the demo world are of other pictures and other encoders:
only directions can be compared.
"""

from collections.abc import Mapping

PaperRow = Mapping[str, float | None]

ABLATION: Mapping[str, PaperRow] = {
    "baseline": {"fid": 3.61, "qs": None, "clip_score": None},
    "prior": {"fid": 3.40, "qs": None, "clip_score": 88.79},
    "augmentation": {"fid": 3.44, "qs": 76.86, "clip_score": 81.68},
    "bottleneck": {"fid": 3.26, "qs": 76.62, "clip_score": 81.41},
    "guidance": {"fid": 3.18, "qs": 77.80, "clip_score": 84.97},
}
CONDITIONS: Mapping[str, PaperRow] = {
    "text": {"fid": 3.66, "qs": 73.20, "clip_score": 75.33},  # Stable Diffusion's inpainting model
    "image": {"fid": 3.18, "qs": 77.80, "clip_score": 84.97},
}

"""`pbe reference` makes the statistics of real images that FID, QS and KID need, once for any number of results."""

import argparse
from pathlib import Path

from pbe import layout
from pbe.errors import UserError
from pbe.serving.commands.evaluate import REAL, add_computing, add_encoder, check_exists, positive
from pbe.serving.commands.output_files import check_folder_of
from pbe.serving.commands.progress import progress_bar

_EXAMPLE = """\
example:
  pbe reference --real coco/test2017 --image-px 512 --encoder clip-vit-base-patch32 --out test2017.safetensors"""


def add_reference(parser: argparse.ArgumentParser) -> None:
    """Give `pbe reference` its arguments."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EXAMPLE
    parser.set_defaults(command=_make_reference)
    add = parser.add_argument
    add("--real", type=Path, default=REAL, metavar="FOLDER", help="real images (default: %(default)s)")
    add(
        "--image-px", type=positive, default=512, metavar="N",
        help="the side of the bench's sources, to which the images are resized (default: 512)",
    )  # fmt: skip
    add_encoder(parser)
    add(
        "--protocol", choices=("corrected", "official"), default="corrected",
        help="whose resizing the encoder sees (default: corrected; with CLIP both are the same)",
    )  # fmt: skip
    add("--mixture", type=Path, metavar="PICKLE", help="the authors' fitted mixture for QS, instead of a new one")
    add("--out", type=Path, required=True, metavar="FILE", help="a .safetensors file")
    add_computing(parser)


def _make_reference(options: argparse.Namespace) -> None:
    """Encode a folder of real images, and write their statistics."""
    if options.out.suffix != ".safetensors":
        raise UserError(f"--out {options.out}: must end in .safetensors")
    check_folder_of(options.out)
    check_exists("--encoder", options.encoder)
    check_exists("--real", options.real)
    from pbe.evaluation.encoders.loading import open_encoder
    from pbe.evaluation.reference.images import reference_images
    from pbe.evaluation.reference.pickled_mixture import read_pickled_mixture
    from pbe.evaluation.reference.statistics import make_reference_statistics, write_reference_statistics
    from pbe.evaluation.scoring.protocols import open_protocols
    from pbe.runtime.devices import choose_device

    mixture = read_pickled_mixture(options.mixture) if options.mixture else None
    images = reference_images(options.real, layout.RAW, options.image_px, options.max_real_images)
    encoder = open_encoder(options.encoder, choose_device(options.device, "--device"))
    features = open_protocols(options.protocol, encoder)[0].features
    with progress_bar("encoding real images") as progress:
        statistics = make_reference_statistics(
            images, features, options.image_px, total=0, seed=options.seed, mixture=mixture, progress=progress
        )
    write_reference_statistics(options.out, statistics)
    print(
        f"{options.out}: {statistics.num_images} images of {options.image_px} px, {encoder.name}, {statistics.digest}"
    )

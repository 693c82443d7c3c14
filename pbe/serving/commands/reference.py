"""`pbe reference` makes the statistics of real images that FID, QS and KID need, once for any number of results."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from pbe import layout
from pbe.errors import UserError
from pbe.serving.commands.evaluate import REAL, ComputingFlags, check_exists
from pbe.serving.commands.flags import Positive
from pbe.serving.commands.output_files import check_folder_of
from pbe.serving.commands.progress import progress_bar

app = App(
    name="reference",
    help_epilogue="""\
example:
  pbe reference --real coco/test2017 --image-px 512 \\
                --encoder clip-vit-base-patch32 --out test2017.safetensors""",
)


@app.default
def make_reference(
    *,
    real: Annotated[Path, Parameter(metavar="FOLDER", help="real images")] = REAL,
    image_px: Annotated[
        Positive, Parameter(help="the side of the bench's sources, to which the images are resized")
    ] = 512,
    protocol: Annotated[
        Literal["corrected", "official"],
        Parameter(help="whose resizing the encoder sees; with CLIP both are the same"),
    ] = "corrected",
    mixture: Annotated[
        Path | None, Parameter(metavar="PICKLE", help="the authors' fitted mixture for QS, instead of a new one")
    ] = None,
    out: Annotated[Path, Parameter(metavar="FILE", help="a .safetensors file")],
    computing: ComputingFlags = ComputingFlags(),  # noqa: B008  # cyclopts' form for a group of flags
) -> None:
    """Encode a folder of real images, and write their statistics."""
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: must end in .safetensors")
    check_folder_of(out)
    check_exists("--encoder", computing.encoder)
    check_exists("--real", real)
    from pbe.evaluation.encoders.loading import open_encoder
    from pbe.evaluation.reference.images import reference_images
    from pbe.evaluation.reference.pickled_mixture import read_pickled_mixture
    from pbe.evaluation.reference.statistics import make_reference_statistics, write_reference_statistics
    from pbe.evaluation.scoring.protocols import open_protocols
    from pbe.runtime.devices import choose_device

    fitted = read_pickled_mixture(mixture) if mixture else None
    images = reference_images(real, layout.RAW, image_px, computing.max_real_images)
    encoder = open_encoder(computing.encoder, choose_device(computing.device, "--device"))
    features = open_protocols(protocol, encoder)[0].features
    with progress_bar("encoding real images") as progress:
        statistics = make_reference_statistics(
            images, features, image_px, total=0, seed=computing.seed, mixture=fitted, progress=progress
        )
    write_reference_statistics(out, statistics)
    print(f"{out}: {statistics.num_images} images of {image_px} px, {encoder.name}, {statistics.digest}")

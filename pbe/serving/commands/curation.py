"""`pbe browse`, `pbe verdicts` and `pbe attributions`: the curated data in FiftyOne, its review and its licences."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from pbe.errors import UserError
from pbe.serving.commands.flags import Whole
from pbe.serving.commands.output_files import check_folder_of

browse_app = App(
    name="browse",
    help_epilogue="""\
example:
  pbe browse --port 5152""",
)
verdicts_app = App(name="verdicts")
attributions_app = App(
    name="attributions",
    help_epilogue="""\
example:
  pbe attributions --out attributions.csv""",
)


@browse_app.default
def browse_data(*, port: Annotated[Whole, Parameter(help="a port of 127.0.0.1")] = 5151) -> None:
    """Open the curated data in the FiftyOne App, until Ctrl-C; its dataset is written first where it is missing."""
    from pbe.curation.app import browse
    from pbe.layout import FIFTYONE_DATASET, FIFTYONE_HOME
    from pbe.serving.commands.curated_dataset import curated_decisions

    def on_ready(address: str) -> None:
        print(f"{address}  (press Ctrl-C to stop)", flush=True)

    uri = os.environ.get("FIFTYONE_DATABASE_URI")
    decisions, write = curated_decisions() or ("", None)
    browse(FIFTYONE_HOME, FIFTYONE_DATASET, uri=uri, port=port, on_ready=on_ready, decisions=decisions, write=write)


@verdicts_app.command(
    name="pull",
    help_epilogue="""\
example:
  pbe verdicts pull""",
)
def pull_verdicts() -> None:
    """Write the tags keep and reject of the FiftyOne App to data/verdicts.csv."""
    from pbe.curation.verdicts import pull
    from pbe.layout import FIFTYONE_DATASET, FIFTYONE_HOME, VERDICTS
    from pbe.runtime.fiftyone_connection import connected_fiftyone
    from pbe.runtime.mongod import running_mongod

    uri = os.environ.get("FIFTYONE_DATABASE_URI")
    if uri is None and not (FIFTYONE_HOME / "db").is_dir():
        raise UserError(f"{FIFTYONE_HOME}: no FiftyOne database; run: dvc repro curate")
    with running_mongod(FIFTYONE_HOME, uri) as running, connected_fiftyone(running, FIFTYONE_HOME) as fo:
        new = pull(fo, FIFTYONE_DATASET, VERDICTS)
    print(f"{VERDICTS}: {len(new)} new verdicts" + ("; run dvc repro to apply them" if new else ""))


@attributions_app.default
def write_authors(*, out: Annotated[Path, Parameter(metavar="CSV", help="the file to write")]) -> None:
    """Write the author and licence of each curated image."""
    from pbe.dataset.attributions import write_attributions
    from pbe.layout import CURATED, RAW

    check_folder_of(out)
    images, unknown = write_attributions(RAW, CURATED, out)
    print(f"{out}: {images} images, {unknown} of them without a known licence")

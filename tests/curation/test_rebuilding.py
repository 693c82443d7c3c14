"""The dataset of a clone that has pulled data/curated, and verdicts of the App that are not in the file yet."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pbe.curation.fiftyone_export import has_decisions
from pbe.curation.selection import decisions_digest
from pbe.curation.verdicts import pull, read_verdicts, tag_verdicts, unsaved_verdicts
from pbe.errors import UserError
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.mongod import running_mongod
from tests.curation.test_selection import run, write_raw

pytestmark = [  # FiftyOne's imports
    pytest.mark.filterwarnings("ignore:Passing a class to strawberry:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:No uuidRepresentation is specified:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning"),
]


def documents(fo: Any) -> list[tuple[Any, ...]]:
    fields = ("split", "image_id", "reason", "duplicate_of", "tags", "ground_truth.detections.box_id", "uniqueness")
    return sorted(zip(*fo.load_dataset("test").values(list(fields)), strict=True))


def test_the_dataset_is_written_again_from_the_decisions_of_data_curated(tmp_path: Path) -> None:
    write_raw(tmp_path)
    home = tmp_path / ".fiftyone"
    with running_mongod(home) as uri:
        run(tmp_path, tmp_path / "out", uri)
        decided = pl.read_parquet(tmp_path / "out/images.parquet")
        with connected_fiftyone(uri, home) as fo:
            before = documents(fo)
            assert has_decisions(fo, "test", decisions_digest(decided))
            assert not has_decisions(fo, "test", decisions_digest(decided.reverse()))
            fo.delete_dataset("test")
            assert not has_decisions(fo, "test", decisions_digest(decided))
        run(tmp_path, tmp_path / "scratch", uri, decided=decided)
        with connected_fiftyone(uri, home) as fo:
            assert documents(fo) == before
        assert pl.read_parquet(tmp_path / "scratch/images.parquet").equals(decided)
        reason = pl.when(pl.col("image_id") == "0020").then(pl.lit("blurred")).otherwise("reason")
        run(tmp_path, tmp_path / "scratch", uri, decided=decided.with_columns(reason.alias("reason")))
        with connected_fiftyone(uri, home) as fo:
            assert fo.load_dataset("test").match({"image_id": "0020"}).values("reason") == ["blurred"]
        with pytest.raises(UserError, match="data/curated is of other images than data/raw"):
            run(tmp_path, tmp_path / "scratch", uri, decided=decided[1:])


def test_verdicts_of_the_app_outlast_a_dataset_that_replaces_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw(tmp_path)
    home, file = tmp_path / ".fiftyone", tmp_path / "verdicts.csv"
    with running_mongod(home) as uri:
        run(tmp_path, tmp_path / "out", uri)
        with connected_fiftyone(uri, home) as fo:
            box_id = fo.load_dataset("test").match_tags("keep").first().ground_truth.detections[0].box_id
            split = fo.load_dataset("test").match_tags("keep").first().split
            fo.load_dataset("test").match({"image_id": "0020"}).tag_samples("reject")
            boxes = fo.load_dataset("test").filter_labels("ground_truth", fo.ViewField("box_id") == box_id)
            boxes.tag_labels("reject", label_fields="ground_truth")
            unsaved = unsaved_verdicts(fo, "test", {})
        assert set(unsaved) == {("image", "train", "0020", "reject"), ("box", split, box_id, "reject")}
        run(tmp_path, tmp_path / "out", uri)
        assert "2 verdicts of the App are not applied yet; to apply them: pbe verdicts pull" in capsys.readouterr().out
        with connected_fiftyone(uri, home) as fo:
            assert set(pull(fo, "test", file)) == set(unsaved)
        run(tmp_path, tmp_path / "out", uri, verdicts=read_verdicts(file))
        assert "verdicts" not in capsys.readouterr().out
        with connected_fiftyone(uri, home) as fo:
            assert unsaved_verdicts(fo, "test", read_verdicts(file)) == []
            assert "0020" in {each.image_id for each in fo.load_dataset("test").match_tags("reject")}
            tag_verdicts(fo, "test", [])

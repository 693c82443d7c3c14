"""The examination of images and the search for near duplicates on a Ray cluster.

Ray Data divides the images' blocks among actors, each with the image tower; tasks compare the rows of the embeddings.
Every node sees the project's folder at the same absolute path: an actor reads the shards and writes thumbnails there.
The results come back in order, so that the driver's memory does not grow with the number of images.
"""

import pickle
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import ray
import ray.data
import torch

from pbe.curation import neighbours
from pbe.curation.examination import Embed, ExamineBlocks, ExaminedBlock, Examiner, block_of
from pbe.curation.thumbnails import thumbnail_path
from pbe.dataset.image_shards import ImageShards
from pbe.errors import UserError
from pbe.method.conditioner import Conditioner
from pbe.runtime.code_digest import digest_code
from pbe.runtime.devices import choose_device, choose_precision
from pbe.runtime.ray_cluster import user_errors_of_tasks


@dataclass(frozen=True)
class Tower:
    """The image tower of an actor: its folder, an absolute path; `curate.precision`; whether it has a GPU."""

    folder: Path
    precision: str
    use_gpu: bool

    def load(self) -> Embed:
        """Return the tower's function from images to embeddings, on this node's device."""
        device = choose_device("cuda" if self.use_gpu else "cpu", "curate.device")
        dtype = choose_precision(self.precision, device, "curate.precision")
        return Conditioner.from_tower(self.folder, context_dim=1).to(device, dtype).embed


class BlockExaminer:
    """A Ray Data actor that takes a block's rows and returns their results, both as pickled bytes.

    It loads the tower at the first block and not in its constructor, whose exceptions Ray passes on only as text.
    """

    def __init__(self, examiner: Examiner, tower: Tower, code: str) -> None:
        torch.set_num_threads(1)
        self.examiner, self.tower, self.code = examiner, tower, code
        self._embed: Embed | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Examine the block `row["rows"]`; raises UserError when this node has other code than the driver."""
        embed = self._embed = self._embed or self._load()
        rows = pickle.loads(row["rows"])
        block = block_of(rows, [self.examiner(each) for each in rows], embed)
        return {"examined": pickle.dumps(block)}

    def _load(self) -> Embed:
        if digest_code(__name__) != self.code:
            raise UserError(
                f"{socket.gethostname()}: has another version of pbe than the driver; "
                "install the driver's version there"
            )
        return self.tower.load()


def on_cluster(tower: Tower, home: Path) -> ExamineBlocks:
    """Return a function that examines blocks on the cluster that Ray is connected to, on as many nodes as it has.

    It uses every GPU, or without `tower.use_gpu` every CPU but one. Thumbnails are written below FiftyOne's folder
    `home`. The function raises UserError for a shard that cannot be read, and for a node with other code.
    """

    def examine_blocks(examiner: Examiner, blocks: Sequence[pl.DataFrame]) -> Iterator[ExaminedBlock]:
        anywhere = replace(
            examiner,
            shards=ImageShards(examiner.shards.folder.resolve()),
            locate=partial(thumbnail_path, home.resolve()),
        )
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        rows = [{"rows": pickle.dumps(block.rows())} for block in blocks]
        examined = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            BlockExaminer,  # type: ignore[arg-type]  # an actor class, where Ray's stub expects a function
            fn_constructor_args=(anywhere, tower, digest_code(__name__)),
            concurrency=(1, min(num_actors(tower.use_gpu), len(rows))),
            num_cpus=1,
            num_gpus=1 if tower.use_gpu else 0,
        )
        with user_errors_of_tasks():
            for row in examined.iter_rows():
                yield pickle.loads(row["examined"])

    return examine_blocks


def search_on_cluster(
    vectors: neighbours.Floats, within: float, groups: neighbours.Ints | None
) -> Iterator[neighbours.Block]:
    """Compare every two vectors as `neighbours.search` does, in tasks of the cluster that Ray is connected to.

    Each node that takes part holds all vectors in its object store.
    """
    vectors_there = ray.put(np.array(vectors))  # a copy: the vectors are a file that is mapped into memory
    groups_there = ray.put(groups)
    search_rows = ray.remote(num_cpus=1)(neighbours.search_rows)
    pending: deque[ray.ObjectRef[neighbours.Block]] = deque()
    most = 2 * num_actors(use_gpu=False)
    with user_errors_of_tasks():
        for rows in neighbours.blocks(len(vectors)):
            pending.append(search_rows.remote(rows, vectors_there, within, groups_there))
            if len(pending) == most:
                yield ray.get(pending.popleft())
        while pending:
            yield ray.get(pending.popleft())


def uses_gpu(device: str) -> bool:
    """Return whether `curate.device` means a GPU on the cluster that Ray is connected to."""
    return device.startswith("cuda") or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1)


def num_actors(use_gpu: bool) -> int:
    """Return how many actors the cluster has room for: one for each GPU, or for each CPU but the one of Ray Data."""
    resources = ray.cluster_resources()
    free = resources.get("GPU", 0) if use_gpu else resources.get("CPU", 0) - 1
    return max(1, int(free))

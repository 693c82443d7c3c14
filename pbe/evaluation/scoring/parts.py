"""Scores on disk, part by part, so that an interrupted scoring resumes and gives the same bits.

    folder/<method>/<first id:012d>.npz     ids, columns, features of one batch of cases, and the key of all of them

A part is complete or absent, and is used under its own key alone. The parts of a method are independent of all other
methods: a further method, or a new picture of one, costs its own parts only.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.scoring.case_scores import MethodScores
from pbe.runtime.files import atomic_file

_COLUMN, _FEATURES = "column.", "features."


@dataclass(frozen=True)
class ScoreParts:
    """The parts in a folder; `key` names all that decides a score, except the method and the cases."""

    folder: Path
    key: str

    def has(self, method: str, method_key: str, ids: Sequence[int]) -> bool:
        """Return whether the scores of these cases were written under these keys."""
        try:
            with np.load(self._path(method, ids), allow_pickle=False) as file:
                return str(file["key"]) == self._part_key(method_key, ids)
        except (FileNotFoundError, zipfile.BadZipFile, EOFError, ValueError, KeyError):
            return False  # a machine that lost power may leave a file without its content

    def read(self, method: str, ids: Sequence[int]) -> MethodScores:
        """Return the scores of these cases, which have to be there."""
        with np.load(self._path(method, ids), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return MethodScores(
            tuple(ids),
            {name.removeprefix(_COLUMN): array for name, array in arrays.items() if name.startswith(_COLUMN)},
            {name.removeprefix(_FEATURES): array for name, array in arrays.items() if name.startswith(_FEATURES)},
        )

    def write(self, method: str, method_key: str, scores: MethodScores) -> None:
        """Write the scores of a batch of cases, atomically."""
        arrays: dict[str, NDArray[Any]] = {_COLUMN + name: values for name, values in scores.columns.items()}
        arrays |= {_FEATURES + name: values for name, values in scores.features.items()}
        key = np.array(self._part_key(method_key, scores.ids))
        with atomic_file(self._path(method, scores.ids)) as part, part.open("wb") as file:
            np.savez(file, key=key, **arrays)  # type: ignore[arg-type]

    def keep_only(self, methods: Collection[str]) -> None:
        """Remove the parts of all other methods."""
        for folder in self.folder.glob("*"):
            if folder.name not in methods:
                shutil.rmtree(folder)

    def _path(self, method: str, ids: Sequence[int]) -> Path:
        return self.folder / method / f"{ids[0]:012d}.npz"

    def _part_key(self, method_key: str, ids: Sequence[int]) -> str:
        return hashlib.sha256(json.dumps([self.key, method_key, list(ids)]).encode()).hexdigest()


def join(parts: Sequence[MethodScores]) -> MethodScores:
    """Return the scores of all parts, one after the other; raises ValueError when there are none."""
    if not parts:
        raise ValueError("no cases to score")
    return MethodScores(
        tuple(i for part in parts for i in part.ids),
        {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
        {name: np.concatenate([part.features[name] for part in parts]) for name in parts[0].features},
    )

"""Results of any tool on a bench, as image files in a folder, checked before they are scored.

The official code writes `{id:012d}.png` into OUT/results, beside OUT/samples and OUT/grid. Other tools leave out the
zeros, add a word or write JPEGs. The folder may be `folder` itself or up to three levels below: it is the one with the
most cases of the bench.

Faults, in the order in which a case is counted: `missing`, `unreadable`, `wrong_size` (another size than the source:
the official code paints 512 x 512 px whatever the source; accepted, such a result is resized to its source),
`greyscale`, `transparent`.
"""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pbe.dataset.images import image_size, read_image
from pbe.errors import UserError
from pbe.evaluation.benches.bench import Bench, Case, result_path
from pbe.evaluation.benches.bench_checks import digest_bytes, examine_picture
from pbe.evaluation.benches.bench_folder import IMAGE_SUFFIXES, MAX_DEPTH, folders_below
from pbe.evaluation.benches.case_checks import CheckReport, Finding, Policy, Verdict, check_files, report_cases
from pbe.method.exemplars import resize
from pbe.types import Image, Progress, no_progress

_VERSION = "1"  # of the check: a changed check gets another
_PLAIN = re.compile(r"(\d{1,18})")
_WORDED = re.compile(r"(?:[^\d]*[^\d\W])?[_\-. ]?(\d{1,18})(?:[_\-. ][^\d]*)?")


@dataclass(frozen=True)
class ResultsFolder:
    """The usable results of a tool; called with a case, it returns the tool's result of the source's size.

    `digest` changes with the bytes of any usable result.
    """

    folder: Path
    files: Mapping[int, Path]
    report: CheckReport

    @property
    def ids(self) -> tuple[int, ...]:
        """The cases with a usable result, in the order of the bench."""
        return self.report.usable

    @property
    def digest(self) -> str:
        """Return a digest, 64 hex digits, of the ids and bytes of the usable results."""
        return digest_bytes([f"{case_id} {digest}".encode() for case_id, digest in self.report.digests.items()])

    def __call__(self, case: Case) -> Image:
        """Decode the result of a case, (H, W, 3) uint8; a result of another size is resized to the source's."""
        return resize(read_image(self.files[case.id]), *case.source.shape[:2])


def open_results(
    folder: Path,
    bench: Bench,
    policy: Policy,
    *,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> ResultsFolder:
    """Find the results of the bench's cases at `folder` or below it, decode each one, and keep the usable ones.

    Verdicts on unchanged files come from the file `cache`. Raises UserError when there are no results, no result can be
    used, or one cannot and the policy is to refuse.
    """
    found, files = _find_results(folder, bench)
    paths = {i: files.get(i, result_path(found, i)) for i in bench.ids}
    verdicts = check_files(
        {i: (paths[i], bench.files(i).source) for i in bench.ids},
        partial(_check_result, bench, paths),
        cache=cache,
        version=_VERSION,
        num_threads=len(os.sched_getaffinity(0)),
        progress=progress,
    )
    findings = {i: verdict.findings for i, verdict in verdicts.items()}
    digests = {i: verdict.digest for i, verdict in verdicts.items()}
    notes = {
        "other_names": sum(path.name != result_path(found, i).name for i, path in files.items() if i in paths),
        "other_files": sum(1 for _ in found.iterdir()) - len(files.keys() & paths.keys()),
        "jpegs": sum(path.suffix.lower() in (".jpg", ".jpeg") for path in paths.values()),
    }
    notes = {name: number for name, number in notes.items() if number}
    report = report_cases(str(found), findings, policy, notes=notes, digests=digests)
    return ResultsFolder(found, paths, report)


def _find_results(folder: Path, bench: Bench) -> tuple[Path, dict[int, Path]]:
    """Return the folder with the most results of the bench, and its files by id.

    Files named by the id alone are looked for first, in all folders.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    ids = set(bench.ids)
    folders = list(folders_below(folder, MAX_DEPTH))
    for pattern in (_PLAIN, _WORDED):
        found = {each: files for each in folders if (files := _files_by_id(each, pattern, ids))}
        most = max(map(len, found.values()), default=0)
        best = [each for each, files in found.items() if len(files) == most]
        if len(best) > 1:
            raise UserError(f"{folder}: has as many results in {best[0]} as in {best[1]}; name one of the two")
        if best:
            return best[0], found[best[0]]
    example = result_path(folder, bench.ids[0]).name
    raise UserError(f"{folder}: no result of the bench {bench.folder}; results have names such as {example}")


def _files_by_id(folder: Path, pattern: re.Pattern[str], ids: Collection[int]) -> dict[int, Path]:
    """Return the results in a folder by id, of files whose name without suffix has the pattern; official names win.

    Raises UserError when two files of other names have the same id.
    """
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = pattern.fullmatch(path.stem) if path.suffix.lower() in IMAGE_SUFFIXES else None
        if match is None or (case_id := int(match[1])) not in ids:
            continue
        official = result_path(folder, case_id)
        if case_id in files and official not in (files[case_id], path):
            raise UserError(f"{path}: has the same id as {files[case_id].name}; remove one of the two")
        if files.get(case_id) != official:
            files[case_id] = path
    return files


def _check_result(bench: Bench, paths: Mapping[int, Path], case_id: int) -> Verdict:
    path = paths[case_id]
    if not path.is_file():
        return Verdict((Finding("missing", f"{path}: no such file"),), "", {})
    data = path.read_bytes()
    image, findings = examine_picture(data, path, min_px=1)
    width, height = image_size(bench.files(case_id).source)
    if image is not None and image.shape[:2] != (height, width):
        size = f"{image.shape[1]} x {image.shape[0]} px, but its source is {width} x {height} px"
        findings.insert(0, Finding("wrong_size", f"{path}: {size}"))
    return Verdict(tuple(findings), digest_bytes([data]), {})

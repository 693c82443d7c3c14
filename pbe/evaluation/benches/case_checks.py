"""What a check of many cases found: which can be used, and why the others cannot.

Every case is counted once: as usable, or under the first fault that is not accepted. A verdict belongs to files of a
certain size and time of change, so that an unchanged file is opened once.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pbe.errors import UserError
from pbe.runtime.files import write_text
from pbe.settings import AcceptedFault
from pbe.types import Progress, no_progress

Damaged = Literal["refuse", "skip"]
Fault = Literal[
    "missing", "misnamed", "unreadable", "mask_size", "wrong_size", "greyscale", "transparent", "empty_mask",
    "soft_mask", "inverted", "tiny",
]  # fmt: skip
ACCEPTABLE: tuple[Fault, ...] = get_args(AcceptedFault)

NOTES = {
    "ids_from_files": "id_list.npy is missing; the {} ids are those of the files, in ascending order",
    "other_files": "{} files belong to no case",
    "zero_one_masks": "{} masks have the levels 0 and 1 instead of 0 and 255; 1 is read as white",
    "soft_edges": "{} masks have grey pixels; white is above 127, and the official code takes the box of 255 alone",
    "other_names": "{} results have another name than the official code gives",
    "jpegs": "{} results are JPEGs, whose pixels differ from the source's outside the mask as well",
}
_FORMAT = 1  # of the file of verdicts


class Finding(NamedTuple):
    """One fault of one case; `detail` names the file and what is wrong."""

    fault: Fault
    detail: str


class Verdict(NamedTuple):
    """What checking a case's files found, whatever is accepted.

    `digest` is the SHA-256 of the files' bytes, "" when one is missing. `measures` are numbers, such as a mask's share.
    """

    findings: tuple[Finding, ...]
    digest: str
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Policy:
    """What to do with faulty cases.

    `skip` leaves them out; `refuse` raises UserError for the first. Accepted faults make no case unusable. The texts
    tell a user how to set these two, in params.yaml or on a command line.
    """

    damaged: Damaged = "refuse"
    accept: frozenset[Fault] = frozenset()
    skip_text: str = "evaluate.damaged: skip"
    accept_text: str = "evaluate.accept: [{fault}]"


@dataclass(frozen=True)
class CheckReport:
    """The outcome of a check of `num_cases` cases: `usable` ids in order, faulty and accepted cases by fault.

    `notes` counts what is worth knowing and makes no case unusable. `digests` holds the SHA-256 of each usable case's
    files.
    """

    name: str
    num_cases: int
    usable: tuple[int, ...]
    faulty: Mapping[Fault, Mapping[int, str]]
    accepted: Mapping[Fault, Mapping[int, str]]
    notes: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[int, str] = field(default_factory=dict)

    def counts(self) -> dict[str, Any]:
        """Return how many cases there are, are usable, and are skipped by fault; cases = usable + all skipped.

        Counts of accepted faults and notes are there where they are not empty.
        """
        more = {
            "skipped": {fault: len(cases) for fault, cases in self.faulty.items()},
            "accepted": {fault: len(cases) for fault, cases in self.accepted.items()},
            "notes": dict(self.notes),
        }
        return {"cases": self.num_cases, "usable": len(self.usable)} | {k: v for k, v in more.items() if v}

    def lines(self, num_ids: int = 3) -> list[str]:
        """Return a line for each fault: how many cases have it, the first ids and what is wrong with the first.

        A line for each note follows.
        """
        found = [("are left out", self.faulty), ("are used in spite of it", self.accepted)]
        faults = [
            f"{len(cases)} of {self.num_cases} cases {text}: {_words(fault)}, ids {_first_ids(cases, num_ids)}; first: "
            f"{next(iter(cases.values()))}"
            for text, by_fault in found
            for fault, cases in by_fault.items()
        ]
        return faults + [NOTES[name].format(number) for name, number in self.notes.items()]


def report_cases(
    name: str,
    findings: Mapping[int, Sequence[Finding]],
    policy: Policy,
    *,
    notes: Mapping[str, int],
    digests: Mapping[int, str],
) -> CheckReport:
    """Sort the cases by their findings, and apply the policy.

    Raises UserError, on one line with all counts and the first file, when a case cannot be used and the policy is to
    refuse, and when no case is left.
    """
    usable: list[int] = []
    faulty: dict[Fault, dict[int, str]] = {}
    accepted: dict[Fault, dict[int, str]] = {}
    for case_id, found in findings.items():
        refused = next((f for f in found if f.fault not in policy.accept or f.fault not in ACCEPTABLE), None)
        if refused:
            faulty.setdefault(refused.fault, {})[case_id] = refused.detail
            continue
        usable.append(case_id)
        for finding in found:
            accepted.setdefault(finding.fault, {})[case_id] = finding.detail
    kept = {case_id: digests[case_id] for case_id in usable if case_id in digests}
    report = CheckReport(name, len(findings), tuple(usable), faulty, accepted, notes, kept)
    if faulty and (policy.damaged == "refuse" or not usable):
        raise UserError(_refusal(report, policy))
    return report


def _refusal(report: CheckReport, policy: Policy) -> str:
    number = sum(len(cases) for cases in report.faulty.values())
    counts = ", ".join(f"{len(cases)} {_words(fault)}" for fault, cases in report.faulty.items())
    first = next(iter(next(iter(report.faulty.values())).values()))
    choices = [
        f"{policy.accept_text.format(fault=fault)} to use these" for fault in report.faulty if fault in ACCEPTABLE
    ]
    if report.usable:
        choices.append(f"{policy.skip_text} to leave them out")
    choice = f"; or set {', or '.join(choices)}" if choices else ""
    return f"{report.name}: {number} of {report.num_cases} cases cannot be used: {counts}; first: {first}{choice}"


def _words(fault: Fault) -> str:
    return fault.replace("_", " ")


def _first_ids(cases: Mapping[int, str], number: int) -> str:
    ids = list(cases)
    return ", ".join(map(str, ids[:number])) + (", ..." if len(ids) > number else "")


def check_files(
    items: Mapping[int, Sequence[Path]],
    check: Callable[[int], Verdict],
    *,
    cache: Path | None,
    version: str,
    num_threads: int,
    progress: Progress = no_progress,
) -> dict[int, Verdict]:
    """Return the verdict on each case, in order; `check` runs in threads, on cases whose `items` (files) changed.

    Verdicts are kept in the file `cache`, of one `version` of the check. `progress` counts cases.
    """
    states = {case_id: [_state(path) for path in paths] for case_id, paths in items.items()}
    known = _read_cache(cache, version) if cache else {}
    fresh = {i: _verdict(known[str(i)]) for i in items if str(i) in known and known[str(i)]["files"] == states[i]}
    missing = [case_id for case_id in items if case_id not in fresh]
    progress(len(fresh), len(items))
    threads = ThreadPoolExecutor(num_threads)
    try:
        for done, (case_id, verdict) in enumerate(zip(missing, threads.map(check, missing), strict=True), 1):
            fresh[case_id] = verdict
            progress(len(items) - len(missing) + done, len(items))
    finally:
        threads.shutdown(cancel_futures=True)
    if cache and missing:
        entries = {str(i): {"files": states[i], **verdict._asdict()} for i, verdict in fresh.items()}
        write_text(cache, json.dumps({"format": _FORMAT, "version": version, "cases": entries}))
    return {case_id: fresh[case_id] for case_id in items}


def _state(path: Path) -> list[str | int] | None:
    """Return what changes when a file does, as DVC and git tell it; None when there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _read_cache(path: Path, version: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    known: dict[str, Any] = content["cases"]
    return known if (content["format"], content["version"]) == (_FORMAT, version) else {}


def _verdict(entry: Mapping[str, Any]) -> Verdict:
    return Verdict(tuple(Finding(*finding) for finding in entry["findings"]), entry["digest"], entry["measures"])

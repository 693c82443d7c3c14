"""`pbe models`: the versions of a registered model, which one is in use, and how to change that."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from pbe.errors import UserError
from pbe.serving.commands.flags import Flag
from pbe.serving.commands.model_choice import keep_mlflow_quiet, reads_database_directly, registry_address
from pbe.serving.commands.tables import text_table

if TYPE_CHECKING:
    from pbe.serving.registry.comparisons import Difference
    from pbe.serving.registry.management import Moved, VersionDetails, VersionSummary

app = App(
    name="models",
    help_epilogue="""\
examples:
  pbe models list
  pbe models compare challenger champion
  pbe models promote 7 --reason "fewer seams on metal"
  pbe models rollback

VERSION is a number, or an alias such as champion. The registry is that of the
server at MLFLOW_TRACKING_URI, or the project's mlflow.db. pbe models ACTION
--help has an example.""",
)

Version = Annotated[str, Parameter(metavar="VERSION", help="a number, or an alias such as champion")]
Reason = Annotated[str, Parameter(metavar="TEXT", help="why, in a sentence; it is kept with the version")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RegistryFlags:
    """Which registered model, and how to print."""

    name: Annotated[str, Parameter(metavar="NAME", help="the registered model")] = "paint-by-example"
    json: Annotated[Flag, Parameter(help="print JSON instead of a table")] = False


def _example(command: str) -> str:
    return f"example:\n  pbe models {command}"


@app.command(name="list", help_epilogue=_example("list --json"))
def list_models(*, flags: RegistryFlags = RegistryFlags()) -> None:
    """List the versions, the newest first, with their scores."""
    from pbe.serving.registry.management import list_versions

    versions = list_versions(flags.name, **_registry())
    if flags.json:
        return _print_json(map(asdict, versions))
    print(_version_table(versions))


@app.command(name="show", help_epilogue=_example("show champion"))
def show_model(version: Version = "champion", /, *, flags: RegistryFlags = RegistryFlags()) -> None:
    """Show all that is known of a version: scores, the gate's decision, code, data and licence."""
    from pbe.serving.registry.management import show_version

    details = show_version(flags.name, version, **_registry())
    if flags.json:
        return _print_json(asdict(details))
    print(_details(details))


@app.command(name="compare", help_epilogue=_example("compare challenger champion"))
def compare_models(first: Version, second: Version = "champion", /, *, flags: RegistryFlags = RegistryFlags()) -> None:
    """Compare two versions: differences of all metrics with intervals, on the cases that both were evaluated on."""
    from pbe.serving.registry.management import compare_versions

    found = compare_versions(flags.name, first, second, **_registry())
    if flags.json:
        return _print_json(asdict(found))
    one, other = (f"version {each.version}" for each in (found.first, found.second))
    if found.note:
        return print(f"{one} and {other}: {found.note}")
    print(f"{one} minus {other}, with intervals of 95 %")
    print(_difference_table(found.differences, one, other))


@app.command(name="promote", help_epilogue=_example('promote 7 --reason "fewer seams on metal"'))
def promote_model(
    version: Version,
    /,
    *,
    reason: Reason,
    flags: RegistryFlags = RegistryFlags(),
) -> None:
    """Make a version the champion, whatever the gate says of it."""
    from pbe.serving.registry.management import promote

    _print_moved(promote(flags.name, version, reason, tracking_uri=_address()), flags)


@app.command(name="rollback", help_epilogue=_example('rollback --reason "blurred edges"'))
def roll_back(*, reason: Reason = "", flags: RegistryFlags = RegistryFlags()) -> None:
    """Make the champion before the present one champion again."""
    from pbe.serving.registry.management import rollback

    _print_moved(rollback(flags.name, reason, tracking_uri=_address()), flags)


@app.command(name="describe", help_epilogue=_example('describe "Trained on the clips of May." --of 7'))
def describe_model(
    text: Annotated[str, Parameter(metavar="TEXT", help="Markdown is allowed; an empty text removes it")],
    /,
    *,
    of: Annotated[
        str | None,
        Parameter(metavar="VERSION", show_default="the model as a whole", help="a number, or an alias"),
    ] = None,
    flags: RegistryFlags = RegistryFlags(),
) -> None:
    """Write the description of a version or of the registered model, above what is generated."""
    from pbe.serving.registry.management import describe

    description = describe(flags.name, text, of, tracking_uri=_address())
    if flags.json:
        return _print_json({"name": flags.name, "version": of, "description": description})
    print(f"{flags.name}{f' version {of}' if of else ''}: described")


def _address() -> str:
    """Return the registry's address; raises UserError when there is none."""
    keep_mlflow_quiet()
    address = registry_address()
    if address is None:
        raise UserError("no registry: run this in a project with an mlflow.db, set MLFLOW_TRACKING_URI, or `make demo`")
    return address


def _registry() -> dict[str, Any]:
    return {"tracking_uri": _address(), "direct": reads_database_directly()}


def _version_table(versions: "Iterable[VersionSummary]") -> str:
    columns = ("version", "aliases", "created", "scores")
    rows = [
        (str(each.version), ", ".join(each.aliases), each.created[:16].replace("T", " "), each.scores)
        for each in versions
    ]
    return text_table(columns, rows, right=("version",))


def _details(details: "VersionDetails") -> str:
    """Return a version as lines `name: value`, and a table of the scores of all methods."""
    summary, record = details.summary, details.record
    files = details.location or "not known" if details.files_exist else f"GONE from {details.location}"
    facts = {
        "aliases": ", ".join(summary.aliases),
        "created": summary.created,
        "files": files,
        "gate": summary.gate,
        "promotion": summary.promotion,
        "code": summary.git_commit,
        "data": summary.data,
        "licence": summary.licence,
        "run": details.run_id,
        "evaluations": ", ".join(details.evaluations),
        "text": summary.text,
    }
    lines = [f"{name + ':':<13}{value}" for name, value in facts.items() if value]
    table = _score_table(record.metrics.get("methods") or {})
    return "\n".join([f"{summary.name} version {summary.version}", *lines, *([table] if table else [])])


def _score_table(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the scores with their intervals: a row for each metric, a column for each method."""
    from pbe.evaluation.names import METHOD
    from pbe.evaluation.scoring.metric_table import metric_spec
    from pbe.serving.registry.descriptions import metric_names, shown_score

    if not methods:
        return ""
    columns = sorted(methods, key=lambda method: method != METHOD)
    names = metric_names(methods[columns[0]])
    rows = [[metric_spec(name).title, *(shown_score(methods[each], name) for each in columns)] for name in names]
    return text_table(["", *columns], rows, right=columns)


def _difference_table(differences: "Iterable[Difference]", one: str, other: str) -> str:
    from pbe.evaluation.scoring.metric_table import metric_spec

    columns = ("metric", one, other, "difference", "interval", "verdict", "cases")
    rows = []
    for each in differences:
        spec = metric_spec(each.metric)
        numbers = (each.challenger, each.baseline)
        rows.append(
            [
                f"{spec.title} ({'higher' if spec.higher_is_better else 'lower'} is better)",
                *(f"{number:.{spec.digits}f}" for number in numbers),
                f"{each.difference:+.3g}",
                f"[{each.low:+.3g}, {each.high:+.3g}]",
                str(each.verdict),
                str(each.num_cases),
            ]
        )
    return text_table(columns, rows, right=(one, other, "difference", "cases"))


def _print_moved(moved: "Moved", flags: RegistryFlags) -> None:
    if flags.json:
        return _print_json(asdict(moved))
    before = f"; before it was version {moved.previous}" if moved.previous else ""
    print(f"{moved.name}: version {moved.version} is the champion{before}")


def _print_json(content: Any) -> None:
    content = content if isinstance(content, Mapping) else list(content)
    print(json.dumps(content, indent=2, ensure_ascii=False, default=str))

"""The libraries that only some commands need: which extra of the package installs them.

A person who only paints installs `paint-by-example`, without Ray, Prefect, MongoDB, DVC and MLflow. A command that
needs more fails with one line that names the extra.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from pbe.errors import UserError

PACKAGE = "paint-by-example"
_NEED_SERVE = ("serve", "app", "models")
_REGISTRY = "mlflow"


@contextmanager
def missing_extras_reported(command: str) -> Iterator[None]:
    """Raise UserError when an import of the block fails because the extra that `pbe COMMAND` needs is not installed.

    An import that fails although the extra is installed is a bug, and keeps its traceback.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = "serve" if module == _REGISTRY or command in _NEED_SERVE else "train"
        if module == "pbe" or not missing_libraries(extra):
            raise
        what = "the model registry" if module == _REGISTRY and command not in _NEED_SERVE else f"pbe {command}"
        raise UserError(f'{what} needs {module}, which is not installed: pip install "{PACKAGE}[{extra}]"') from None


def missing_libraries(extra: str) -> list[str]:
    """Return the libraries of an extra that are not installed; none where the package itself is not installed."""
    from packaging.requirements import Requirement  # slow to import, and needed for this error alone

    try:
        needed = [Requirement(text) for text in metadata.requires(PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        return []
    of_extra = [each for each in needed if each.marker and each.marker.evaluate({"extra": extra})]
    return [each.name for each in of_extra if each.name != PACKAGE and not _is_installed(each.name)]


def _is_installed(library: str) -> bool:
    try:
        metadata.version(library)
    except metadata.PackageNotFoundError:
        return False
    return True

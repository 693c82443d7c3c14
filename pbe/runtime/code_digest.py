"""Digests of code, for the keys of caches: results of an interrupted run are reused only by the code that made them.

The modules are found by following the imports, so no list has to be maintained. Each is reduced to its syntax tree
without comments, docstrings and layout: only a change that can change a result changes the digest.
"""

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import grimp

# What parameters mean, where files lie and how processes run; the values of parameters are part of every key.
NO_RESULT = ("pbe.errors", "pbe.layout", "pbe.runtime", "pbe.settings", "pbe.types")


def digest_code(*roots: str) -> str:
    """Return the digest, 32 hex digits, of the modules `roots` and all modules of `pbe` that they import.

    Imports inside functions count, those under `if TYPE_CHECKING` do not, and the modules in NO_RESULT are left out.
    """
    digest = hashlib.blake2b(digest_size=16)
    for module in code_modules(*roots):
        digest.update(f"{module}\0{_syntax(module)}\0".encode())
    return digest.hexdigest()


def code_modules(*roots: str) -> list[str]:
    """Return the names of the modules whose code `digest_code` reads, sorted."""
    graph = _graph()
    found = set(roots).union(*(graph.find_upstream_modules(root) for root in roots))
    return sorted(m for m in found if not any(m == each or m.startswith(f"{each}.") for each in NO_RESULT))


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("pbe", cache_dir=None, exclude_type_checking_imports=True)


@cache
def _syntax(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    tree = ast.parse(Path(spec.origin).read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_docstring(node)
    return ast.dump(tree)


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    if node.body and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):
        node.body = node.body[1:]

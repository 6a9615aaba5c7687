"""Which files of tests can notice a change of a module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

CLAIMS, UNIT_TESTS = "tests/claims", "tests/theory"


class NoTests(LookupError):
    """Nothing tests the module; the message says what to write."""


def files_testing(root: Path, module: str) -> list[str]:
    """Files of claims that import the module, directly or not, and the unit tests of its own name.

    Raises:
        NoTests: there are none.
    """
    stem = Path(module).stem
    claims = [file for file in sorted((root / CLAIMS).glob("test_*.py")) if reaches(root, file, module)]
    own = sorted((root / UNIT_TESTS).glob(f"test_{stem}*.py"))
    if not claims + own:
        raise NoTests(
            f"no test for {module}: no file in {CLAIMS} imports it, and there is no {UNIT_TESTS}/test_{stem}.py; "
            "write one of them, or leave the module out"
        )
    return [path.relative_to(root).as_posix() for path in claims + own]


def reaches(root: Path, file: Path, module: str) -> bool:
    """Whether a file imports a module of the checkout, itself or through others of the checkout."""
    target, todo, seen = root / module, [file], set[Path]()
    while todo:
        path = todo.pop()
        seen.add(path)
        todo += [found for found in _imports(root, path) if found not in seen]
    return target in seen


def _imports(root: Path, file: Path) -> Iterator[Path]:
    """Files of the checkout that a file imports anywhere in it, functions included."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{name}" for name in names)]
        for name in names:
            path = root / name.replace(".", "/")
            yield from (one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file())

"""Which files of a checkout the text of a module depends on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("theory", "empirical", "benchmarks", "reports")
"""Those of this project. An installed copy of it lies among all other packages, which are not followed."""


def modules_behind(root: Path, file: Path) -> set[Path]:
    """The file, and all files of our packages below `root` that it imports anywhere in it, itself or through others."""
    todo, seen = [file], {file}
    while todo:
        found = set(_imports(root, todo.pop())) - seen
        seen |= found
        todo += found
    return seen


def _imports(root: Path, file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{name}" for name in names)]
        for name in (one for one in names if one.split(".")[0] in PACKAGES):
            path = root / name.replace(".", "/")
            yield from (one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file())

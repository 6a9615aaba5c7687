"""Which files of a checkout the text of a module depends on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def modules_behind(root: Path, file: Path) -> set[Path]:
    """The file, and all files below `root` that it imports anywhere in it, itself or through others."""
    todo, seen = [file], set[Path]()
    while todo:
        path = todo.pop()
        seen.add(path)
        todo += [found for found in _imports(root, path) if found not in seen]
    return seen


def _imports(root: Path, file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{name}" for name in names)]
        for name in names:
            path = root / name.replace(".", "/")
            yield from (one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file())

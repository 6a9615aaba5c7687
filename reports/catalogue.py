"""All declared claims, without running pytest: what `attest list` and `attest show` read."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from reports.claim import DECLARED, Claim
from reports.validate import BIBLIOGRAPHY

CLAIMS_FOLDER = "tests/claims"


class CatalogueError(ValueError):
    """There are no claims here, or a file of claims cannot be imported; the message names the remedy."""


def find_root(start: Path) -> Path:
    """The checkout that `start` lies in: the nearest folder with claims and a bibliography.

    Raises:
        CatalogueError: there is none.
    """
    for folder in (start, *start.parents):
        if (folder / CLAIMS_FOLDER).is_dir() and (folder / BIBLIOGRAPHY).is_file():
            return folder
    raise CatalogueError(f"{start} is in no checkout of Attest (no {CLAIMS_FOLDER} above it): change into one")


def load(root: Path) -> list[Claim]:
    """All claims below `root`, in the order of their files and lines.

    Raises:
        CatalogueError: a file of claims cannot be imported.
    """
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    files = sorted((root / CLAIMS_FOLDER).rglob("test_*.py"))
    for file in files:
        spec = importlib.util.spec_from_file_location(f"attest_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        try:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        except Exception as error:
            raise CatalogueError(f"{file.relative_to(root)}: {type(error).__name__}: {error}") from error
    return [claim for file in files for claim in DECLARED.get(str(file.resolve()), [])]


def unknown(kind: str, key: str, known: Sequence[str]) -> str:
    """The message for a key that is not among the known ones."""
    near = difflib.get_close_matches(key, dict.fromkeys(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`attest list` shows all"
    return f"unknown {kind} {key!r}: {hint}"

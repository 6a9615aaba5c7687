"""`references.bib`, read with pybtex."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reports.validate import BIBLIOGRAPHY


def papers(root: Path, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Entries of `papers` in the results, in the order of `keys`.

    Where pybtex is missing (a GPU machine) only the keys are known; `attest merge` and `attest render` add the rest.
    """
    if importlib.util.find_spec("pybtex") is None or not (root / BIBLIOGRAPHY).exists():
        return [_blank(key) for key in keys]
    from pybtex.database import parse_file

    entries = parse_file(str(root / BIBLIOGRAPHY), bib_format="bibtex").entries
    return [_paper(key, entries[key]) if key in entries else _blank(key) for key in keys]


def _blank(key: str) -> dict[str, Any]:
    return {"key": key, "title": key, "authors": [], "year": "", "venue": "", "url": ""}


def _paper(key: str, entry: Any) -> dict[str, Any]:
    fields = entry.fields
    return {
        "key": key,
        "title": _plain(fields.get("title", key)),
        "authors": [_plain(_name(person)) for person in entry.persons.get("author", [])],
        "year": fields.get("year", ""),
        "venue": _plain(fields.get("booktitle", fields.get("journal", ""))),
        "url": fields.get("url", ""),
    }


def _name(person: Any) -> str:
    return " ".join([*person.first_names, *person.middle_names, *person.prelast_names, *person.last_names])


def _plain(text: str) -> str:
    """LaTeX of a bibliography field as plain text."""
    from pybtex.richtext import Text

    return str(Text.from_latex(text))

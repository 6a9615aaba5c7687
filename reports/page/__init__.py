"""`index.html` from results: one file that loads nothing, needs no script to be read, and escapes everything.

The same results give the same bytes: no clock, no chance, no machine is asked here.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports.files import write_whole
from reports.page import closeness, display, view

FOLDER = Path(__file__).with_name("templates")

FILTERS = (
    display.number, display.bound, display.measured, display.interval, display.assignments, display.duration,
    display.moment, display.count, display.breakable, display.with_unit, display.ended, closeness.closeness,
    view.authors, view.web, view.strip,
)  # fmt: skip
"""What the templates may call on a value."""


def render(results: dict[str, Any]) -> str:
    """The report as one HTML document.

    Args:
        results: of the shape of `results.schema.json`.

    Raises:
        reports.formula.FormulaError: the formula of a claim cannot be set; names the claim.
        reports.svg.FigureError: a figure contains more than drawing; names the check.
    """
    style, script = _asset("style.css"), _asset("page.js")
    page = _environment().get_template("index.html.j2").render(
        **view.prepare(results), style=Markup(style), script=Markup(script), policy=_policy(style, script)
    )  # fmt: skip
    # JSON may hold half a surrogate pair, which no file can; it is shown as a question mark.
    return page.encode("utf-8", "replace").decode("utf-8")


def write(results: dict[str, Any], path: Path | str) -> None:
    """Render `results` to `path`: the whole page, or, where `render` raises, nothing."""
    write_whole(path, render(results))


def _asset(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing may be loaded, and only this style and this script may act, whatever a results file smuggles in."""
    return (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in FILTERS}
    environment.globals |= {"verdicts": view.VERDICTS, "level_gloss": view.LEVEL_GLOSS}
    return environment

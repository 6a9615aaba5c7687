"""Matplotlib figures as inline SVG, the same bytes for the same figure."""

from __future__ import annotations

import io
import re
import sys
from typing import TYPE_CHECKING, Any

from reports.svg import FigureError, inline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FigureError", "inline", "to_svg"]

DOCTYPE = re.compile(r"<!DOCTYPE[^>]*>")
IMAGE_ID = re.compile(r'(<image\b[^>]*) id="[^"]*"')
STYLE_SHEET = re.compile(r"<style[^>]*>\*\{([^}]*)\}</style>")
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "attest",  # ids from the content, not from chance
    "svg.fonttype": "path",  # the same picture whatever fonts the reader has
    "savefig.facecolor": "none",  # the page puts figures on a light plate, in the dark too
}
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def to_svg(figure: Figure) -> str:
    """Draw a figure as a small, self-contained SVG document, and close it.

    Equal figures give equal text: no dates, no random ids. Letters are paths, so no font is needed to read them.

    Raises:
        FigureError: the figure uses something an SVG on the page may not contain, or is too large; then rasterise
            the artist that has too many points (`set_rasterized(True)`).
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", metadata=NO_METADATA, bbox_inches="tight", pad_inches=0.04)
    _close(figure)
    # The id of an image is a hash of what it shows, which two that look alike would share; nothing refers to it.
    drawn = IMAGE_ID.sub(r"\1", DOCTYPE.sub("", buffer.getvalue(), count=1))
    # Matplotlib puts two defaults for all elements in a style sheet; on the root they are inherited all the same.
    defaults = STYLE_SHEET.search(drawn)
    if defaults is not None:
        drawn = drawn.replace("<svg ", f'<svg style="{defaults[1]}" ', 1)
    return inline(drawn, "f")


def _close(figure: Figure) -> None:
    """Only pyplot keeps figures alive; whoever has not imported it need not pay for it."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)

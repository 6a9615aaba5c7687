"""How close a call was: a fraction of what the bound allows, in words and as a bar.

A bar is drawn only where the bound itself gives a scale. On every bar of the page the tick is the bound, at the same
place, so that bars can be compared with one another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from reports.page.display import to_float

TICK, LENGTH = 80.0, 100.0


@dataclass(frozen=True)
class Closeness:
    """`used` is 0 far from the bound, 1 at it, more beyond it; `position` is 0 at the lower end and 1 at the upper."""

    used: float
    words: str
    position: float | None = None

    def bar(self) -> Markup:
        return _between(self.position) if self.position is not None else _allowance(self.used)


def closeness(quantity: Mapping[str, Any]) -> Closeness | None:
    """How near a quantity of results.json came to its bound; None where the bound has no scale."""
    bound, value = quantity["bound"], to_float(quantity["value"])
    limit, high, error = (to_float(bound[name]) for name in ("limit", "high", "error"))
    kind = bound["kind"]
    if kind == "equals" and 0 < error < math.inf:
        return _share(abs(value - limit), error, "error budget")
    if kind in ("at_most", "less_than") and 0 < limit < math.inf and value >= 0:
        return _share(value, limit, "allowance")
    if kind == "at_least" and limit > 0 and 0 < value < math.inf:
        return _needed(limit, value)
    if kind == "within" and math.isfinite(high - limit) and high > limit:
        return _placed(value, limit, high)
    return None


def closest(quantities: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Closeness] | None:
    """The quantity that came nearest to its bound, among those whose bound gives a scale."""
    measured = [(quantity, near) for quantity in quantities if (near := closeness(quantity)) is not None]
    return max(measured, key=lambda pair: pair[1].used) if measured else None


def _share(part: float, whole: float, noun: str) -> Closeness | None:
    used = part / whole
    if not math.isfinite(used):
        return None
    if used == 0:
        return Closeness(used, f"used none of the {noun}")
    if used == 1:
        return Closeness(used, f"used all of the {noun}")
    return Closeness(used, f"{used:.3g} times the {noun}" if used > 1 else f"used {_percent(used)} of the {noun}")


def _needed(limit: float, value: float) -> Closeness | None:
    used = limit / value
    if not math.isfinite(used):
        return None
    if used > 1:
        return Closeness(used, f"reached {_percent(value / limit)} of what is needed")
    return Closeness(used, "exactly what is needed" if used == 1 else f"needed {_percent(used)} of what was measured")


def _placed(value: float, low: float, high: float) -> Closeness | None:
    position = (value - low) / (high - low)
    if not math.isfinite(position):
        return None
    used = abs(2 * position - 1)
    if used > 1:
        side = "below the lower" if position < 0 else "above the upper"
        return Closeness(used, f"outside, {side} end", position)
    return Closeness(used, f"{_percent(position)} of the way between the ends", position)


def _percent(share: float) -> str:
    """A whole percentage, never rounded onto a bound that was not reached."""
    if 0 < share < 0.01:
        return "less than 1\N{NO-BREAK SPACE}%"
    if 0.99 < share < 1:
        return "more than 99\N{NO-BREAK SPACE}%"
    return f"{share * 100:.0f}\N{NO-BREAK SPACE}%"


def _allowance(used: float) -> Markup:
    fill = min(max(used * TICK, 1.0), LENGTH)
    side = "over" if used > 1 else "near" if used >= 0.9 else "far"
    return _svg(f'<rect class="{side}" y="3" width="{fill:.1f}" height="6"/><path class="tick" d="M{TICK:.0f} 0V12"/>')


def _between(position: float) -> Markup:
    margin = LENGTH - TICK
    at = min(max(margin + position * (TICK - margin), 3.0), LENGTH - 3.0)
    side = "far" if 0 <= position <= 1 else "over"
    ticks = f'<path class="tick" d="M{margin:.0f} 0V12M{TICK:.0f} 0V12"/>'
    return _svg(f'{ticks}<circle class="{side}" cx="{at:.1f}" cy="6" r="3.5"/>')


def _svg(inside: str) -> Markup:
    """The words beside it say the same, so the drawing is hidden from those who listen."""
    track = f'<rect class="track" y="3" width="{LENGTH:.0f}" height="6"/>'
    return Markup(f'<svg class="bar" viewBox="0 0 {LENGTH:.0f} 12" aria-hidden="true">{track}{inside}</svg>')

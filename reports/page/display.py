"""Numbers, bounds, times and names as a reader wants to see them. Everything that returns `Markup` is escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

Json = Mapping[str, Any]
MINUS = "\N{MINUS SIGN}"
THIN = "\N{NARROW NO-BREAK SPACE}"
NO_BREAK = "\N{NO-BREAK SPACE}"


def to_float(value: float | str | None) -> float:
    """A number of results.json, where infinities are strings; NaN where there is none."""
    return math.nan if value is None else float(value)


def number(value: float | str | None, exact: str = "") -> Markup:
    """A number with four significant digits; an exact rational stands before its decimal value."""
    shown = _decimal(to_float(value))
    return Markup("{}{}≈{}{}").format(exact.replace("-", MINUS), THIN, THIN, shown) if exact else shown


def _decimal(value: float) -> Markup:
    if math.isnan(value):
        return Markup("–")
    if math.isinf(value):
        return Markup("∞" if value > 0 else f"{MINUS}∞")
    if value == int(value) and abs(value) < 1e6:
        return Markup(_signed(str(int(value))))
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    power = int(exponent)
    if -4 <= power < 5:
        return Markup(_signed(f"{value:.4g}" if power < 4 else f"{value:.0f}"))
    mantissa = _signed(mantissa.rstrip("0").rstrip("."))
    return Markup(f"{mantissa}{THIN}×{THIN}10<sup>{_signed(str(power))}</sup>")


def _signed(digits: str) -> str:
    return digits.replace("-", MINUS)


def with_unit(shown: Markup, unit: str) -> Markup:
    return Markup("{}{}{}").format(shown, NO_BREAK, unit) if unit else shown


def bound(bound: Json) -> Markup:
    """A bound in signs: `≥ 0`, `= 1 ± 10⁻⁹`, `within [1, 2]`."""
    limit = number(bound["limit"])
    if bound["label"]:
        limit = Markup("{} = {}").format(bound["label"], limit)
    match bound["kind"]:
        case "at_least":
            return Markup("≥ {}").format(limit)
        case "at_most":
            return Markup("≤ {}").format(limit)
        case "less_than":
            return Markup("&lt; {}").format(limit)
        case "within":
            return Markup("within [{}, {}]").format(limit, number(bound["high"]))
        case _:
            error = "" if to_float(bound["error"]) == 0 else Markup(" ± {}").format(number(bound["error"]))
            return Markup("= {}{}").format(limit, error)


def measured(quantity: Json) -> Markup:
    """A whole quantity as a phrase: `excess loss = −0.012 nats, needed ≥ 0`."""
    value = with_unit(number(quantity["value"], quantity.get("exact", "")), quantity["unit"])
    return Markup("{} = {}, needed {}").format(quantity["name"], value, bound(quantity["bound"]))


def interval(ends: list[Any] | None) -> Markup:
    return Markup("[{}, {}]").format(number(ends[0]), number(ends[1])) if ends else Markup("")


def assignments(values: Mapping[str, str] | None) -> Markup:
    """`n = 2, d = 1`, each pair unbroken across lines where it is short."""
    pairs = [Markup('<span class="pair"><var>{}</var> = {}</span>').format(*pair) for pair in (values or {}).items()]
    return Markup(", ").join(pairs)


def duration(seconds: float) -> str:
    """`12 ms`, `0.31 s`, `4 min 5 s`, `2 h 3 min`."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f}{NO_BREAK}ms"
    if seconds < 9.95:
        return f"{seconds:.2g}{NO_BREAK}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NO_BREAK}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest}{NO_BREAK}s" if minutes < 60 else f"{minutes // 60} h {minutes % 60}{NO_BREAK}min"


def moment(stamp: str) -> str:
    """`23 November 2026, 20:30 UTC` from an ISO time; the text itself where it is none."""
    try:
        at = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    if at.tzinfo is not None:
        at = at.astimezone(UTC)
    return f"{at.day} {at:%B %Y}, {at:%H:%M}{' UTC' if at.tzinfo else ''}"


def sentence(test_name: str) -> str:
    """`test_no_head_is_lost` as `No head is lost`."""
    words = test_name.removeprefix("test_").replace("_", " ").strip()
    return words[:1].upper() + words[1:] if words else test_name


def ended(text: str) -> str:
    """A sentence with its full stop."""
    return text if text.endswith((".", "!", "?")) or not text else f"{text}."


def count(amount: int, noun: str) -> str:
    """`1 check`, `2 checks`."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def breakable(path: str) -> Markup:
    """A path or key that may break after slashes and underscores."""
    return Markup(str(escape(path)).replace("/", "/<wbr>").replace("_", "_<wbr>").replace("::", "::<wbr>"))

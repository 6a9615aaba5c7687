"""One measured quantity, the bound it had to meet, and the margin by which it did; and numbers on their way to JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

Number = int | float | Fraction
KINDS = ("at_least", "at_most", "equals", "within", "less_than")


class NotANumber(ValueError):
    """A measured value or its bound is NaN, complex or no number: it neither meets a bound nor violates it."""


@dataclass(frozen=True)
class Bound:
    """What a value must meet: `limit` (and `high` for `within`, `error` for `equals`)."""

    kind: str
    limit: Number
    high: Number | None = None
    error: Number | None = None
    label: str = ""

    def margin(self, value: Any) -> Any:
        """By how much `value` meets the bound; negative when it does not. Exact where a rational takes part."""
        limit: Any = self.limit
        high: Any = self.high
        error: Any = self.error
        if any(isinstance(one, Fraction) for one in (value, limit, high, error)):
            value, limit, high, error = (_rational(one) for one in (value, limit, high, error))
        match self.kind:
            case "at_least":
                return value - limit
            case "at_most" | "less_than":
                return limit - value
            case "within":
                return min(value - limit, high - value)
            case _:
                return error - abs(value - limit)

    def holds(self, margin: Number) -> bool:
        return margin > 0 if self.kind == "less_than" else margin >= 0

    def __str__(self) -> str:
        match self.kind:
            case "at_least":
                return f"at least {show(self.limit)}"
            case "at_most":
                return f"at most {show(self.limit)}"
            case "less_than":
                return f"less than {self.label + ' = ' if self.label else ''}{show(self.limit)}"
            case "within":
                assert self.high is not None
                return f"within [{show(self.limit)}, {show(self.high)}]"
            case _:
                assert self.error is not None
                return f"equal to {show(self.limit)} within {show(self.error)}"


@dataclass
class Quantity:
    """The closest call among all evaluations of one named quantity."""

    name: str
    value: Number
    bound: Bound
    margin: Number
    unit: str = ""
    interval: tuple[Number, Number] | None = None
    evaluations: int = 1
    held: bool = field(init=False)

    def __post_init__(self) -> None:
        self.held = self.bound.holds(self.margin)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.name} = {show(self.value)}{unit}, must be {self.bound}"

    def to_json(self) -> dict[str, Any]:
        bound = {
            "kind": self.bound.kind,
            "limit": to_json_number(self.bound.limit),
            "high": to_json_number(self.bound.high),
            "error": to_json_number(self.bound.error),
            "label": self.bound.label,
        }
        exact = {"exact": str(self.value)} if isinstance(self.value, Fraction) and self.value.denominator > 1 else {}
        return {
            "name": self.name,
            "value": to_json_number(self.value),
            **exact,
            "bound": bound,
            "margin": to_json_number(self.margin),
            "unit": self.unit,
            "interval": None if self.interval is None else [to_json_number(end) for end in self.interval],
            "evaluations": self.evaluations,
            "held": self.held,
        }


def scalars(value: Any) -> list[Number]:
    """All numbers in a scalar, array or tensor, row by row.

    Raises:
        NotANumber: one of them is NaN, complex or no number, or there is none.
    """
    if hasattr(value, "detach"):  # torch, without importing it
        value = value.detach().flatten()
    elif hasattr(value, "ravel"):
        value = value.ravel()
    if hasattr(value, "tolist"):
        value = value.tolist()
    numbers = [number(item) for item in (value if isinstance(value, list | tuple) else [value])]
    if not numbers:
        raise NotANumber("an empty array was measured: no case met the hypothesis here")
    return numbers


def number(value: Any) -> Number:
    """A Python number; rational types stay exact.

    Raises:
        NotANumber: for NaN, complex numbers and whatever `float` refuses.
    """
    if isinstance(value, Fraction):
        return value
    if isinstance(value, int):
        return int(value)
    if getattr(value, "is_Rational", False):  # sympy, without importing it
        return Fraction(int(value.p), int(value.q))
    try:
        converted = float(value)
    except (TypeError, ValueError) as error:
        raise NotANumber(f"{value!r} is no real number") from error
    if math.isnan(converted):
        raise NotANumber("a measured value or its bound is NaN")
    return converted


def to_json_number(value: Number | None) -> float | int | str | None:
    """A JSON number; infinities, and what a float cannot hold, as the strings "Infinity" and "-Infinity"."""
    if value is None or isinstance(value, int):
        return value if value is None or abs(value) < 2**53 else to_json_number(_as_float(value))
    converted = _as_float(value)
    if math.isinf(converted):
        return "Infinity" if converted > 0 else "-Infinity"
    return converted


def show(value: Number) -> str:
    """A number for a message: rationals exactly while they are short, floats with six digits."""
    if isinstance(value, Fraction | int) and len(str(value)) <= 24:
        return str(value)
    return f"{_as_float(value):.6g}"


def text(value: Any) -> str:
    """What was drawn or found, for a reader: rationals as 1/3, also inside tuples, lists and dictionaries."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text(key)}: {text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        inside = ", ".join(text(item) for item in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return str(value)


def _rational(value: Number | None) -> Any:
    """The rational that a finite float stands for; all else as it is."""
    return Fraction(value) if isinstance(value, float) and math.isfinite(value) else value


def _as_float(value: Number) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf

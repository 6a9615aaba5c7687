"""What a check measures. The `evidence` fixture of every check is an `Evidence`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from reports import statistics
from reports.quantity import KINDS, Bound, NotANumber, Number, Quantity, number, scalars, text
from reports.statistics import Inference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Evidence", "Inconclusive", "NotANumber", "Violation"]


class Violation(AssertionError):
    """The claim's own assertion does not hold. The only exception by which a control is rejected."""


class Inconclusive(Exception):
    """The data decide neither way; the message says what it would take."""


class Evidence:
    """Records what a check measures, and asserts it.

    `expect` and the statistical methods raise `Violation` when their bound is not met. For each name the closest call
    is kept. Under Hypothesis each margin becomes a target, so that the search hunts for a violation.

    Args:
        replaced: what the control puts in place of the true subject: keyword-only parameter -> broken replacement.
    """

    def __init__(self, replaced: Mapping[str, Any] | None = None) -> None:
        self.replaced = dict(replaced or {})
        self.quantities: dict[str, Quantity] = {}
        self.inferences: list[Inference] = []
        self.counterexamples: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.figures: list[dict[str, str]] = []
        self.violated: Quantity | None = None
        self.origin: dict[str, Any] | None = None
        self.smallest_case: dict[str, str] | None = None
        self._examples: int | None = None
        self._drawn: dict[str, Any] = {}
        self._targeted: dict[str, int] = {}
        self._reached = False

    # -- assertions ----------------------------------------------------------------------------------------------

    def expect(self, name: str, value: Any, *, unit: str = "", interval: Any = None, **bound: Any) -> None:
        """Record a quantity and assert its bound.

        Args:
            name: the quantity's name on the page.
            value: number, array or tensor of any shape; of an array the element with the smallest margin counts.
            unit: its unit, if it has one.
            interval: (low, high) of the value, shown beside it.
            **bound: exactly one of `at_least=b`, `at_most=b`, `less_than=b` or `less_than=(name, b)`,
                `within=(low, high)`, or `equals=b` with its budget `error=e`. Arrays are compared element by element.

        Raises:
            Violation: the bound is not met.
            NotANumber: value or bound is NaN or no real number.
            TypeError: not exactly one bound, or `equals` without `error`.
        """
        quantity = _closest(name, value, _bounds(name, bound), unit)
        if interval is not None:
            quantity.interval = (number(interval[0]), number(interval[1]))
        self._record(quantity)

    def true(self, name: str, condition: Any) -> None:
        """Record and assert a yes-or-no fact.

        Raises:
            TypeError: `condition` is not a bool, such as an array or an unevaluated symbolic relation.
        """
        if not (
            condition is True
            or condition is False
            or type(condition).__name__ in ("bool", "BooleanTrue", "BooleanFalse")
        ):
            raise TypeError(f"{name}: a fact must be True or False, not {condition!r}")
        self.expect(name, int(bool(condition)), equals=1, error=0)

    def sign_test(self, name: str, wins: int, trials: int, *, alpha: float) -> None:
        """More wins than chance among `trials` untied pairs, at level alpha (one-sided, exact)."""
        inference = statistics.sign_test(name, wins, trials, alpha)
        self._infer(inference, wins, Bound("at_least", _fewest_wins(trials, alpha)))

    def majority(self, name: str, wins: int, trials: int, *, alpha: float) -> None:
        """Wins are shown to be more frequent than losses (exact sign tests in both directions, at level alpha each).

        Raises:
            Violation: they are shown to be less frequent.
            Inconclusive: neither is shown.
        """
        inference = statistics.majority(name, wins, trials, alpha)
        self._infer(inference, wins, Bound("at_least", _fewest_wins(trials, alpha)))

    def mean_equals(self, name: str, samples: Any, expected: float, *, alpha: float) -> None:
        """Nothing speaks against this mean, at level alpha (two-sided t test). It is no proof of equality."""
        inference = statistics.mean_equals(name, samples, expected, alpha)
        assert inference.interval is not None
        half = (inference.interval[1] - inference.interval[0]) / 2
        mean = (inference.interval[0] + inference.interval[1]) / 2
        self._infer(inference, mean, Bound("equals", expected, error=half))

    def mean_within(self, name: str, samples: Any, low: float, high: float, *, alpha: float) -> None:
        """The mean is shown to lie in [low, high] (two one-sided t tests at alpha each).

        Raises:
            Inconclusive: the interval of the mean lies across one of the ends.
        """
        inference = statistics.mean_between(name, samples, low, high, alpha)
        self._infer(inference, inference.statistic, Bound("within", low, high=high))

    def mean_at_least(self, name: str, samples: Any, bound: float, *, alpha: float) -> None:
        """The mean is shown to be at least `bound` (one-sided t interval at alpha), else as `mean_within`."""
        inference = statistics.mean_between(name, samples, bound, math.inf, alpha)
        self._infer(inference, inference.statistic, Bound("at_least", bound))

    def mean_at_most(self, name: str, samples: Any, bound: float, *, alpha: float) -> None:
        """The mean is shown to be at most `bound` (one-sided t interval at alpha), else as `mean_within`."""
        inference = statistics.mean_between(name, samples, -math.inf, bound, alpha)
        self._infer(inference, inference.statistic, Bound("at_most", bound))

    def z_scores(self, name: str, z: Any, *, alpha: float) -> None:
        """All standard scores are compatible with zero: largest |z| below Bonferroni's critical value at alpha."""
        from scipy.stats import norm

        inference = statistics.z_scores(name, z, alpha)
        critical = float(norm.isf(alpha / 2 / inference.samples))
        self._infer(inference, inference.statistic, Bound("at_most", critical))

    def inconclusive(self, *, needs: str) -> NoReturn:
        """End the check undecided. `needs` says what it would take."""
        raise Inconclusive(needs)

    # -- what the reader sees ------------------------------------------------------------------------------------

    def note(self, sentence: str) -> None:
        """A sentence for the page; a repeated one is kept once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def counterexample(self, description: str, **values: Any) -> None:
        """The object that breaks a statement, with the numbers that define it."""
        self.counterexamples.append(
            {"description": description, "values": {name: text(value) for name, value in values.items()}}
        )

    def figure(self, title: str, figure: Figure, caption: str = "") -> None:
        """A matplotlib figure, kept as SVG; the figure is closed."""
        from reports.figures import to_svg

        self.figures.append({"title": title, "caption": caption, "svg": to_svg(figure)})

    def measured_in(self, environment: Mapping[str, Any], started: str) -> None:
        """The numbers were measured earlier, maybe elsewhere, and are judged now.

        Args:
            environment: as `environment.describe` gives it where they were measured.
            started: when, in ISO 8601.
        """
        self.origin = dict(environment) | {"started": started}

    # -- for the plugin ------------------------------------------------------------------------------------------

    @property
    def cases(self) -> int:
        """Hypothesis examples that reached an expectation; without Hypothesis, evaluations of the busiest quantity."""
        if self._examples is not None:
            return self._examples
        return max((quantity.evaluations for quantity in self.quantities.values()), default=0)

    def begin_example(self, drawn: dict[str, Any]) -> None:
        """Hypothesis is about to run the check on these values."""
        self._examples = self._examples or 0
        self._drawn, self._targeted, self._reached = drawn, {}, False

    def to_json(self) -> dict[str, Any]:
        return {
            "cases": self.cases,
            "quantities": [quantity.to_json() for quantity in self.quantities.values()],
            "tests": [inference.to_json() for inference in self.inferences],
            "counterexamples": self.counterexamples,
            "smallest_case": self.smallest_case,
            "notes": self.notes,
            "figures": self.figures,
        }

    # -- inside --------------------------------------------------------------------------------------------------

    def _infer(self, inference: Inference, value: Number, bound: Bound) -> None:
        """Record a test, and beside it the quantity it decides on."""
        if self._examples is not None:
            raise TypeError(f"{inference.name}: a statistical test under @given would be repeated until it fails")
        self.inferences.append(inference)
        quantity = Quantity(inference.name, value, bound, bound.margin(value), interval=inference.interval)
        quantity.held = bool(inference.held)
        if inference.held is None:
            self._keep(quantity)
            raise Inconclusive(f"{inference}: the interval lies across the bound; more samples would decide it")
        self._record(quantity)

    def _record(self, quantity: Quantity) -> None:
        if self._examples is not None:
            self._target(quantity)
        self._keep(quantity)
        if not quantity.held:
            self.violated = quantity
            self.smallest_case = {name: text(value) for name, value in self._drawn.items()} or None
            raise Violation(str(quantity))

    def _keep(self, quantity: Quantity) -> None:
        earlier = self.quantities.get(quantity.name)
        if earlier is not None:
            if earlier.bound.kind != quantity.bound.kind:
                raise TypeError(f"{quantity.name}: measured against two kinds of bound; give them two names")
            closest = min(earlier, quantity, key=lambda one: one.margin)
            self.quantities[quantity.name] = closest
            closest.evaluations = earlier.evaluations + 1
        else:
            self.quantities[quantity.name] = quantity

    def _target(self, quantity: Quantity) -> None:
        from hypothesis import target

        assert self._examples is not None
        if not self._reached:
            self._examples, self._reached = self._examples + 1, True
        try:
            score = -float(quantity.margin)
        except OverflowError:
            return
        nth = self._targeted[quantity.name] = self._targeted.get(quantity.name, 0) + 1
        if math.isfinite(score):  # Hypothesis takes one finite observation per label and example
            target(score, label=quantity.name if nth == 1 else f"{quantity.name}, {nth}")


def _bounds(name: str, given: dict[str, Any]) -> list[Bound]:
    """One bound, or one for each element of an array-valued limit."""
    error = given.pop("error", None)
    if len(given) != 1 or (kind := next(iter(given))) not in KINDS:
        raise TypeError(f"{name}: give exactly one of {', '.join(KINDS)}, not {sorted(given)}")
    if (error is not None) != (kind == "equals"):
        raise TypeError(f"{name}: `equals` needs its error budget, as error=...; the other bounds take none")
    limit = given[kind]
    if kind == "within":
        low, high = limit
        return [Bound(kind, number(low), high=number(high))]
    label = ""
    if kind == "less_than" and isinstance(limit, tuple):
        label, limit = limit
    limits = scalars(limit)
    if error is None:
        return [Bound(kind, one, label=label) for one in limits]
    errors = scalars(error)
    if min(errors) < 0:
        raise TypeError(f"{name}: an error budget cannot be negative")
    return [Bound(kind, one, error=budget) for one, budget in zip(*_stretched(name, limits, errors), strict=True)]


def _closest(name: str, value: Any, bounds: list[Bound], unit: str) -> Quantity:
    values, bounds = _stretched(name, scalars(value), bounds)
    margins = [_margin(bound, one) for one, bound in zip(values, bounds, strict=True)]
    at = min(range(len(margins)), key=margins.__getitem__)
    return Quantity(name, values[at], bounds[at], margins[at], unit)


def _margin(bound: Bound, value: Number) -> Number:
    margin: Number = bound.margin(value)
    if isinstance(margin, float) and math.isnan(margin):
        raise NotANumber(f"{value} cannot be compared with a bound that is {bound}")
    return margin


def _stretched(name: str, first: list[Any], second: list[Any]) -> tuple[list[Any], list[Any]]:
    """Two lists of one length; a single element is repeated."""
    length = max(len(first), len(second))
    if {len(first), len(second)} - {1, length}:
        raise TypeError(f"{name}: {len(first)} values against bounds for {len(second)}")
    return first * (length // len(first)), second * (length // len(second))


def _fewest_wins(trials: int, alpha: float) -> int:
    """The number of wins from which on the sign test rejects a fair coin."""
    from scipy.stats import binom

    return int(binom.isf(alpha, trials, 0.5)) + 1

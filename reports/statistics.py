"""Tests and intervals with a declared error rate, on scipy.stats.

Each returns an `Inference`: what was tested, on how many samples, the p-value, and the verdict at the declared alpha.
`held` is None where the data decide neither way: the caller must then say *inconclusive*, never *held*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reports.quantity import NotANumber, scalars, to_json_number


@dataclass(frozen=True)
class Inference:
    """Outcome of one test. `interval` is what the decision rests on where there is one."""

    name: str
    test: str
    statistic: float
    samples: int
    p: float
    alpha: float
    held: bool | None
    interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        fields = {key: value for key, value in asdict(self).items() if key != "interval"}
        return fields | {"statistic": to_json_number(self.statistic)}

    def __str__(self) -> str:
        return f"{self.name}: {self.test}, {self.samples} samples, p = {self.p:.3g}, alpha = {self.alpha:g}"


def sign_test(name: str, wins: int, trials: int, alpha: float) -> Inference:
    """Exact one-sided sign test. Holds when wins out of `trials` untied pairs are too many for a fair coin: p <= alpha.

    Raises:
        ValueError: no trials, or wins outside [0, trials].
    """
    from scipy.stats import binomtest

    _check_alpha(alpha)
    if not 0 <= wins <= trials or trials == 0:
        raise ValueError(
            f"{name}: a sign test needs 0 <= wins <= trials and at least one untied pair, not {wins}/{trials}"
        )
    p = float(binomtest(wins, trials, alternative="greater").pvalue)
    return Inference(name, "sign test, one-sided", float(wins), trials, p, alpha, p <= alpha)


def majority(name: str, wins: int, trials: int, alpha: float) -> Inference:
    """Are wins more frequent than losses? Exact sign tests in both directions, each at level alpha.

    Holds where wins out of `trials` are too many for a fair coin, fails where they are too few; else undecided.
    """
    more = sign_test(name, wins, trials, alpha)
    fewer = sign_test(name, trials - wins, trials, alpha)
    held = True if more.held else False if fewer.held else None
    return Inference(name, "sign test, in both directions", float(wins), trials, min(more.p, fewer.p), alpha, held)


def mean_equals(name: str, samples: Any, expected: float, alpha: float) -> Inference:
    """Two-sided t test of the mean. Holds unless p < alpha: it shows that nothing speaks against `expected`."""
    from scipy.stats import t

    mean, error, count = _mean_and_error(name, samples, alpha)
    statistic = (mean - expected) / error
    p = float(2 * t.sf(abs(statistic), count - 1))
    half = float(t.isf(alpha / 2, count - 1)) * error
    return Inference(name, "t test, two-sided", statistic, count, p, alpha, p >= alpha, (mean - half, mean + half))


def mean_between(name: str, samples: Any, low: float, high: float, alpha: float) -> Inference:
    """Is the mean inside [low, high]? Two one-sided t tests, so equivalence is shown and not merely not refuted.

    Holds when the 1 - 2 alpha interval of the mean lies inside; fails when it lies outside; else undecided.
    An infinite end makes it one-sided.
    """
    from scipy.stats import t

    mean, error, count = _mean_and_error(name, samples, alpha)
    half = float(t.isf(alpha, count - 1)) * error
    interval = (mean - half, mean + half)
    p = max(float(t.sf((mean - low) / error, count - 1)), float(t.sf((high - mean) / error, count - 1)))
    held: bool | None = None
    if low <= interval[0] and interval[1] <= high:
        held = True
    elif interval[1] < low or high < interval[0]:
        held = False
    kind = "t interval, one-sided" if math.isinf(low) or math.isinf(high) else "two one-sided t tests"
    return Inference(name, kind, mean, count, p, alpha, held, interval)


def z_scores(name: str, z: Any, alpha: float) -> Inference:
    """Are all these standard scores compatible with zero? Largest |z| against Bonferroni's critical value."""
    from scipy.stats import norm

    _check_alpha(alpha)
    scores = [abs(float(score)) for score in scalars(z)]
    p = min(1.0, len(scores) * float(2 * norm.sf(max(scores))))
    return Inference(name, "largest |z|, Bonferroni", max(scores), len(scores), p, alpha, p >= alpha)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie in (0, 0.5), not {alpha}")


def _mean_and_error(name: str, samples: Any, alpha: float) -> tuple[float, float, int]:
    """Mean, standard error and count.

    Raises:
        ValueError: fewer than two samples, or samples without spread, from which no error can be estimated.
        NotANumber: a sample is not finite.
    """
    _check_alpha(alpha)
    values: Sequence[float] = [float(value) for value in scalars(samples)]
    if any(math.isinf(value) for value in values):
        raise NotANumber(f"{name}: a sample is infinite")
    if len(values) < 2:
        raise ValueError(f"{name}: a mean with an error needs at least two samples, not {len(values)}")
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    if variance == 0:
        raise ValueError(
            f"{name}: all {len(values)} samples equal {mean}: no error can be estimated; use expect instead"
        )
    return mean, math.sqrt(variance / len(values)), len(values)

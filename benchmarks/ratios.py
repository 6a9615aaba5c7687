"""Rounds of a timing, and the ratio of two with its interval; numpy alone, so that records are read anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timed:
    """Milliseconds of each round."""

    rounds: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.rounds))

    @property
    def spread(self) -> tuple[float, float]:
        """20 and 80 per cent."""
        low, high = np.quantile(self.rounds, (0.2, 0.8))
        return float(low), float(high)


@dataclass(frozen=True)
class Ratio:
    """Median over rounds of one time over another, with a 99 % bootstrap interval."""

    median: float
    low: float
    high: float


def ratio(numerator: Timed, denominator: Timed, seed: int = 0) -> Ratio:
    """Time over time, round by round."""
    each = numerator.rounds / denominator.rounds
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(each, size=(2000, len(each))), axis=1)
    low, high = np.quantile(medians, (0.005, 0.995))
    return Ratio(float(np.median(each)), float(low), float(high))

"""Randomness that depends on named axes and on nothing else."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def seed_for(*axes: object) -> int:
    """A 63-bit seed from a hash of the axes, each length-prefixed, so that ("ab", "c") and ("a", "bc") differ."""
    digest = hashlib.sha256()
    for axis in axes:
        text = f"{type(axis).__name__}:{axis!r}".encode()
        digest.update(len(text).to_bytes(8, "big") + text)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


class Randomness:
    """The `rng` fixture: a pure function from axes to generators, within one suite seed and one claim.

    It keeps no state, so the order of calls, a retry, or Hypothesis replaying an example changes nothing.
    """

    def __init__(self, suite_seed: int, claim: str) -> None:
        self._axes = (suite_seed, claim)

    def __call__(self, *axes: str | int | float) -> np.random.Generator:
        """A numpy generator for these axes, such as `rng("training", seed)`.

        Raises:
            TypeError: without an axis, or with one whose text is not its value (an array, say).
        """
        import numpy as np

        return np.random.default_rng(self.seed(*axes))

    def seed(self, *axes: str | int | float) -> int:
        """The seed itself, for torch and others."""
        if not axes or not all(isinstance(axis, str | int | float) for axis in axes):
            raise TypeError(f"rng takes one or more names or numbers, such as rng('training', 3), not {axes!r}")
        return seed_for(*self._axes, *axes)

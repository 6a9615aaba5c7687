"""`--paper`, `--claim`, `--level`: which checks a run is about. An unknown key is an error that suggests near names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from reports.catalogue import unknown
from reports.claim import LEVELS, Check, Claim

MISTAKE = pytest.StashKey[str | None]()


@dataclass(frozen=True)
class Selection:
    """Chosen papers, claims and levels; an empty tuple chooses all. `checkpoint`: only what is claimed of one."""

    papers: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    checkpoint: bool = False

    @classmethod
    def from_options(cls, config: pytest.Config) -> Selection:
        papers, claims, levels = (tuple(config.getoption(option)) for option in ("--paper", "--claim", "--level"))
        return cls(papers, claims, levels, config.getoption("--checkpoint") is not None)

    def __bool__(self) -> bool:
        return bool(self.papers or self.claims or self.levels or self.checkpoint)

    def includes(self, check: Check) -> bool:
        claim = check.claim
        return (
            (not self.papers or claim.paper in self.papers)
            and (not self.claims or claim.key in self.claims or claim.slug in self.claims)
            and (not self.levels or check.level in self.levels)
            and (not self.checkpoint or check.checkpoint)
        )

    def mistake(self, claims: Sequence[Claim]) -> str | None:
        """A message that names an unknown key and the known ones nearest to it; None if all are known."""
        known = (
            ("paper", self.papers, [claim.paper for claim in claims]),
            ("claim", self.claims, [key for claim in claims for key in (claim.key, claim.slug)]),
            ("level", self.levels, list(LEVELS)),
        )
        return next((unknown(kind, key, keys) for kind, given, keys in known for key in given if key not in keys), None)

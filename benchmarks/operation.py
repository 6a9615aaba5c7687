"""What a bench file declares: one operation, its reference, its fast version, and what it is measured against.

Each bench file (`benchmarks/flash_sigmoid.py`) has one `Bench` named BENCH. All functions take one case's inputs, a
dictionary of tensors and numbers that `make` returns, and give a dictionary of output tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Generator, Tensor

Inputs = dict[str, Any]
Outputs = dict[str, Tensor]
Function = Callable[[Inputs], Outputs]


@dataclass(frozen=True)
class Cost:
    """Of one call: floating-point operations, and the fewest bytes that must move through device memory."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Case:
    """A shape; its label is derived from what it holds, so that the two cannot differ."""

    @property
    def label(self) -> str:
        """Fields as name=value, those that are off left out."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        return " ".join(
            name if value is True else f"{name}={value}" for name, value in shown.items() if value not in (False, None)
        )


@dataclass(frozen=True)
class Bench:
    """One operation.

    name       as on the command line
    make       (case, generator) to inputs, random and never zeros, on the generator's device
    reference  in float64, or float32 where memory asks for it
    plain      the reference's formula in the inputs' dtype: the yardstick of errors, and the slowest baseline
    fast       the kernel
    cases      for the gate: small, at and around the borders of blocks
    speed      for the clock
    cost       of a case
    baselines  what the kernel is timed against, pinned by name; a baseline may raise `Unsupported` for a case
    controls   broken versions of fast, which the gate must refuse in at least one case each
    axis       the field of a case that plots and claims call its length
    executed   (case, inputs) to the floating-point operations that fast does where it leaves work out, else None: cost
               is then of the dense operation, so that times compare, and this says what the hardware was asked to do
    """

    name: str
    make: Callable[[Any, Generator], Inputs]
    reference: Function
    plain: Function
    fast: Function
    cases: Sequence[Case]
    speed: Sequence[Case]
    cost: Callable[[Any], Cost]
    baselines: Mapping[str, Function]
    controls: Mapping[str, Function]
    axis: str = "queries"
    executed: Callable[[Any, Inputs], float] | None = None


class Unsupported(Exception):
    """A baseline does not have this case; the message says why."""

"""The correctness gate: no number is printed for an operation that has not passed it in the same process.

In every case and for every output the fast version's error against the reference is at most twice the plain version's,
plus what rounding the reference to the output's dtype costs. Uninitialised memory is poisoned with NaN, so that what a
kernel does not write shows; two runs agree bitwise; every control is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks.operation import Bench, Case, Function, Inputs, Outputs


@dataclass(frozen=True)
class Judged:
    """One output of one case: largest absolute errors against the reference, and the budget of the fast version's."""

    case: str
    output: str
    fast: float
    plain: float
    budget: float
    bitwise: bool

    @property
    def passed(self) -> bool:
        """NaN does not pass."""
        return self.bitwise and self.fast <= self.budget


@dataclass(frozen=True)
class Gate:
    """The outcome: `refused` says for each control in how many cases it was refused."""

    judged: list[Judged]
    refused: dict[str, int]

    @property
    def passed(self) -> bool:
        return bool(self.judged) and all(one.passed for one in self.judged) and all(self.refused.values())

    @property
    def failures(self) -> list[str]:
        """What is wrong, a line each."""
        lines = [
            f"{one.case}: {one.output} errs by {one.fast:.3g}, allowed {one.budget:.3g}"
            if one.bitwise
            else f"{one.case}: {one.output} differs between two runs"
            for one in self.judged
            if not one.passed
        ]
        return lines + [f"control '{name}' passed in every case" for name, count in self.refused.items() if not count]


def gate(bench: Bench, *, device: torch.device, seed: int = 0) -> Gate:
    """Judge the fast version and the controls in all cases of a bench."""
    judged: list[Judged] = []
    refused = dict.fromkeys(bench.controls, 0)
    for number, case in enumerate(bench.cases):
        inputs = bench.make(case, Generator(device).manual_seed(seed + number))
        expected, plain = bench.reference(inputs), bench.plain(inputs)
        judged += judge(case, bench.fast, inputs, expected, plain)
        for name, control in bench.controls.items():
            refused[name] += not all(one.passed for one in judge(case, control, inputs, expected, plain))
    return Gate(judged, refused)


def judge(case: Case, function: Function, inputs: Inputs, expected: Outputs, plain: Outputs) -> list[Judged]:
    """Errors of one version in one case.

    Raises:
        ValueError: it does not return the reference's outputs, or in another shape or dtype than plain's.
    """
    with poisoned():
        first, second = function(inputs), function(inputs)
    if first.keys() != expected.keys():
        raise ValueError(f"{case.label}: outputs {sorted(first)} instead of {sorted(expected)}")
    found = []
    for name, true in expected.items():
        got, again = first[name], second[name]
        if got.shape != plain[name].shape or got.dtype != plain[name].dtype:
            raise ValueError(f"{case.label}: {name} is {got.dtype} {tuple(got.shape)}, not as in plain code")
        rounding = largest(true.to(got.dtype), true)
        usual = largest(plain[name], true)
        bitwise = torch.equal(bits(got), bits(again))
        found.append(Judged(case.label, name, largest(got, true), usual, 2 * usual + rounding, bitwise))
    return found


def largest(x: Tensor, true: Tensor) -> float:
    """Largest |x - true|, NaN where x has one; 0 for an empty tensor."""
    return float((x.to(true.dtype) - true).abs().max()) if x.numel() else 0.0


def bits(x: Tensor) -> Tensor:
    """x as integers, so that NaN equals NaN and 0 differs from -0."""
    return x.contiguous().view({8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}[x.element_size()])


EMPTY = ("empty", "empty_like", "empty_strided")


@contextmanager
def poisoned() -> Iterator[None]:
    """Within it, new uninitialised floating-point tensors of torch are full of NaN."""

    def filled(make: Callable[..., Any]) -> Callable[..., Any]:
        def poison(*arguments: Any, **options: Any) -> Any:
            made = make(*arguments, **options)
            return made.fill_(torch.nan) if made.is_floating_point() else made

        return poison

    kept = {name: getattr(torch, name) for name in EMPTY}
    for name, make in kept.items():
        setattr(torch, name, filled(make))
    try:
        yield
    finally:
        for name, make in kept.items():
            setattr(torch, name, make)

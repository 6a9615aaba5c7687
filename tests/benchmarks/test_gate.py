"""The gate and the clock, on an operation made for the purpose: a sum of two vectors."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from benchmarks.gate import gate, poisoned  # noqa: E402
from benchmarks.operation import Bench, Case, Cost  # noqa: E402
from benchmarks.ratios import Timed, ratio  # noqa: E402

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Length(Case):
    n: int
    wide: bool = False
    of: str | None = None


def make(case, generator):
    return {name: torch.randn(case.n, generator=generator).half() for name in ("x", "y")}


def plain(inputs):
    return {"sum": inputs["x"] + inputs["y"]}


def written(inputs, count=None):
    """The sum in a buffer of its own, of which `count` elements are written."""
    out = torch.empty_like(inputs["x"])
    out[:count] = (inputs["x"] + inputs["y"])[:count]
    return {"sum": out}


BENCH = Bench(
    name="sum",
    make=make,
    reference=lambda inputs: {"sum": inputs["x"].double() + inputs["y"].double()},
    plain=plain,
    fast=written,
    cases=[Length(1), Length(130)],
    speed=[],
    cost=lambda case: Cost(case.n, 6 * case.n),
    baselines={},
    controls={"difference": lambda inputs: {"sum": inputs["x"] - inputs["y"]}},
)


def test_a_correct_version_passes_and_the_control_is_refused_in_both_cases():
    judged = gate(BENCH, device=CPU)
    assert judged.passed
    assert judged.refused == {"difference": 2}
    assert [one.case for one in judged.judged] == ["n=1", "n=130"]


def test_the_budget_is_twice_the_plain_error_and_the_rounding():
    one = gate(BENCH, device=CPU).judged[1]
    assert one.plain <= one.budget / 3 * 1.0001 <= one.budget


def test_what_was_not_written_is_seen():
    judged = gate(replace(BENCH, fast=lambda inputs: written(inputs, -1)), device=CPU)
    assert not judged.passed
    assert "errs by nan" in judged.failures[0]


def test_memory_is_poisoned_within_and_restored_after():
    make = torch.empty_like
    with poisoned():
        assert torch.empty_like(torch.ones(3)).isnan().all()
        assert torch.empty(2, 2).isnan().all()
        assert torch.empty(3, dtype=torch.int32).shape == (3,)
    assert torch.empty_like is make


def test_two_runs_that_differ_are_seen():
    calls = []

    def unsteady(inputs):
        calls.append(0)
        return {"sum": inputs["x"] + inputs["y"] + (len(calls) % 2) * 2.0**-24}

    small = replace(BENCH, make=lambda case, generator: {"x": torch.zeros(4), "y": torch.zeros(4)}, fast=unsteady)
    assert "differs between two runs" in gate(small, device=CPU).failures[0]


def test_a_control_that_passes_everywhere_fails_the_gate():
    judged = gate(replace(BENCH, controls={"the same": plain}), device=CPU)
    assert not judged.passed
    assert judged.failures == ["control 'the same' passed in every case"]


def test_no_case_is_no_pass():
    assert not gate(replace(BENCH, cases=[], controls={}), device=CPU).passed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda inputs: {"total": inputs["x"]}, "instead of"),
        (lambda inputs: {"sum": (inputs["x"] + inputs["y"]).float()}, "not as in plain code"),
        (lambda inputs: {"sum": (inputs["x"] + inputs["y"])[:0]}, "not as in plain code"),
    ],
    ids=["name", "dtype", "shape"],
)
def test_outputs_of_another_name_dtype_or_shape_are_an_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        gate(replace(BENCH, fast=wrong), device=CPU)


def test_labels_say_what_differs_from_off():
    assert Length(3).label == "n=3"
    assert Length(3, wide=True, of="x").label == "n=3 wide of=x"


def test_a_drift_of_the_clock_cancels_in_the_ratio():
    drift = np.linspace(1, 3, 60)
    found = ratio(Timed(2 * drift), Timed(drift))
    assert (found.median, found.low, found.high) == (2, 2, 2)


def test_the_interval_of_a_noisy_ratio_covers_it():
    rng = np.random.default_rng(0)
    noisy = ratio(Timed(rng.lognormal(0, 0.1, 200)), Timed(rng.lognormal(0, 0.1, 200)))
    assert noisy.low < 1 < noisy.high < 1.1

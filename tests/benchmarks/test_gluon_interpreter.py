"""The interpreter for Gluon: it finds what is missing from a kernel that is right. The kernel is FlashSigmoid's."""

import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

from benchmarks.gluon_interpreter import Hopper, interpreted  # noqa: E402
from benchmarks.gluon_machine import Barrier, Deadlock, Descriptor, Unfenced  # noqa: E402
from benchmarks.kernels import flash_sigmoid_hopper as hopper  # noqa: E402
from benchmarks.kernels.flash_sigmoid import reference  # noqa: E402


def error(seed=0, length=300, processors=3, causal=True):
    """Of the kernel in the interpreter against plain code in float64, relative."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, length, 32, generator=generator).bfloat16() for _ in range(3))
    biases = torch.full((2,), -math.log(length))
    with interpreted(hopper, seed=seed, processors=processors):
        found = hopper.forward(q, k, v, biases, None, causal, 0.2)
    true = reference(q.double(), k.double(), v.double(), biases, None, causal, 0.2)
    return float((found.double() - true).norm() / true.norm())


@pytest.mark.parametrize("seed", range(4))
def test_a_right_kernel_is_right_in_any_order(seed):
    assert error(seed) < 0.01
    assert error(seed, length=1100, processors=1) < 0.01


def test_the_module_is_as_before_afterwards():
    before = dict(vars(hopper))
    with interpreted(hopper):
        assert hopper._forward is not before["_forward"]
    assert dict(vars(hopper)) == before


def test_a_block_that_is_never_given_back_is_a_deadlock_with_its_reasons(monkeypatch):
    monkeypatch.setattr(hopper, "_pass_on", lambda first, end, shared, settings: None)
    with pytest.raises(Deadlock, match=r"phase . of a barrier that misses [1-4]"):
        error(length=1100)


def test_products_that_do_not_wait_for_their_operands_are_wrong(monkeypatch):
    monkeypatch.setattr(hopper, "await_use", lambda barriers, n, stages: None)
    # One tile of one block: each place of the ring is used once, so that no barrier has too many arrivals.
    found = error(length=60, processors=1, causal=False)
    assert math.isnan(found) or found > 0.1


def test_copies_that_do_not_wait_for_their_readers_are_wrong(monkeypatch):
    wait = Hopper.wait
    # The barriers that more than one arrival ends are those by which all warpgroups give a place of the ring back.
    monkeypatch.setattr(
        Hopper, "wait", lambda self, one, phase, pred=True: wait(self, one, phase, pred) if one.count == 1 else None
    )
    with pytest.raises(RuntimeError, match="more arrivals"):
        error(length=1100)


def test_a_missing_fence_is_named(monkeypatch):
    monkeypatch.setattr("benchmarks.gluon_interpreter.Hopper.fence_async_shared", lambda self: None)
    with pytest.raises(Unfenced, match="before fence_async_shared"):
        error()


def test_a_barrier_ends_its_phase_with_the_last_arrival_and_the_last_byte():
    barrier = Barrier(count=2, missing=2)
    barrier.bytes += 8
    barrier.arrive(2)
    assert barrier.phase == 0
    barrier.land(8)
    assert (barrier.phase, barrier.missing) == (1, 2)
    with pytest.raises(RuntimeError, match="more arrivals"):
        barrier.arrive(3)


def test_a_descriptor_cuts_blocks_at_the_borders_of_the_tensor():
    whole = Descriptor(torch.zeros(3, 10), (1, 4))
    assert whole.cut([1, 8]) == ((slice(1, 2), slice(8, 10)), (slice(0, 1), slice(0, 2)))
    assert whole.cut([1, 12])[0][1] == slice(12, 12)
    assert whole.block_type.nbytes == 16

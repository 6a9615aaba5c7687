"""PyTorch's softmax attention as a baseline: forward, backward with a graph that is kept, and inputs in float64."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from torch.nn.attention import SDPBackend  # noqa: E402

from benchmarks import sdpa  # noqa: E402

MATH = SDPBackend.MATH
"""The one that a CPU has as well."""


def draw():
    generator = torch.Generator().manual_seed(0)
    heads = {"q": 4, "k": 2, "v": 2}
    return {name: torch.randn(1, count, 9, 16, generator=generator) for name, count in heads.items()}


def test_key_heads_may_be_fewer_than_query_heads():
    inputs = draw()
    wide = [inputs[name].repeat_interleave(4 // inputs[name].shape[1], dim=1) for name in "qkv"]
    found = sdpa.attention(*inputs.values(), MATH, is_causal=True)
    torch.testing.assert_close(found, sdpa.attention(*wide, MATH, is_causal=True))


def test_the_backward_pass_makes_its_graph_once():
    inputs, gradient = draw(), torch.ones(1, 4, 9, 16)
    first = sdpa.backward(inputs, gradient, MATH, scale=0.5)
    graph = inputs[f"graph of {MATH}"]
    second = sdpa.backward(inputs, gradient, MATH, scale=0.5)
    assert inputs[f"graph of {MATH}"] is graph
    leaves = [inputs[name].requires_grad_() for name in "qkv"]
    true = torch.autograd.grad(sdpa.attention(*leaves, MATH, scale=0.5), leaves, gradient)
    for name, one in zip(("dq", "dk", "dv"), true, strict=True):
        assert torch.equal(first[name], one)
        assert torch.equal(second[name], one)


def test_a_reference_has_numbers_in_float64_and_leaves_the_rest():
    given = {"q": torch.ones(2), "bias": torch.ones(2), "lengths": torch.ones(2, dtype=torch.int32), "causal": True}
    wide = sdpa.in_float64(given, but=("bias",))
    assert [wide[name].dtype for name in ("q", "bias", "lengths")] == [torch.float64, torch.float32, torch.int32]
    assert wide["causal"] is True

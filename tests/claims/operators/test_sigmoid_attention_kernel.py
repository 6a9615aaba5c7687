"""FlashSigmoid computes sigmoid attention exactly (Ramapuram et al., 2024, section 4 and appendix F).

What the paper says. Sigmoid attention can be computed a block of keys at a time, forward and backward, with neither a
row maximum nor a row sum, and what the blocks give adds up to the exact result; the sigmoid is taken through tanh.

Notation. P is the matrix of weights, O the output, dO its gradient; b = -ln m.

Scope. The algorithm in float64. The kernel itself is judged by its own gate, its speed on a GPU.
"""

import math

import numpy as np
import pytest
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators import positions, sigmoid_tiles
from theory.operators.attention import sigmoid, softmax

PAPER = "ramapuram2024theory"
EPS = np.finfo(float).eps

exact = Claim(
    paper=PAPER,
    slug="blocks-add-up",
    where="Section 4, appendix F",
    says="Forward and backward passes that take keys a block at a time, in any order, without row maxima, row sums or "
    "a row term in the gradient, give exactly sigmoid attention and its gradients.",
    formula=r"dS = P \circ (1 - P) \circ (dO\, V^\top)",
    gap="In float64; rounding in bfloat16 is the kernel's own affair.",
)


def with_row_term(q, k, v, do, blocks, weights, **masks):
    """Softmax's -rowsum(dO O) left in: wrong in dQ and dK."""
    dq, dk, dv = sigmoid_tiles.backward(q, k, v, do, blocks, weights, **masks)
    delta = (do * sigmoid_tiles.forward(q, k, v, blocks, weights, **masks)).sum(-1, keepdims=True)
    extra = sigmoid_tiles.backward(
        q, k, np.ones_like(v) / v.shape[1], delta * np.ones_like(do), blocks, weights, **masks
    )
    return dq - extra[0], dk - extra[1], dv


def last_block_dropped(q, k, v, blocks, weights, **masks):
    return sigmoid_tiles.forward(q, k, v, blocks[:-1], weights, **masks)


def half_forgotten(offset):
    """tanh of the score in place of half the score."""
    return lambda q, k, bias=0.0, **masks: sigmoid(2 * q, k, offset=2 * offset, bias=2 * bias, **masks)


def softmax_of_a_block(offset):
    return lambda q, k, **masks: softmax(q, k, **masks)


def draw(seed, n, d, alibi):
    rng = np.random.default_rng(seed)
    q, k, v, do = rng.standard_normal((4, n, d))
    return q, k, v, do, {"mask": positions.causal(n), "bias": positions.alibi(n, 8)[4] if alibi else np.zeros((n, n))}


def blocks_of(n, size, seed):
    """Slices of at most `size` keys, in random order."""
    blocks = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    np.random.default_rng(seed).shuffle(blocks)
    return blocks


@exact.check(
    "exact",
    controls={
        "last block dropped": {"forward": last_block_dropped},
        "half of the score forgotten": {"weights": half_forgotten},
        "softmax of each block": {"weights": softmax_of_a_block},
        "softmax's row term": {"backward": with_row_term},
    },
)
@given(
    n=st.integers(2, 70), d=st.integers(2, 24), size=st.integers(1, 40), alibi=st.booleans(), seed=st.integers(0, 2**32)
)
def test_blocks_give_the_output_and_the_gradients(
    evidence, n, d, size, alibi, seed,
    *, forward=sigmoid_tiles.forward, backward=sigmoid_tiles.backward, weights=sigmoid_tiles.with_offset,
):  # fmt: skip
    """Against whole matrices; gradients against PyTorch's, of the same operator."""
    q, k, v, do, masks = draw(seed, n, d, alibi)
    blocks, operator = blocks_of(n, size, seed), weights(-math.log(n))
    output, gradients = whole(q, k, v, do, **masks)
    found = [forward(q, k, v, blocks, operator, **masks), *backward(q, k, v, do, blocks, operator, **masks)]
    for name, one, true in zip(("O", "dQ", "dK", "dV"), found, (output, *gradients), strict=True):
        # Sums of n products of sums of d: each rounds by n + d ulps of what it would be without cancellation.
        size_of = max(1.0, abs(q).max(), abs(k).max()) * abs(v).max() * max(1.0, abs(do).max()) * d * n
        evidence.expect(f"{name}, difference", abs(one - true).max(), at_most=(n + d) * EPS * size_of)


def whole(q, k, v, do, **masks):
    """The output with whole matrices, and PyTorch's gradients, float64."""
    torch = pytest.importorskip("torch", reason="needs torch for the gradients")
    leaves = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
    given = {name: torch.from_numpy(matrix) for name, matrix in masks.items()}
    output = sigmoid(*leaves[:2], **given) @ leaves[2]
    gradients = torch.autograd.grad(output, leaves, torch.from_numpy(do))
    return output.detach().numpy(), [gradient.numpy() for gradient in gradients]

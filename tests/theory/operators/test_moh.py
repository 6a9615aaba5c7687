"""Mixture-of-head attention: gates, heads, printed times."""

import numpy as np
import pytest

from theory.operators.attention import softmax
from theory.operators.moh import gated_heads, gates, speedup


def logits(seed=0, tokens=50):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((tokens, 2)), rng.standard_normal((tokens, 4)), rng.standard_normal((tokens, 2))


def test_shared_heads_and_the_best_routed_ones_are_on():
    shared, routed, kinds = logits()
    g = gates(shared, routed, kinds, 2)
    assert ((g > 0).sum(-1) == 4).all()
    assert (g[:, :2] > 0).all()
    assert (np.argsort(-g[:, 2:], axis=-1)[:, :2] == np.argsort(-routed, axis=-1)[:, :2]).all()


def test_printed_gates_sum_to_less_than_one_and_to_one_with_every_head():
    shared, routed, kinds = logits()
    assert (gates(shared, routed, kinds, 2).sum(-1) < 1).all()
    np.testing.assert_allclose(gates(shared, routed, kinds, 4).sum(-1), 1)


def test_released_gates_are_one_for_routers_of_zeros():
    nothing = [np.zeros((3, size)) for size in (2, 4, 2)]
    np.testing.assert_allclose(gates(*nothing, 2, released=True), [[1, 1, 1, 1, 0, 0]] * 3)
    assert (gates(*nothing, 0, released=True)[:, 2:] == 0).all()


def test_the_sum_over_heads_is_the_product_with_all_of_the_output_matrix():
    rng = np.random.default_rng(1)
    q, k, v = rng.standard_normal((3, 6, 50, 8))
    W_O, g = rng.standard_normal((48, 10)), gates(*logits(), 2)
    blocks = W_O.reshape(6, 8, 10)
    expected = sum(g[:, [i]] * (softmax(q[i], k[i]) @ v[i] @ blocks[i]) for i in range(6))
    np.testing.assert_allclose(gated_heads(q, k, v, g) @ W_O, expected)


@pytest.mark.parametrize(("tokens", "share", "printed"), [(256, 50, 1.6), (512, 75, 1.166), (512, 100, 1)])
def test_speedups_are_those_of_the_table(tokens, share, printed):
    assert float(speedup(tokens, share)) == pytest.approx(printed, abs=5e-4)

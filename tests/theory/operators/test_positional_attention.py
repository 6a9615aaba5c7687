"""The positional Transformer and its compilers against plain programs and finite differences."""

import numpy as np
import pytest

from theory.operators import wired_programs
from theory.operators.attention import softmax
from theory.operators.positional_attention import (
    Layer,
    amplifier,
    attention_jacobian,
    attention_matrices,
    forward,
    leakage,
    leakage_bound,
    look_up,
    lookup_error,
    lookup_floor,
    massart,
    pointing,
    positional_jacobian_norm,
    rademacher,
    relu_network,
    rowwise_norm,
    standard_forward,
)
from theory.operators.positional_programs import (
    Round,
    after,
    beside,
    compiled,
    completed,
    gate_network,
    minimum_and_sum,
    read,
    run,
    schedule_bits,
    tokens,
    unchanged,
    wired,
)


@pytest.fixture
def draw():
    return np.random.default_rng(11)


def test_pointing_heads_leave_the_stated_weight(draw):
    targets = draw.integers(5, size=(2, 5))
    layer = Layer(*pointing(targets, 3.0), np.zeros((2, 1, 1)), [])
    A = attention_matrices(layer, np.eye(5))
    assert layer.heads == 2
    assert np.take_along_axis(A, targets[..., None], -1) == pytest.approx(1 - leakage(5, 3.0))


def test_errors_of_layers_add_up_and_are_multiplied_by_slopes():
    lost = 2 * leakage(4, 1.0)
    assert leakage_bound(4, 1.0, [1.0, 3.0], [2.0, 5.0]) == pytest.approx(5 * (2 * lost + 3 * lost))


def test_forward_shares_its_weights_over_a_batch(draw):
    layers = compiled(3, 1, 1, minimum_and_sum(1), 2.0)
    x = draw.uniform(-1, 1, (4, 4, layers[0].values.shape[1]))
    together = forward(layers, np.eye(4), x)
    assert together == pytest.approx(np.stack([forward(layers, np.eye(4), one) for one in x]))


def test_the_jacobian_of_attention_agrees_with_differences(draw):
    x, W, step = draw.standard_normal((4, 3)), draw.standard_normal((3, 3)), 1e-6

    def f(v):
        return (softmax(v @ W, v, scale=1.0) @ v).ravel()

    basis = np.eye(12).reshape(12, 4, 3)
    differences = np.stack([(f(x + step * e) - f(x - step * e)) / (2 * step) for e in basis], axis=1)
    assert attention_jacobian(x, W) == pytest.approx(differences, abs=1e-8)


def test_norms_are_those_of_the_kronecker_product(draw):
    A, W = draw.dirichlet(np.ones(3), size=3), draw.standard_normal((2, 2))
    assert positional_jacobian_norm(A, W) == pytest.approx(np.linalg.norm(np.kron(A, W.T), 2))
    assert rowwise_norm(np.array([[3.0, 4.0], [0.0, 1.0]])) == 5


def test_the_amplifier_has_its_slope():
    def value(v):
        return standard_forward([amplifier(2.0)] * 2, np.array([[v, 0, 1], [1, 1, 1], [-1, 1, 1.0]]))[0, 0]

    assert (value(1e-6) - value(-1e-6)) / 2e-6 == pytest.approx((5 / 3) ** 2)


def test_the_lookup_floor_counts_unknown_tokens(draw):
    assert lookup_floor(8, 2) == 5 / 8
    assert lookup_floor(3, 4) == 0
    assert lookup_error(draw.dirichlet(np.ones(6), size=(2, 6))) == pytest.approx(3 / 6)
    assert lookup_error(np.eye(4)[None]) == pytest.approx(3 / 4)  # a head that reads the node itself adds nothing


def test_lookups_follow_pointers_by_hand():
    layers = look_up(3, 1, 9.0)
    tokens = np.array([[5.0, 2, 0, 0], [-7, 1, 1, 0], [9, 0, 2, 0]])
    assert [layer.heads for layer in layers] == [1, 1]
    assert forward(layers, np.eye(3), tokens)[:, 3].tolist() == [9, -7, 5]
    assert len(look_up(3, 2, 9.0)) == 1


def test_rademacher_complexity_of_two_samples_by_hand():
    x = np.array([[1.0, 0.0], [1.0, 0.0]])  # token 0 wins when the signs' sum is positive
    assert rademacher(x) == pytest.approx((2 + 0 + 0 + 0) / 4 / 2)
    assert massart(x) == pytest.approx(np.sqrt(2) * np.sqrt(2 * np.log(2)) / 2)


def test_gates_multiply_by_bits_to_the_last_place():
    network = gate_network(1, [(0, 0, 1)], 2, 1.0)
    for value in (-1.0, -0.1, 0.3, 1.0):
        assert relu_network(network, np.array([value, 1.0])) == pytest.approx(value, abs=2e-16)
        assert relu_network(network, np.array([value, 0.0])) == 0


def test_networks_are_put_beside_and_after_each_other(draw):
    x = draw.uniform(0, 1, 4)
    both = beside(minimum_and_sum(2), unchanged(2, 2))
    assert relu_network(both, x) == pytest.approx([min(x[0], x[1]), (x[0] + x[1]) / 2, x[2], x[3]])
    chained = after(minimum_and_sum(2), read([2, 0], 4))
    assert relu_network(chained, x) == pytest.approx([min(x[2], x[0]), (x[2] + x[0]) / 2])


def test_partial_permutations_are_completed():
    whole = completed(np.array([[2, -1, -1], [0, 1, 2]]))
    assert whole[0, 0] == 2
    assert sorted(whole[0]) == [0, 1, 2]
    assert whole[1].tolist() == [0, 1, 2]


def test_a_protocol_moves_orders_and_computes():
    words = np.array([[1.0, 2.0], [3.0, 4.0]])
    swap = Round(np.array([[1, 0], [0, -1]]), np.array([[1, 0], [0, 1]]))
    # Slot 0 is exchanged, slot 1 stays at machine 0 and is silent at machine 1; machine 0 then swaps its words.
    identity = [(np.eye(2), np.zeros(2))]
    assert run([swap], identity, words).tolist() == [[2, 3], [1, 0]]


def test_compiled_weights_agree_with_the_protocol(draw):
    rounds = [Round(np.array([[2, 0, 1], [1, -1, 0]]), np.array([[0, 1], [1, 0], [0, 1]]))] * 2
    words, local = draw.uniform(-1, 1, (3, 2)), minimum_and_sum(2)
    layers = compiled(3, 2, 2, local, 2.0)
    found = forward(layers, np.eye(4), tokens(words, schedule_bits(rounds)))[:3, :2]
    assert found == pytest.approx(run(rounds, local, words), abs=1e-13)
    assert len(layers) == 8


def test_a_schedule_in_the_weights_agrees_with_the_protocol(draw):
    rounds = [Round(np.array([[2, -1, 1]]), np.zeros((3, 1), int))]
    words, local = draw.uniform(-1, 1, (3, 1)), minimum_and_sum(1)
    found = forward(wired(rounds, 1, local), np.eye(4), np.vstack([words, [[0.0]]]))[:3]
    assert found == pytest.approx(run(rounds, local, words), abs=1e-13)


def test_knock_outs_find_the_largest_form(draw):
    groups = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 1, 0]], [[0, 1, 0], [0, 0, -1]]]
    x = draw.standard_normal((50, 3))
    expected = np.stack([x.max(1), x[:, 0] + x[:, 1], np.maximum(x[:, 1], -x[:, 2])], axis=1)
    assert relu_network(wired_programs.maxima(groups), x) == pytest.approx(expected)
    least = relu_network(wired_programs.maxima([groups[0]], sign=-1.0), x)
    assert least[:, 0] == pytest.approx(x.min(1))


def test_scans_and_sorting_give_their_answers():
    x = np.array([3.0, -5.0, 4.0, -1.0])
    assert wired_programs.running_sum(4)(x).tolist() == [3, -2, 2, 1]
    assert wired_programs.running_minimum(4)(x).tolist() == [3, -5, -5, -5]
    assert wired_programs.running_maximum_subarray(4)(x).tolist() == [3, 3, 4, 4]
    assert wired_programs.sort(4)(x).tolist() == [-5, -1, 3, 4]
    assert wired_programs.running_maximum_subarray(3)(np.array([-2.0, -1.0, -3.0])).tolist() == [-2, -1, -1]


def test_bitonic_networks_need_a_power_of_two():
    with pytest.raises(ValueError, match="power of two, got 6"):
        wired_programs.bitonic_stages(6)


def test_payloads_find_their_way_by_key(draw):
    keys, payload = draw.permutation(8), draw.uniform(-1, 1, 8)
    start = wired_programs.with_null(np.stack([keys.astype(float), payload], axis=-1))
    found = forward(wired_programs.self_routing(8, 8.0), np.eye(9), start)
    assert found[:8, 0] == pytest.approx(np.arange(8))
    assert found[:8, 1] == pytest.approx(payload[np.argsort(keys)])


def test_one_wide_layer_computes_any_function_of_all_words():
    layer = wired_programs.one_wide_layer(2, 3, lambda word: float(10 * word[0] + word[1]))
    found = forward([layer], np.eye(2), np.array([[2.0], [1.0]]))[:, 0]
    assert found == pytest.approx([21, 12])


def test_all_pairs_compute_a_standard_layer(draw):
    n, d = 3, 2
    W_q, W_k, W_v = draw.standard_normal((3, d, d))
    x = draw.standard_normal((n, d))

    def phi(z):
        return z[..., :d] - z[..., d:]

    expected = wired_programs.standard_layer(W_q, W_k, W_v, phi, x)
    start = np.concatenate([np.repeat(x, n, axis=0), np.zeros((n * n, 1 + d))], axis=1)
    found = forward(wired_programs.squared(W_q, W_k, W_v, phi, n), np.eye(n * n), start)[:, :d]
    assert found.reshape(n, n, d) == pytest.approx(np.broadcast_to(expected[:, None], (n, n, d)))

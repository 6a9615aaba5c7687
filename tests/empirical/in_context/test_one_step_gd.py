"""The trained layer: what it computes, what its data are, and how it is measured."""

import math

import numpy as np
import pytest
import torch

from empirical.in_context.one_step_gd import FAMILIES, Layer, Task, loss_above_step, optimality_scores, train


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_prompts_have_the_variances_they_are_given():
    task = Task(3, 2, 0.25, covariance=(4.0, 1.0), weights=(0.25, 1.0))
    x, y = task.sample(2, 40_000, generator())
    assert x.shape == (2, 40_000, 4, 2)
    assert y.shape == (2, 40_000, 4)
    variances = x.square().mean(dim=(0, 1, 2)).tolist()
    assert variances == pytest.approx([4, 1], rel=0.05)
    assert y.square().mean().item() == pytest.approx(4 * 0.25 + 1 + 0.25, rel=0.05)


def test_exchanged_labels_are_those_of_the_neighbouring_prompt():
    plain, shuffled = (Task(3, 2, 0.0, shuffled=s).sample(1, 5, generator()) for s in (False, True))
    assert torch.equal(shuffled[0], plain[0])
    assert torch.equal(shuffled[1][0, 1:], plain[1][0, :-1])


def test_the_layer_predicts_what_its_four_matrices_say():
    """h^T W_V G W_K^T W_Q (x, 0), one prompt at a time."""
    layer = Layer(2, 3, generator())
    x, y = Task(4, 3, 0.5).sample(2, 5, generator(1))
    predicted = layer(x, y)
    for s in range(2):
        for b in range(5):
            v = torch.cat([x[s, b, :-1], y[s, b, :-1, None]], dim=1)
            query = torch.cat([x[s, b, -1], torch.zeros(1)])
            direct = layer.read_out[s] @ layer.value[s] @ v.T @ v @ layer.key[s].T @ layer.query[s] @ query
            assert predicted[s, b].item() == pytest.approx(direct.item(), rel=1e-4, abs=1e-6)


def test_the_response_of_the_query_is_hidden():
    layer = Layer(1, 3, generator(), kind="softmax")
    x, y = Task(4, 3, 0.5).sample(1, 5, generator(1))
    other = y.clone()
    other[..., -1] += 10
    assert torch.equal(layer(x, y), layer(x, other))


def test_softmax_weights_of_equal_scores_average_the_values():
    layer = Layer(1, 2, generator(), kind="softmax")
    with torch.no_grad():
        layer.key.zero_()
    x, y = Task(4, 2, 0.5).sample(1, 3, generator(1))
    values = torch.cat([x, y[..., None]], dim=-1)[:, :, :-1] @ layer.parameters_of_prediction()[0][0]
    torch.testing.assert_close(layer(x, y), values.mean(dim=-1))


def test_seeds_trained_together_are_independent_and_repeatable():
    task = Task(4, 2, 0.5)
    first = train(task, 3, seeds=2, steps=3, batch=8)
    train.cache_clear()
    again = train(task, 3, seeds=2, steps=3, batch=8)
    assert np.array_equal(first.u, again.u)
    assert not np.array_equal(first.u[0], first.u[1])
    assert first.u.dtype == np.float64


def test_the_matrix_read_off_a_layer_is_what_multiplies_the_gradient():
    trained = train(Task(4, 2, 0.5), 0, seeds=2, steps=0)
    u, M, A = trained.u[1], trained.M[1], trained.preconditioner()[1]
    for a in range(2):
        for b in range(2):
            G = np.zeros((3, 3))
            G[b, 2] = G[2, b] = 1  # only (X^T y)_b
            assert (u @ G @ M)[a] == pytest.approx(A[a, b])
    assert trained.step()[1] == pytest.approx(np.trace(A) / 2)
    assert trained.alignment()[1] == pytest.approx(np.trace(A) / np.linalg.norm(A) / math.sqrt(2))


def test_a_short_training_lowers_the_loss():
    task = Task(8, 4, 0.5)
    before, after = (train(task, 0, seeds=2, steps=steps, batch=128) for steps in (0, 150))
    step = 1 / 13.5
    assert loss_above_step(after, task, step, 1).max() < loss_above_step(before, task, step, 1).min()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_stated_linear_part_of_a_family_is_its_mean_with_the_covariate(name):
    family, rng = FAMILIES[name], np.random.default_rng(0)
    parameters = family.draw(rng, 1, 2)
    x = rng.standard_normal((200_000, 2))
    sampled = (family.apply(*parameters, x[None])[0][:, None] * x).mean(axis=0)
    np.testing.assert_allclose(family.linear(*parameters)[0], sampled, atol=0.03)


def test_the_right_step_leaves_uncorrelated_residuals_and_a_wrong_one_does_not():
    family, size = FAMILIES["relu(w.x)"], (6, 2, 0.5)
    step = family.step(*size)
    for factor, scores_are_small in ((1.0, True), (0.5, False)):
        scores = optimality_scores(np.random.default_rng(0), family, *size, factor * step, prompts=20_000)
        assert scores.shape == (12,)
        assert bool(abs(scores).max() < 4.5) is scores_are_small

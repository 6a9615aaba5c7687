"""Jacobians, bounds and certificates of sigmoid attention."""

import math

import numpy as np
import pytest

from theory.operators.attention import sigmoid, softmax
from theory.operators.sigmoid_attention import (
    bound_from,
    bounded_logits_bound,
    crowd,
    identical_tokens_norm,
    jacobian_bound,
    largest_stretch,
    mean_square,
    one_large_token,
    sigmoid_jacobian,
    softmax_ball_bound,
    softmax_jacobian,
)


@pytest.fixture
def matrices():
    draw = np.random.default_rng(0)
    return draw.standard_normal((5, 4, 2)), draw.standard_normal((2, 2)), draw.standard_normal((3, 2))


def logistic(s):
    return 1 / (1 + math.exp(-s))


@pytest.mark.parametrize(("operator", "jacobian"), [(sigmoid, sigmoid_jacobian), (softmax, softmax_jacobian)])
def test_jacobians_are_central_differences(matrices, operator, jacobian):
    X, A, W = matrices
    J = jacobian(X, A, W)
    assert J.shape == (5, 12, 8)
    for i, step in enumerate(1e-6 * np.eye(8).reshape(8, 4, 2)):
        ends = [(operator(Y @ A, Y, scale=1) @ (Y @ W.T)).reshape(5, 12) for Y in (X + step, X - step)]
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, J[..., i], atol=1e-7)


def test_jacobians_of_a_batch_are_those_of_its_members(matrices):
    X, A, W = matrices
    As, Ws = np.stack([A] * 5), np.stack([W] * 5)
    for jacobian in (sigmoid_jacobian, softmax_jacobian):
        each = np.stack([jacobian(x, A, W) for x in X])
        np.testing.assert_array_equal(jacobian(X, A, W), each)
        np.testing.assert_allclose(jacobian(X, As, Ws), each, rtol=1e-13)


def test_the_offset_is_minus_ln_n_unless_given(matrices):
    X, A, W = matrices
    np.testing.assert_array_equal(sigmoid_jacobian(X, A, W), sigmoid_jacobian(X, A, W, -math.log(4)))
    np.testing.assert_array_equal(jacobian_bound(X, A, W), jacobian_bound(X, A, W, -math.log(4)))
    assert abs(sigmoid_jacobian(X, A, W) - sigmoid_jacobian(X, A, W, 0.0)).max() > 0.1


def test_the_bound_has_the_value_of_its_formula():
    P = np.array([[0.5, 0.1], [0.9, 0.2]])
    assert bound_from(P, 3.0, 0.5, 2.0) == pytest.approx(2 * (2 * 0.9 + 2 * 2 * 0.25 * 0.5 * 3))
    assert bound_from(P, 3.0, 0.5, 2.0, 1.0) == pytest.approx(2 * (2 * 0.9 + 2 * 0.25 * 0.5 * 3))
    assert bounded_logits_bound(1.0, 3.0, 0.5, 2.0) == pytest.approx(2 * math.e * 4)
    assert bounded_logits_bound(0.0, 3.0) == 7
    np.testing.assert_array_equal(mean_square(np.array([[3.0, 4.0], [0.0, 1.0]])), 13)
    assert softmax_ball_bound(4, 3.0) == 2 * 10 + 9


def test_equal_tokens_have_their_closed_norm_and_softmax_norm_one():
    for n, s in ((1, 2.0), (3, 0.5), (8, math.log(8))):
        X, unit = np.full((n, 1), math.sqrt(s)), np.eye(1)
        closed = identical_tokens_norm(n, s, logistic, math.log)
        assert largest_stretch(sigmoid_jacobian(X, unit, unit)) == pytest.approx(closed)
        assert largest_stretch(softmax_jacobian(X, unit, unit)) == pytest.approx(1)
    assert closed == pytest.approx(8 * (1 + math.log(8)) / 2)


def test_the_large_token_lies_on_sphere_and_hyperbola():
    X, A = one_large_token(5, 7.0)
    assert X[0] @ X[0] == pytest.approx(49)
    assert X[0] @ A @ X[0] == pytest.approx(math.log(5))
    assert not X[1:].any()


def test_the_crowd_has_no_logit_above_zero():
    X, A = crowd(6, 3.0, 0.5)
    logits = X @ A @ X.T
    assert logits.max() == 0
    np.testing.assert_allclose(logits[0], [-9, 0, 0, -1.5, -1.5, -1.5])
    np.testing.assert_array_equal(X[1] + X[2], 0)
    assert (np.linalg.norm(X[:3], axis=1) == 3).all()

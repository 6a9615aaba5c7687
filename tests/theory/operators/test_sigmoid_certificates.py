"""Branch and bound in interval arithmetic, and what it certifies about attention."""

import math

import numpy as np
import pytest

pytest.importorskip("flint")

from flint import arb

from theory.operators.attention import logistic, softmax
from theory.operators.sigmoid_attention import (
    branch_and_bound,
    certainly_positive,
    certify_bound,
    certify_softmax_pair,
    largest_ball,
    norm_below,
    sigmoid_jacobian,
)

balls = np.frompyfunc(arb, 2, 1)


def test_a_box_is_proved_refuted_or_given_up():
    def below(limit):
        def decide(place):
            square = (place * place).sum(axis=-1)
            return certainly_positive(limit - square), certainly_positive(square - limit)

        return decide

    proved = branch_and_bound([-1, -1], [1, 1], below(2.001), 10_000)
    assert proved.proved
    assert proved.counterexample is None
    refuted = branch_and_bound([-1, -1], [1, 1], below(1.9), 10_000)
    assert not refuted.proved
    assert sum(x * x for x in refuted.counterexample) > 1.9
    given_up = branch_and_bound([-1, -1], [1, 1], below(2.0), 500)
    assert not given_up.proved
    assert given_up.counterexample is None
    assert given_up.boxes > 500


def test_a_box_with_exchanged_ends_is_refused():
    with pytest.raises(ValueError, match="not a box"):
        branch_and_bound([1.0], [0.0], lambda place: (place, place), 10)


def test_a_ball_across_zero_is_not_certainly_positive():
    assert certainly_positive(balls([1.0, 1.0, -1.0], [0.5, 1.5, 0.5])).tolist() == [True, False, False]


def test_norms_are_compared_with_limits():
    draw = np.random.default_rng(0)
    J = draw.standard_normal((20, 3, 3))
    norm = np.linalg.norm(J, 2, axis=(1, 2))
    for factor, outcome in ((1.001, (True, False)), (0.999, (False, True))):
        proved, refuted = norm_below(balls(J, 1e-9), balls(factor * norm, 0.0))
        assert proved.tolist() == [outcome[0]] * 20
        assert refuted.tolist() == [outcome[1]] * 20
    wide = norm_below(balls(J, 1.0), balls(norm, 0.0))
    assert not (wide[0].any())
    assert not (wide[1].any())


def test_the_largest_of_balls_encloses_the_maximum():
    found = largest_ball(balls([[[1.0, 3.0], [2.0, 2.5]]], [[[0.1, 0.1], [0.1, 1.0]]]))[0]
    assert found.contains(arb(3))
    assert found.contains(arb("3.5"))
    assert not found.contains(arb(2))


def test_jacobians_of_balls_enclose_those_of_their_points():
    draw = np.random.default_rng(1)
    X, A, W = (draw.standard_normal(shape) for shape in ((3, 2), (2, 2), (2, 2)))
    enclosed = sigmoid_jacobian(balls(X, 1e-3), balls(A, 0.0), balls(W, 0.0), -math.log(3))
    near = X + 1e-3 * draw.uniform(-1, 1, X.shape)
    inside = np.frompyfunc(lambda ball, x: ball.contains(arb(x)), 2, 1)(enclosed, sigmoid_jacobian(near, A, W))
    assert inside.all()


def test_the_bound_is_certified_with_slack_and_refuted_with_half_its_slope():
    for sign in (1, -1):
        assert certify_bound(2.0, sign, 0.05).proved
        assert certify_bound(4.0, sign, 0.05, factor=1.0).counterexample is not None or sign < 0
    assert not certify_bound(2.0, 1, 0.0, limit=2000).proved  # equality is attained


def test_the_softmax_of_two_tokens_is_bounded_between_its_values():
    assert certify_softmax_pair(1, 2.12).proved
    assert certify_softmax_pair(9, 1.5).counterexample is not None
    with pytest.raises(ValueError, match="sqrt"):
        certify_softmax_pair(1, 1.41)


def test_two_scores_have_the_softmax_of_their_difference():
    x = np.array([[0.3, -1.0], [2.0, 0.5]])
    weights = softmax(x, x, scale=1)
    s = x @ x.T
    np.testing.assert_allclose(weights[:, 0], logistic(s[:, 0] - s[:, 1]))

"""Biases, rescaled optimisers, rows in other norms, printed percentages: values known by hand."""

import math

import numpy as np
import pytest

from theory.operators.attention import softmax_rows
from theory.sinks.sink_emergence_identities import (
    Recipe,
    adamw_step,
    cosine_rate,
    p_normalised,
    parameters,
    possible,
    rescaled_adamw,
    rescaled_sgd,
    rooted,
    scaled_by_star,
    sgd_step,
    star_share,
    with_star,
)


def test_one_more_key_by_hand():
    """Weights 1, 3 and 4 on values 2, 6 and 10: (2 + 18 + 40) / 8; the tokens keep one half."""
    assert with_star(1 * 2 + 3 * 6, 1 + 3, 4, 10) == 7.5
    assert scaled_by_star(1 * 2 + 3 * 6, 1 + 3, 4, 10) == 0.5 * 5 + 0.5 * 10


def test_the_tokens_share_by_hand():
    scores = np.log(np.array([[1.0, 3.0], [2.0, 4.0]]))
    np.testing.assert_allclose(star_share(scores, np.log([4.0, 2.0])), [0.5, 0.75])


def test_the_tokens_share_does_not_overflow_and_respects_a_mask():
    np.testing.assert_allclose(star_share(np.array([[1000.0, -math.inf]]), np.array([1000.0])), [0.5])


def test_rules_of_rescaling():
    recipe = Recipe(0.1, 0.2, 0.4)
    assert rescaled_sgd(recipe, 4) == Recipe(16 * 0.1)
    assert rescaled_adamw(recipe, 4) == Recipe(0.4, 0.05, 0.1)


def test_a_step_of_gradient_descent():
    assert sgd_step(3.0, 4.0, Recipe(0.5)) == 1.0


def test_steps_of_adamw_are_torchs():
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.tensor([0.7], dtype=torch.float64))
    optimiser = torch.optim.AdamW([weight], lr=0.05, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.3)
    ours, m, v = 0.7, 0.0, 0.0
    for step, gradient in enumerate((0.3, -0.2, 0.9), start=1):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimiser.step()
        ours, m, v = adamw_step(ours, m, v, gradient, Recipe(0.05, 0.3, 1e-3), betas=(0.8, 0.9), step=step)
        assert ours == pytest.approx(weight.item(), rel=1e-13)


def test_the_learning_rate_warms_up_and_follows_a_cosine():
    of = {"rate": 3.0, "floor": 1.0, "warmup": 10, "steps": 30}
    assert [cosine_rate(step, **of) for step in (0, 5, 10, 20, 30, 99)] == pytest.approx([0, 1.5, 3, 2, 1, 1])


def test_rows_in_other_norms_by_hand():
    row = np.log([[3.0, 4.0]])
    np.testing.assert_allclose(p_normalised(row, 2.0), [[0.6, 0.8]])
    np.testing.assert_allclose(rooted(row, 2.0), [[0.6, 0.8]])
    np.testing.assert_allclose(p_normalised(row, 1.0), softmax_rows(row))
    np.testing.assert_allclose(p_normalised(row + 1000, 2.0), [[0.6, 0.8]])


def test_percentages_that_counts_can_and_cannot_give():
    assert possible("33.33", 3)
    assert not possible("33.34", 3)
    assert possible("12.5", 8)
    assert possible("12", 8)  # 1 / 8, rounded to even
    assert possible("13", 8)
    assert not possible("12.4", 8)
    assert possible("0.00", 7)


def test_parameters_by_hand():
    """One layer of width 2, hidden 3: 16 of attention, 18 or 12 of the FFN, 4 and 2 of norms."""
    assert parameters(2, 1, 3) == 40
    assert parameters(2, 1, 3, gated=False) == 34
    assert parameters(2, 2, 3) == 78

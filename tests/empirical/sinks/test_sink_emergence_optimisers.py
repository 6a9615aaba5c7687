"""The attention layer that is trained with a scaled output."""

import pytest
import torch

from empirical.sinks.sink_emergence_optimisers import trained_output
from theory.sinks.sink_emergence_identities import Recipe

RECIPES = {"SGD": Recipe(0.1), "AdamW": Recipe(0.01, 0.1, 1e-8)}


@pytest.mark.parametrize("optimiser", RECIPES)
def test_training_depends_on_each_argument(optimiser):
    recipe = RECIPES[optimiser]
    plain = trained_output(0, optimiser, recipe, recipe, steps=3)
    changed = {
        "seed": trained_output(1, optimiser, recipe, recipe, steps=3),
        "factor": trained_output(0, optimiser, recipe, recipe, factor=2.0, steps=3),
        "start": trained_output(0, optimiser, recipe, recipe, start=2.0, steps=3),
        "rate of the rest": trained_output(0, optimiser, Recipe(0.2, 0.1, 1e-8), recipe, steps=3),
        "rate of W_O": trained_output(0, optimiser, recipe, Recipe(0.2, 0.1, 1e-8), steps=3),
        "steps": trained_output(0, optimiser, recipe, recipe, steps=4),
    }
    for name, output in changed.items():
        assert (output - plain).abs().max() > 1e-6, name


def test_without_steps_a_factor_is_a_scaled_start():
    recipe = RECIPES["SGD"]
    scaled = trained_output(0, "SGD", recipe, recipe, factor=2.0, steps=0)
    torch.testing.assert_close(scaled, trained_output(0, "SGD", recipe, recipe, start=2.0, steps=0), rtol=0, atol=0)


def test_a_step_is_no_longer_than_the_limit_allows():
    """With SGD at rate 1 on W_O alone: the weights move by the gradient, so that a tiny limit leaves the outputs."""
    recipe, still = Recipe(1.0), Recipe(0.0)
    start = trained_output(0, "SGD", still, recipe, steps=0)
    limited = trained_output(0, "SGD", still, recipe, clip=1e-9, steps=1)
    free = trained_output(0, "SGD", still, recipe, steps=1)
    assert 0 < (limited - start).abs().max() < 1e-7 < (free - start).abs().max()

"""Removing tokens and redistributing attention, on models that are hardly trained."""

import pytest
import torch

from empirical.sinks import visual_sinks
from empirical.sinks.backcopy import Setting, held_out, train
from empirical.sinks.interventions import edited, mean_losses
from theory.sinks.zerotuning import tuned


@pytest.fixture(scope="module")
def small():
    """The module with untrained models and few sequences; what it keeps is forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visual_sinks, "SETTING", Setting(starts=(0, 9), steps=0, width=8))
        patch.setattr(visual_sinks, "SEQUENCES", 6)
        yield visual_sinks
    for kept in ("models", "_tokens", "cost_of_removing", "cost_of_redistributing", "attended"):
        getattr(visual_sinks, kept).cache_clear()


def test_a_removed_token_is_hidden_from_text_queries_alone(small):
    models, tokens = train(small.SETTING, 4, small.SEEDS), held_out(small.SETTING, 6, 4)
    hidden = edited(models, lambda A: tuned(A, 0.0, 3))
    expected = mean_losses(hidden, tokens, small.TEXT) - mean_losses(models, tokens, small.TEXT)
    torch.testing.assert_close(small.cost_of_removing(4, 3), expected)
    assert (small.cost_of_removing(4, 3) != 0).all()


def test_removing_a_token_twice_is_removing_it_once(small):
    torch.testing.assert_close(small.cost_of_removing(4, 3, 3), small.cost_of_removing(4, 3), rtol=0, atol=1e-6)


def test_nothing_given_away_costs_nothing(small):
    cost = small.cost_of_redistributing(4, 0.0, 0.0, 0.0)
    torch.testing.assert_close(cost, torch.zeros_like(cost), rtol=0, atol=1e-6)
    assert (small.cost_of_redistributing(4, 0.5, 0.0, 0.0) != 0).all()


def test_attention_of_busy_and_idle_queries_adds_up_to_one(small):
    found = small.attended(4)
    assert found.idle.shape == (small.SEEDS, small.SETTING.length - 1)
    for weights in (found.idle, found.busy):
        torch.testing.assert_close(torch.from_numpy(weights.sum(1)), torch.ones(small.SEEDS))
    assert (found.length > 0).all()
    assert (found.contribution <= found.length * 1.5).all()

"""Attention weights edited at inference."""

import pytest
import torch
from torch import nn

from empirical.sinks.backcopy import Setting, held_out, losses, train
from empirical.sinks.interventions import edited, mean_losses, token_losses
from empirical.training import Models

SETTING = Setting(steps=0, layers=2, width=8)


@pytest.fixture(scope="module")
def models():
    return train(SETTING, 0, 2)


@pytest.fixture(scope="module")
def tokens():
    return held_out(SETTING, 5, 0)


def test_an_edit_that_changes_nothing_changes_no_loss(models, tokens):
    torch.testing.assert_close(mean_losses(edited(models, lambda A: A), tokens), losses(models, tokens))


def test_every_layer_is_edited_and_the_models_given_are_left_alone(models, tokens):
    before = losses(models, tokens)
    without = edited(models, torch.zeros_like)
    parameters = {
        name: torch.zeros_like(tensor) if "attention.layer.output" in name else tensor
        for name, tensor in models.tensors.items()
    }
    torch.testing.assert_close(losses(without, tokens), losses(Models(models.skeleton, parameters), tokens))
    torch.testing.assert_close(losses(models, tokens), before)
    assert (losses(without, tokens) != before).all()


def test_losses_can_leave_out_the_first_queries(models, tokens):
    each = models.each(token_losses, tokens)
    assert each.shape == (2, 5, SETTING.length - 1)
    torch.testing.assert_close(mean_losses(models, tokens, since=20), each[:, :, 20:].mean((1, 2)))


def test_a_model_without_attention_is_refused():
    with pytest.raises(ValueError, match="nothing to edit"):
        edited(Models(nn.Linear(2, 2), {}), lambda A: A)

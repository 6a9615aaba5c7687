"""Sweeps over gamma, on models that are hardly trained."""

import pytest
import torch

from empirical.sinks import zerotuning
from empirical.sinks.backcopy import Setting, held_out, losses, train
from empirical.sinks.interventions import edited
from theory.sinks.zerotuning import tuned


@pytest.fixture
def small(monkeypatch):
    """The module with untrained models and few sequences; what it keeps is forgotten afterwards."""
    monkeypatch.setattr(zerotuning, "SETTING", Setting(steps=0, width=8))
    monkeypatch.setattr(zerotuning, "DEEP", Setting(steps=0, width=8, layers=2, heads=2))
    monkeypatch.setattr(zerotuning, "SEQUENCES", 6)
    yield zerotuning
    for kept in (zerotuning.models, zerotuning.sweeps, zerotuning.changes, zerotuning.layer_changes):
        kept.cache_clear()


def test_gamma_one_is_the_model_as_it_is(small):
    _, judge = small.sweeps(3)
    models, tokens = train(small.SETTING, 3, small.SEEDS), held_out(small.SETTING, 12, 3)[6:]
    torch.testing.assert_close(judge.untuned("loss"), losses(models, tokens))
    logs = models(tokens[:, :-1]).log_softmax(-1)
    torch.testing.assert_close(judge.untuned("entropy"), -(logs.exp() * logs).sum(-1).mean((1, 2)))
    torch.testing.assert_close(judge.untuned("accuracy"), (logs.argmax(-1) == tokens[:, 1:]).float().mean((1, 2)))


def test_the_gain_is_that_of_the_gamma_chosen_on_other_sequences(small):
    choose, judge = small.sweeps(3, 2, 0.5)
    best = choose.loss.argmin(1)
    assert judge.loss.shape == (small.SEEDS, len(small.GAMMAS))
    expected = [judge.loss[seed, 3] - judge.loss[seed, best[seed]] for seed in range(small.SEEDS)]
    torch.testing.assert_close(small.gain(3, 2, 0.5), torch.stack(expected))


def test_tokens_and_temperatures_matter(small):
    losses = [small.sweeps(3, token, exponent)[1].loss for token, exponent in ((0, 1.0), (2, 1.0), (0, 0.5))]
    assert not torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_heads_are_tuned_one_at_a_time_and_gamma_one_changes_nothing(small):
    choose, judge = small.changes(3, 4.0, 0.5)
    assert choose.shape == judge.shape == (small.SEEDS, 2, 2)
    assert len(set(judge.flatten().tolist())) == judge.numel()
    for found in small.changes(3, 1.0, 0.5) + small.layer_changes(3, 1.0, 0.5):
        torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-6)


def test_a_layer_is_tuned_when_all_its_heads_are(small):
    tokens = held_out(small.DEEP, 12, 3)[6:]
    given = small.models(small.DEEP, 3, 1.0)
    whole = losses(edited(given, lambda A: tuned(A, 4.0), layer=1), tokens) - losses(given, tokens)
    torch.testing.assert_close(small.layer_changes(3, 4.0, 1.0)[1][:, 1], whole, rtol=0, atol=1e-6)

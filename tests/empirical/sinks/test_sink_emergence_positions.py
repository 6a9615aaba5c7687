"""Positional encodings that are put into models, and first tokens that become biases."""

import numpy as np
import pytest
import torch

from empirical.sinks import backcopy
from empirical.sinks import sink_emergence_positions as at
from empirical.sinks.backcopy import Setting
from theory.operators import positions

TOKENS = at.random_tokens(3, 12, 1)


def logits(model):
    with torch.no_grad():
        return model(TOKENS)


def test_scores_by_distance_reach_the_attention():
    """A strong bias for the farthest key: every query looks at the first."""
    model = at.untrained("none", 0, scores=100.0 * np.arange(64))
    for layer in at.layers_of(model, TOKENS):
        assert layer.weights[..., 0].min() > 1 - 1e-12


def test_scores_of_zero_are_no_positions():
    torch.testing.assert_close(
        logits(at.untrained("none", 0, scores=np.zeros(64))), logits(at.untrained("none", 0)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("position", ["none", "rotary", "alibi", "sinusoidal", "learned"])
def test_each_encoding_is_its_own(position):
    model = at.untrained(position, 0)
    assert model.places.style.position == position
    assert all(layer.rotary == (position == "rotary") for layer in at.attention_layers(model))
    others = {"none", "rotary", "alibi", "sinusoidal", "learned"} - {position}
    for other in others:
        assert (logits(model) - logits(at.untrained(other, 0))).abs().max() > 1e-6


def test_alibi_is_a_bias_by_distance():
    """One head has one slope, 2^-8."""
    scores = positions.alibi(64, 1)[0, -1, ::-1]
    given = at.untrained("none", 0, heads=1, scores=scores)
    torch.testing.assert_close(logits(given), logits(at.untrained("alibi", 0, heads=1)), rtol=0, atol=1e-12)


def test_a_learned_table_is_kept_with_its_initial_weights():
    torch.manual_seed(0)
    setting = Setting(layers=1, width=8, length=6)
    plain = setting.build()
    torch.manual_seed(0)
    kept = at.Positioned(layers=1, width=8, length=6).build()
    torch.testing.assert_close(kept.places.table.weight, plain.places.table.weight, rtol=0, atol=0)


def test_attention_layers_come_in_order():
    model = at.untrained("none", 0, layers=3)
    assert at.attention_layers(model) == [block.attention.layer for block in model.blocks]


def test_repeated_tokens_are_one_token():
    tokens = at.random_tokens(5, 7, 3, repeated=True)
    assert tokens.shape == (5, 7)
    assert (tokens == tokens[:, :1]).all()
    assert len(set(tokens[:, 0].tolist())) > 1
    assert len(set(at.random_tokens(5, 7, 3)[0].tolist())) > 1


def test_deviations_see_a_single_other_token():
    model = at.untrained("none", 0, layers=2)
    tokens = torch.full((1, 6), 4)
    assert at.deviations(model, tokens).max() < 1e-12
    tokens[0, -1] = 5
    assert len(at.deviations(model, tokens)) == 3
    assert at.deviations(model, tokens).min() > 0.1


def test_rates_of_models_are_those_of_each(tmp_path, monkeypatch):
    """A bias for the farthest token: all sinks; for the nearest: none."""
    models = [at.untrained("none", 0, scores=sign * 100.0 * np.arange(64)).float() for sign in (1, -1)]
    assert [at.sink_rate(model, TOKENS) for model in models] == [100, 0]
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))
    both = backcopy.train(at.Positioned(layers=1, width=8, length=12, steps=0), 0, 2)
    tokens = TOKENS % 65
    np.testing.assert_allclose(at.sink_rates(both, tokens), [at.sink_rate(both.one(i), tokens) for i in range(2)])


def test_biases_are_what_the_token_makes_and_leave_the_model_alone():
    model = at.untrained("rotary", 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    biased = at.as_biases(model, 7)
    alone = at.layers_of(model, torch.tensor([[7]]))
    for layer, seen in zip(at.attention_layers(biased), alone, strict=True):
        torch.testing.assert_close(layer.star_key.data, seen.keys[0], rtol=0, atol=0)
        torch.testing.assert_close(layer.star_value.data, seen.values[0], rtol=0, atol=0)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    silent = at.as_biases(model, 7, keys=0.0)
    assert not at.attention_layers(silent)[0].star_key.any()


def test_later_positions_start_at_one():
    model = at.untrained("rotary", 0, layers=1)
    layer = at.attention_layers(model)[0]
    x = torch.randn(2, 5, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, k = at.attention_layers(at.as_biases(model, 1))[0].queries_and_keys(x)
    padded = torch.cat([torch.ones_like(x[:, :1]), x], dim=1)
    for ours, theirs in zip((q, k), layer.queries_and_keys(padded), strict=True):
        torch.testing.assert_close(ours, theirs[..., 1:, :], rtol=0, atol=1e-12)

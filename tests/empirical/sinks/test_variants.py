"""The variants of attention, and initial weights."""

import math

import pytest
import torch

from empirical.layers import STAR_KEYS, Style
from empirical.sinks.backcopy import Setting
from empirical.sinks.variants import VARIANTS, initialise
from empirical.transformer import Decoder
from theory.operators import positions
from theory.operators.attention import elu_plus_one, softmax


def queries_and_keys(n=6, d=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 1, n, d, generator=generator, dtype=torch.float64).unbind(0)


def by_hand(name, q, k, mask):
    """Weights of each variant whose operator is not softmax, from its formula."""
    s, n = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), k.shape[-2]
    kernel = elu_plus_one(q) @ elu_plus_one(k).transpose(-2, -1)
    weights = {
        "sigmoid": s.sigmoid(), "sigmoid - log n": (s - math.log(n)).sigmoid(), "sigmoid, normalised": s.sigmoid(),
        "elu": kernel, "elu, normalised": kernel, "identity": q @ k.transpose(-2, -1),
    }[name] * mask  # fmt: skip
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-300) if "normalised" in name else weights


@pytest.mark.parametrize("name", [name for name, one in VARIANTS.items() if one.operator is not softmax])
@pytest.mark.parametrize("mask", [positions.causal, positions.strictly_causal])
def test_each_operator_computes_its_formula_under_a_mask(name, mask):
    (q, k), seen = queries_and_keys(), torch.from_numpy(mask(6))
    torch.testing.assert_close(VARIANTS[name].operator(q, k, mask=seen), by_hand(name, q, k, seen))


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_sum_to_one_where_there_is_a_norm_and_a_token_sees_what_it_may(name):
    q, k = queries_and_keys()
    weights = VARIANTS[name].operator(q, k, mask=torch.from_numpy(positions.strictly_causal(6)))
    assert not weights[..., 0, :].any()
    normed = VARIANTS[name].operator is softmax or "normalised" in name
    assert torch.allclose(weights[..., 1:, :].sum(-1), torch.ones(5, dtype=torch.float64)) == normed


@pytest.mark.parametrize("name", VARIANTS)
def test_models_of_each_variant_are_trained_by_one_step(name):
    model = Setting(name, layers=2, width=8, heads=2, length=6).build()
    tokens = torch.randint(60, (2, 6))
    model(tokens).square().mean().backward()
    missing = [key for key, value in model.named_parameters() if value.grad is None]
    assert not missing
    stars = {key.rsplit(".")[-1] for key in model.state_dict() if "star" in key}
    outlet = VARIANTS[name].outlet
    assert ("star_key" in stars) == (outlet in (*STAR_KEYS, "context-aware bias"))


def test_initial_weights_have_the_spread_that_the_docstring_says():
    style = Style(64, 2, hidden=2, norm="rms", gated=True, linear_bias=False)
    torch.manual_seed(0)
    model = initialise(Decoder(500, 32, style=style, layers=4), embedding=0.1)
    expected = {
        "token": 0.1, "places.table": 0.1, "queries_keys": (2 / (5 * 64)) ** 0.5, "output": (2 / (5 * 64)) ** 0.5,
        "layer.up": (2 / (5 * 64)) ** 0.5, "layer.gate": (2 / (5 * 64)) ** 0.5, "layer.down": 128**-0.5 / 4,
        "logits": (2 / (5 * 64)) ** 0.5,
    }  # fmt: skip
    for part, spread in expected.items():
        found = torch.cat([value.flatten() for key, value in model.named_parameters() if f"{part}.weight" in key])
        assert len(found) > 1000
        # the standard deviation of n Gaussians is off by a factor of 1 +- 1 / sqrt(2 n): six of these
        assert abs(found.std() / spread - 1) < 6 / math.sqrt(2 * len(found)), part
        assert abs(found.mean()) < 6 * spread / math.sqrt(len(found)), part


def test_initial_weights_leave_norms_and_learned_values_alone():
    model = Setting("value bias", layers=1, width=8).build()
    assert all((value == 1).all() for key, value in model.named_parameters() if "norm" in key)
    assert not model.blocks[0].attention.layer.star_value.any()

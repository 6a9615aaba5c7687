"""Layers against their formulas: the outlets of attention, SwiGLU, branches."""

import math

import pytest
import torch

from empirical.layers import STAR_KEYS, Attention, Branch, Gated, Style, hidden_layer
from theory.operators import positions
from theory.operators.attention import sigmoid, softmax

WIDTH, HEADS, N = 8, 2, 5
OUTLETS = ("none", "value bias", "context-aware bias", "key bias", "key-value bias", "gate")


def made(outlet="none", operator=softmax, **style):
    """An attention layer with nothing zero, and inputs; float64."""
    torch.manual_seed(0)
    layer = Attention(Style(WIDTH, HEADS, outlet=outlet, linear_bias=False, **style), operator).double()
    with torch.no_grad():
        for name in ("star_key", "star_value"):
            if hasattr(layer, name):
                getattr(layer, name).normal_()
    return layer, torch.randn(3, N, WIDTH, dtype=torch.float64)


def heads(x):
    """(batch, n, width) to (batch, heads, n, width / heads), by slices."""
    return torch.stack(x.chunk(HEADS, dim=-1), dim=1)


def by_hand(layer, x, mask):
    """The docstring's formulas, written out with plain softmax."""
    q, k = (heads(part) for part in (x @ layer.queries_keys.weight.T).chunk(2, dim=-1))
    v = heads(x @ layer.values.weight.T)
    s = (q @ k.transpose(-2, -1) / math.sqrt(WIDTH / HEADS)).masked_fill(~mask, -math.inf)
    A = s.softmax(-1)
    mixed = A @ v
    if hasattr(layer, "star_key"):
        s_star = (q * layer.star_key).sum(-1, keepdim=True) / math.sqrt(WIDTH / HEADS)
        A_star = torch.cat([s_star, s], dim=-1).softmax(-1)
        if layer.outlet in STAR_KEYS:
            mixed = A_star[..., :1] * layer.star_value + A_star[..., 1:] @ v
        else:
            mixed = A @ v + A_star[..., :1] * layer.star_value
    elif layer.outlet == "value bias":
        mixed = A @ v + layer.star_value
    elif layer.outlet == "gate":
        gate = 2 * torch.sigmoid(x @ layer.gate.weight.T + layer.gate.bias)  # (batch, n, heads)
        mixed = gate.transpose(1, 2)[..., None] * (A @ v)
    return torch.cat(list(mixed.unbind(1)), dim=-1) @ layer.output.weight.T


@pytest.mark.parametrize("outlet", OUTLETS)
def test_each_outlet_computes_the_formula_of_the_docstring(outlet):
    layer, x = made(outlet)
    mask = torch.from_numpy(positions.causal(N))
    torch.testing.assert_close(layer(x, mask=mask), by_hand(layer, x, mask))
    torch.testing.assert_close(layer(x), by_hand(layer, x, torch.ones_like(mask)))


@pytest.mark.parametrize("outlet", OUTLETS)
def test_a_learned_key_has_the_first_column_and_is_seen_through_every_mask(outlet):
    layer, x = made(outlet)
    weights = layer.weights(x, mask=torch.zeros(N, N, dtype=torch.bool))
    if outlet in STAR_KEYS:
        torch.testing.assert_close(weights, torch.eye(N + 1, dtype=torch.float64)[:1].expand(3, HEADS, N, N + 1))
    else:
        assert weights.shape == (3, HEADS, N, N)
        assert not weights.any()


def test_learned_keys_do_not_turn_with_positions_and_get_no_bias():
    for changes in ({"position": "rotary"}, {}):
        layer, x = made("key bias", **changes)
        plain, _ = made("none", **changes)
        bias = torch.full((N, N), 3.0, dtype=torch.float64)
        q, _ = layer.queries_and_keys(x)
        star = (q * layer.star_key).sum(-1) / math.sqrt(WIDTH / HEADS)
        weights, among = layer.weights(x, bias=bias), plain.weights(x, bias=bias)
        q, k = plain.queries_and_keys(x)
        total = (q @ k.transpose(-2, -1) / math.sqrt(WIDTH / HEADS) + bias).logsumexp(-1)
        torch.testing.assert_close(weights[..., 0], (star - total).sigmoid())
        torch.testing.assert_close(weights[..., 1:], (total - star).sigmoid()[..., None] * among)


def test_the_value_of_a_key_bias_is_a_buffer_of_zeros_and_that_of_a_key_value_bias_is_learned():
    layer = Attention(Style(WIDTH, HEADS, outlet="key bias"))
    assert "star_value" in dict(layer.named_buffers())
    assert not layer.star_value.any()
    assert layer.star_key.requires_grad
    names = dict(Attention(Style(WIDTH, HEADS, outlet="key-value bias")).named_parameters())
    assert names["star_key"].shape == names["star_value"].shape == (HEADS, 1, WIDTH // HEADS)


def test_an_untrained_value_bias_changes_nothing():
    layer, x = made("none")
    biased = Attention(Style(WIDTH, HEADS, outlet="value bias", linear_bias=False)).double()
    biased.load_state_dict({**layer.state_dict(), "star_value": torch.zeros(HEADS, 1, WIDTH // HEADS)})
    torch.testing.assert_close(biased(x), layer(x))


def test_a_gate_lies_between_nothing_and_twice_the_head():
    layer, x = made("gate")
    plain, _ = made("none")
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if "gate" not in name})
    with torch.no_grad():
        layer.gate.weight.zero_()
        for bias, factor in ((0.0, 1.0), (50.0, 2.0), (-50.0, 0.0)):
            layer.gate.bias.fill_(bias)
            torch.testing.assert_close(layer(x), factor * plain(x))


def test_an_operator_without_a_norm_may_have_a_learned_key():
    layer, x = made("key-value bias", operator=lambda q, k, **given: sigmoid(q, k, offset=0.0, **given))
    q, k = layer.queries_and_keys(x)
    v = layer.split(layer.values(x))
    scale = math.sqrt(WIDTH / HEADS)
    mixed = (q @ k.transpose(-2, -1) / scale).sigmoid() @ v
    mixed = mixed + ((q * layer.star_key).sum(-1, keepdim=True) / scale).sigmoid() * layer.star_value
    torch.testing.assert_close(layer(x), layer.output(torch.cat(list(mixed.unbind(1)), dim=-1)))


def test_swiglu_is_down_of_silu_of_gate_times_up():
    layer = Gated(Style(WIDTH, linear_bias=False), 6)
    x = torch.randn(2, WIDTH)
    gate, up = x @ layer.gate.weight.T, x @ layer.up.weight.T
    torch.testing.assert_close(layer(x), (gate / (1 + (-gate).exp()) * up) @ layer.down.weight.T)


def test_styles_decide_on_biases_norms_and_the_layer_after_attention():
    plain = Style(WIDTH, norm="rms", gated=True, linear_bias=False, hidden=2)
    branch = Branch(plain, hidden_layer(plain))
    assert {name for name, _ in branch.named_parameters()} == {
        "norm.weight", "layer.gate.weight", "layer.up.weight", "layer.down.weight",
    }  # fmt: skip
    assert branch.layer.up.weight.shape == (2 * WIDTH, WIDTH)
    x = torch.randn(2, 3, WIDTH)
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(branch(x), x + branch.layer(normed))
    assert isinstance(hidden_layer(Style(WIDTH)), torch.nn.Sequential)
    assert Attention(Style(WIDTH)).output.bias is not None

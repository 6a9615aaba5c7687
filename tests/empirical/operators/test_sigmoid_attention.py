"""Byte models with sigmoid attention, and ascent on ratios."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from empirical.operators.sigmoid_attention import (  # noqa: E402
    Setting,
    Variant,
    ascend,
    attention_sizes,
    branch_sizes,
    build,
    held_out,
    losses,
    next_byte_loss,
    train,
    without_logits,
)
from theory.operators.attention import sigmoid, softmax  # noqa: E402

TINY = Setting(length=8, width=8, heads=2, layers=1, batch=2, steps=2, seeds=2)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))


def test_the_offset_is_minus_alpha_ln_n_whatever_the_number_of_keys():
    q, k = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    weights = Variant(alpha=1.0).operator(64)(q, k)
    torch.testing.assert_close(weights, sigmoid(q, k, offset=-math.log(64)))
    assert Variant().operator(64) is softmax


def test_variants_differ_where_they_say():
    model = build(TINY, Variant(0.0, "rotary", qk_norm=False, branch_norm=True, layer_scale=0.5))
    branch = model.blocks[0].attention
    assert isinstance(branch.after, torch.nn.LayerNorm)
    assert branch.scale.tolist() == [0.5] * 8
    assert branch.layer.rotary
    assert isinstance(branch.layer.query_norm, torch.nn.Identity)
    assert isinstance(build(TINY, Variant()).blocks[0].attention.layer.query_norm, torch.nn.RMSNorm)


def test_losses_are_means_over_the_held_out_text():
    models = train(TINY, Variant(1.0), 0)
    text = held_out(TINY, 3, 40)
    assert text.shape == (40, 9)
    expected = [float(next_byte_loss(models.one(i), text).detach()) for i in range(2)]
    np.testing.assert_allclose(losses(models, TINY, 3, 40), expected, rtol=1e-5)


def test_without_logits_weights_are_the_logistic_of_the_offset():
    """Then outputs with b = 0 and b = -ln n stand in the ratio of 1/2 and 1 / (n + 1)."""
    at_start = [
        without_logits(train(Setting(**{**vars(TINY), "steps": 0}), Variant(alpha, "none"), 0)) for alpha in (0.0, 1.0)
    ]
    large, small = (attention_sizes(models, TINY, 0) for models in at_start)
    np.testing.assert_allclose(large / small, 4.5, rtol=1e-4)
    assert large.shape == (2,)


def test_the_branch_is_what_the_block_adds():
    models = train(TINY, Variant(1.0, layer_scale=0.0), 0)
    models.tensors["blocks.0.attention.scale"].zero_()
    np.testing.assert_array_equal(branch_sizes(models, TINY, 0), 0)
    models.tensors["blocks.0.attention.scale"].fill_(1)
    assert (branch_sizes(models, TINY, 0) > 0).all()


def test_ascent_climbs_and_reports_the_best_on_the_way():
    def ratio(X, A, W):
        square = (X * X).sum((-2, -1))
        return square / (1 + square) + 0 * (A.sum() + W.sum())

    few, many = ascend(ratio, (4, 2, 3), 1, 0), ascend(ratio, (4, 2, 3), 200, 0)
    assert few.shape == (4,)
    assert (many > few).all()
    assert (many < 1).all()

"""Trained Gaussian adaptive attention: its modules, data and measures."""

import numpy as np
import pytest
import torch

from empirical.operators.gaam import (
    FEATURES,
    MIXERS,
    RELEVANT,
    Added,
    Gate,
    Gated,
    approximate,
    count,
    digit_accuracy,
    drifting,
    labelled,
    mixing,
    product,
    random_start,
    released_start,
    relevance,
    summed,
)
from theory.operators.attention import gaussian_adaptive
from theory.operators.gaam import total_variation


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_starts_have_the_values_they_are_named_for():
    mass, offset, width = random_start(100, generator())
    assert (mass == 0).all()
    assert (offset.abs() <= 2).all()
    assert offset.std() > 1
    assert (width == 0.5).all()
    assert [one.unique().tolist() for one in released_start(3, generator())] == [[0], [0], [2]]


def test_descent_fits_one_gaussian_with_one():
    x = np.linspace(-2, 2, 81)
    target = np.exp(-((x - 0.3) ** 2) / 0.5)
    target /= target.sum()
    for weights in (product, summed):
        fitted, parameters = approximate(x, target, weights, random_start(1, generator()), steps=300)
        assert parameters.shape == (3, 1)
        assert total_variation(fitted, target) < 0.01


def test_labels_are_the_sign_of_the_relevant_features_before_the_shift():
    x, label = labelled((3, 400), 1.5, generator())
    assert x.shape == (3, 400, FEATURES)
    assert torch.equal(label, ((x[..., :RELEVANT] - 1.5).sum(-1) > 0).float())
    assert x[..., :RELEVANT].mean().item() == pytest.approx(1.5, abs=0.05)
    assert x[..., RELEVANT:].mean().item() == pytest.approx(0, abs=0.05)


def test_the_gate_adds_what_it_has_weighed():
    torch.manual_seed(0)
    gate, x = Gate(3), torch.randn(4, FEATURES)
    weights = gaussian_adaptive(x, gate.offset, gate.log_width.exp())
    torch.testing.assert_close(gate(x, True), weights)
    torch.testing.assert_close(gate(x), gate.read_out(x + FEATURES * x * weights)[:, 0])


def test_relevance_is_measured_for_each_model():
    found = relevance(0, seeds=3, steps=2)
    assert found.accuracy.shape == (3,)
    assert found.mean_weights.shape == found.gradients.shape == (3, FEATURES)
    np.testing.assert_allclose(found.mean_weights.sum(axis=1), 1, rtol=1e-5)
    assert (found.gradients >= 0).all()


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_gate_weighs_along_its_axis(axis):
    torch.manual_seed(0)
    gate, x = Gated(axis, heads=2, components=3), torch.randn(5, 8, 8)
    chunk = x[:, :4] if axis == -2 else x[..., :4]
    weights = gaussian_adaptive(chunk, gate.offset[0], gate.width[0], axis=axis)
    found = gate(x)[:, :4] if axis == -2 else gate(x)[..., :4]
    torch.testing.assert_close(found, chunk + chunk * weights)


def test_mixers_keep_the_shape_and_have_their_parameters():
    x = torch.randn(2, 8, 8)
    counts = {}
    for name in MIXERS:
        module = mixing(name, 8)
        assert module(x).shape == x.shape
        counts[name] = count(module)
    assert counts == {
        "nothing": 0, "gate along features": 8, "gate along rows": 8, "dot-product attention": 4 * (64 + 8)
    }  # fmt: skip


def test_attention_is_added():
    torch.manual_seed(0)
    module, x = Added(8), torch.randn(2, 3, 8)
    torch.testing.assert_close(module(x), x + module.attention(x))


def test_shuffled_labels_leave_nothing_to_learn():
    true = digit_accuracy("nothing", 0, seeds=2, steps=60)
    shuffled = digit_accuracy("nothing", 0, seeds=2, steps=60, shuffled=True)
    assert true.shape == (2,)
    assert (true > 0.8).all()
    assert (shuffled < 0.3).all()


def test_rows_drift_by_steps_of_the_given_size():
    images = torch.rand(4000, 8, 8, generator=generator())
    assert torch.equal(drifting(images, 0.0, generator()), images)
    walked = drifting(torch.zeros(4000, 8, 8), 0.3, generator())
    assert torch.equal(walked, walked[..., :1].expand_as(walked))  # one level a row
    torch.testing.assert_close(walked[..., 0].var(0), 0.09 * torch.arange(1.0, 9.0), rtol=0.15, atol=0)
    spread = drifting(images, 0.3, generator()).std(-1) / images.std(-1)
    torch.testing.assert_close(spread.log().var(0), 0.09 * torch.arange(1.0, 9.0), rtol=0.15, atol=0)

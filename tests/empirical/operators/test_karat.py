"""Kolmogorov-Arnold attention in torch, without training it."""

import numpy as np
import pytest
import torch

from empirical.layers import Style
from empirical.operators.karat import (
    KolmogorovArnold,
    broadcast_operator,
    bytes_for_backward,
    loss,
    operators,
    rescaled,
    sharpness,
    vision_transformer,
    weights,
)
from empirical.training import Models, initial
from empirical.transformer import Classifier
from theory.operators.attention import kolmogorov_arnold, scores, softmax


@pytest.fixture
def untrained():
    def build():
        return Classifier(4, 16, 10, style=Style(width=8, heads=2), layers=2, operators=operators("karat", 2, 2))

    return Models(*initial(build, 0, 2))


def test_the_module_is_the_operator_of_each_head():
    torch.manual_seed(0)
    module = KolmogorovArnold(2, 5, 3, 2)
    q, k = torch.randn(2, 4, 2, 5, 6)
    found = module(q, k)
    assert found.shape == (4, 2, 5, 5)
    one = kolmogorov_arnold(scores(q, k)[:, 1], module.cosine[1], module.sine[1], module.mix[1])
    torch.testing.assert_close(found[:, 1], one)


def test_a_base_function_is_added_to_every_unit():
    torch.manual_seed(0)
    module = KolmogorovArnold(1, 5, 3, 2, base=torch.exp)
    q, k = torch.randn(1, 1, 4, 6), torch.randn(1, 1, 5, 6)
    s = scores(q, k)
    shifted = s.exp().sum(-1, keepdim=True).expand(1, 1, 4, 3) / 5**0.5 @ module.mix.transpose(-2, -1)
    expected = kolmogorov_arnold(s, module.cosine, module.sine, module.mix) + shifted
    torch.testing.assert_close(module(q, k), expected)


def test_only_a_learned_operator_has_parameters():
    assert operators("softmax", 2, 3) == [softmax] * 3
    assert len(list(operators("karat", 2, 1)[0].parameters())) == 3
    for variant in ("frozen", "unmixed"):
        assert not list(operators(variant, 2, 1)[0].parameters())
    assert operators("unmixed", 2, 1)[0].mix.abs().max() == 0


def test_units_one_by_one_are_the_same_operator():
    draw = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape, generator=draw) for shape in ((3, 5, 2), (3, 5, 2), (5, 3))]
    s = torch.randn(4, 5, generator=draw)
    torch.testing.assert_close(broadcast_operator(s, *parts), kolmogorov_arnold(s, *parts))


def test_kept_bytes_count_each_storage_once():
    """Angles are multiplied by the grid, then both sine and cosine keep them, and both products keep their factor."""
    n, r, g = 6, 2, 3
    found = bytes_for_backward(kolmogorov_arnold, n, r, g)
    angles, hidden = 4 * n * n * g, 4 * n * r
    assert found == 3 * angles + hidden + 4 * g


def test_rescaling_scales_the_weights_and_nothing_else(untrained):
    tokens = torch.randn(3, 16, 4, generator=torch.Generator().manual_seed(0))
    other = rescaled(untrained, 4.0)
    assert torch.equal(untrained(tokens), other(tokens))
    np.testing.assert_array_equal(weights(other, 2)[:, 0], 4 * weights(untrained, 2)[:, 0])
    assert weights(other, 2).shape == (2, 2, 2, 2, 16, 16)


def test_sharpness_is_the_largest_eigenvalue():
    """A single linear layer, whose Hessian is small enough to be written out."""
    from empirical.data import digits, patches

    models = Models(*initial(lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), 0, 2))
    values, losses = sharpness(models, 0, rounds=60, images=32)
    images, labels = digits("train")
    tokens, labels = patches(images[:32]), labels[:32]

    def objective(weight, bias):
        return torch.nn.functional.cross_entropy(tokens.flatten(1) @ weight.T + bias, labels)

    for seed in range(2):
        weight, bias = models.tensors["1.weight"][seed], models.tensors["1.bias"][seed]
        blocks = torch.autograd.functional.hessian(objective, (weight, bias))
        hessian = torch.cat(
            [
                torch.cat([b.reshape(a.numel(), -1) for b in row], 1)
                for a, row in zip((weight, bias), blocks, strict=True)
            ]
        )
        assert values[seed] == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-2)
        assert losses[seed] == pytest.approx(objective(weight, bias).item())


def test_the_loss_is_cross_entropy():
    assert loss(lambda x: x, torch.zeros(3, 4), torch.zeros(3).long()).item() == pytest.approx(np.log(4))


def test_a_vision_transformer_has_one_operator_a_block():
    with torch.device("meta"):
        plain, ours = (vision_transformer(192, 3, rank, 3) for rank in (None, 12))
    extra = sum(p.numel() for p in ours.parameters()) - sum(p.numel() for p in plain.parameters())
    assert extra == 12 * 3 * (2 * 12 * 197 * 3 + 197 * 12)

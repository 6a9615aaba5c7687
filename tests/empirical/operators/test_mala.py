"""The digit networks of MALA's claims, and the counting of operations."""

import numpy as np
import pytest
import torch

from empirical.operators import mala as subject
from empirical.operators.mala import (
    VARIANTS,
    LearnedScalars,
    Size,
    accuracy,
    attention_weights,
    operations,
    trained,
    trained_scores,
)
from theory.operators.attention import elu_plus_one, mala_output


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))
    monkeypatch.setitem(subject.SIZES, "small", Size(2, 3, 4, 1e-3, 8, 2, 2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_trains_and_reads_digits(variant):
    found = accuracy(trained(variant, 0))
    assert found.shape == (2,)
    assert ((found >= 0) & (found <= 1)).all()


def test_an_unknown_variant_is_refused():
    with pytest.raises(KeyError, match="nothing"):
        trained("nothing", 0)


def test_weights_of_trained_networks_are_those_of_their_operator():
    for variant, sums in (("mala", 1), ("linear", 1), ("mala without beta", 0)):
        layers = attention_weights(trained(variant, 0))
        assert [tuple(one.shape) for one in layers] == [(2, 450, 2, 16, 16)] * 2
        torch.testing.assert_close(layers[1].sum(-1), torch.full((2, 450, 2, 16), float(sums)), atol=1e-4, rtol=0)


def test_learned_scalars_start_at_mala_s_for_row_sum_one():
    torch.manual_seed(0)
    q, k = torch.randn(2, 5, 4), torch.randn(2, 7, 4)
    kernel = (elu_plus_one(q) @ elu_plus_one(k).mT) / (2 * 7)
    torch.testing.assert_close(LearnedScalars(2, 7)(q, k), 2 * kernel - 1 / 7)


def test_every_layer_and_seed_has_scalars_of_its_own():
    tensors = trained("mala with learned scalars", 0).tensors
    betas = [tensor for name, tensor in tensors.items() if name.endswith("beta")]
    assert [tuple(beta.shape) for beta in betas] == [(2, 2, 1, 1)] * 2
    assert not torch.equal(betas[0], betas[1])


def test_linear_attention_has_no_negative_scores():
    assert (trained_scores("linear", 0) == 0).all()


def test_a_network_of_nans_reads_at_chance():
    models = trained("linear", 0)
    for tensor in models.tensors.values():
        tensor[1] = torch.nan
    assert accuracy(models)[1] == np.float32(0.1)


def test_operations_are_two_for_each_multiply_add():
    assert operations(lambda q, k, v: (q @ k.T) @ v, 10, 3) == 2 * 2 * 10 * 10 * 3
    assert operations(mala_output, 10, 3) == 2 * 10 * 3 * (2 * 3 + 1)

"""The models of the simplified operators: their parts, their sizes and the tasks they are trained on."""

import numpy as np
import pytest
import torch

from empirical.layers import Style
from empirical.operators.deconstructing import (
    BYTES,
    RECALL,
    SIZES,
    Gated,
    ascii_text,
    block_of,
    gated,
    held_out,
    hybrid,
    largest_logits,
    recall_accuracy,
    recall_losses,
    recall_models,
    untrained,
)
from empirical.training import Models

STYLE = Style(24, 2, hidden=2, position="rotary")


def stacked(model):
    return Models(model, {name: tensor[None] for name, tensor in model.state_dict().items()})


def weights(block):
    """Numbers in the matrices of the first branch."""
    return sum(parameter.numel() for parameter in block.attention.layer.parameters() if parameter.ndim == 2)


@pytest.mark.parametrize("kind", ["MLP", "Approximate", "Non-approximate", "RndEmbQK"])
def test_all_kinds_have_as_many_weights(kind):
    assert weights(block_of(kind, STYLE)) == weights(block_of("standard", STYLE)) == 4 * 24**2


def test_an_mlp_needs_a_width_that_three_divides():
    with pytest.raises(ValueError, match="that three divides, not 32"):
        Gated(32)


def test_only_non_approximate_turns_nothing():
    assert not block_of("Non-approximate", STYLE).attention.layer.rotary
    assert block_of("Approximate", STYLE).attention.layer.rotary


def test_hybrids_begin_with_the_simple_kind():
    assert hybrid("MLP", 3) == ("MLP", "standard", "MLP")


def test_per_key_weights_do_not_depend_on_the_query():
    q, k = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.ones(5, 5).tril().bool()
    last = gated(q, k, mask=mask)[-1]
    torch.testing.assert_close(gated(q, k, mask=mask)[2, :3], last[:3] / last[:3].sum())


@pytest.mark.parametrize(
    "kind", ["standard", "Approximate", "Non-approximate", "RndEmbQK", "FixedSeqQK", "StaticEmbQK"]
)
def test_maps_are_causal_and_their_rows_sum_to_one(kind):
    maps = untrained((kind, kind), 3).maps(torch.arange(12)[None] % 5)
    assert len(maps) == 2
    for one in maps:
        torch.testing.assert_close(one.sum(-1), torch.ones_like(one[..., 0]))
        assert not one.triu(1).any()


def test_skipping_all_layers_leaves_the_embedding():
    model, tokens = untrained(("standard", "MLP"), 3), torch.arange(12)[None]
    expected = model.logits(model.norm(model.token(tokens)))
    torch.testing.assert_close(model(tokens, (0, 1)), expected)


def test_a_fixed_text_is_read_as_the_model_reads_it():
    """On its own fixed text a model of FixedSeqQK is the standard model."""
    fixed, standard = untrained(("FixedSeqQK",) * 2, 5), untrained(("standard",) * 2, 5)
    standard.load_state_dict(fixed.state_dict())
    torch.testing.assert_close(fixed(fixed.fixed[None]), standard(fixed.fixed[None]))


def test_logits_are_counted_in_the_layers_that_have_them():
    model = untrained(("Non-approximate", "standard", "Non-approximate"), 1)
    tokens = torch.arange(13)[None] % 16
    assert model.gated_logits(tokens[:, :-1]).shape == (2, 1, 2, 12)
    assert largest_logits(stacked(model), tokens).shape == (1, 2)


def test_the_text_is_ascii_and_excerpts_have_the_models_length():
    assert int(ascii_text("test").max()) < BYTES
    assert held_out(SIZES["small"], 0, 3).shape == (3, 49)


def test_recall_asks_for_each_key_once_and_gives_the_value_that_followed_it():
    tokens, answers = RECALL.sample((2, 5), torch.Generator().manual_seed(0))
    assert tokens.shape == (2, 5, 9)
    for row, right in zip(tokens.flatten(0, 1).tolist(), answers.flatten(0, 1).tolist(), strict=True):
        told = dict(zip(row[:6:2], row[1:6:2], strict=True))
        assert sorted(row[6:]) == sorted(told)
        assert [told[key] - RECALL.keys for key in row[6:]] == right


def test_untrained_models_guess(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))
    models = recall_models(("MLP", "FixedSeqQK"), 1, steps=0, seeds=2)
    assert recall_accuracy(models, 1) == pytest.approx([1 / 6, 1 / 6], abs=0.1)
    loss, key, value = recall_losses(models, 1)
    assert loss.shape == (2, 3 * 512)
    assert set(key) == set(value) == set(range(6))
    assert np.isfinite(loss).all()

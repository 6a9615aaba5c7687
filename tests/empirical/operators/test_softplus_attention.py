"""The byte models of softplus attention: variants, losses on shared targets, and what is measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from empirical.operators import softplus_attention as subject
from empirical.operators.softplus_attention import MORE, SETTINGS, VARIANTS, build, variant
from theory.operators.attention import lssa, reweight, sigmoid, softmax
from theory.operators.positions import causal

TINY = replace(SETTINGS["small"], length=8, width=8, batch=2, steps=2, seeds=2, longest=4, excerpts=3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))
    subject.losses.cache_clear()


@pytest.fixture
def heads():
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 2, 6, 4, generator=generator, dtype=torch.float64)
    return q, k, torch.from_numpy(causal(6))


def test_contexts_double_from_the_training_length():
    assert TINY.contexts == [8, 16, 32]


def test_variants_are_the_operators_of_their_names(heads):
    q, k, mask = heads
    expected = {
        "softmax": softmax(q, k, mask=mask),
        "LSSA": lssa(q, k, mask=mask),
        "LSSAR p=15": reweight(lssa(q, k, mask=mask), 15, mask=mask),
        "sigmoid": sigmoid(q, k, mask=mask, offset=-np.log(8)),
    }
    for name, weights in expected.items():
        torch.testing.assert_close(variant(name, TINY).weights(q, k, mask=mask), weights)


@pytest.mark.parametrize("name", [*VARIANTS, *MORE])
def test_each_variant_predicts_from_earlier_bytes_only(name):
    model = build(TINY, variant(name, TINY)).double()
    text = torch.arange(24).view(1, 24)
    with torch.no_grad():
        one, other = model(text), model(torch.cat([text[:, :20], text[:, :4]], dim=1))
    assert one.shape == (1, 24, subject.CHARACTERS)
    assert torch.isfinite(one).all()
    torch.testing.assert_close(one[:, :20], other[:, :20])


def test_losses_are_those_of_the_same_last_bytes():
    chosen = variant("softmax", TINY)
    found = subject.losses(TINY, chosen, 5)
    assert found.shape == (2, 3)
    generator = torch.Generator().manual_seed(6)
    text = subject.excerpts(subject.text_of("test"), (3,), 33, generator)
    model = subject.train(TINY, chosen, 5).one(1).requires_grad_(False)
    for column, context in enumerate(TINY.contexts):
        logits = model(text[:, -context - 1 : -1])[:, -4:]
        by_hand = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text[:, -4:].flatten())
        assert found[1, column] == pytest.approx(by_hand.item(), rel=1e-5)


def test_another_operator_at_inference_keeps_the_parameters():
    chosen = variant("LSSA", TINY)
    plain = subject.losses(TINY, chosen, 5)
    np.testing.assert_array_equal(subject.losses(TINY, chosen, 5, inference=chosen), plain)
    assert (subject.losses(TINY, chosen, 5, inference=variant("LSSAR p=15", TINY)) != plain).any()


def test_an_offset_that_follows_agrees_at_the_training_length():
    chosen = variant("sigmoid", TINY)
    found, fixed = subject.followed(TINY, chosen, 5), subject.losses(TINY, chosen, 5)
    np.testing.assert_array_equal(found[:, 0], fixed[:, 0])
    assert (found[:, 1:] != fixed[:, 1:]).all()


def test_a_model_that_sees_no_word_saves_nothing():
    """Two steps of training teach no copying: the saving is far below a letter's ln 26."""
    wide = replace(TINY, length=64)
    found = subject.copying(wide, variant("softmax", wide), 5)
    assert found.shape == (2, 3)
    assert abs(found).max() < 0.5


def test_the_entropy_of_a_byte_lies_between_english_and_uniform():
    assert 2 < subject.letter_entropy() < np.log(subject.CHARACTERS)

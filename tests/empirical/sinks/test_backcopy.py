"""Bigram-Backcopy: the law of its sequences, the loss of who knows it, and the settings."""

import math
from dataclasses import replace

import pytest
import torch

from empirical.sinks import backcopy
from empirical.sinks.backcopy import CHARACTERS, MASKS, START, TRIGGERS, Setting

TINY = Setting(width=8, length=8, steps=2, batch=3)


def drawn(count=400, length=20, starts=(0,), seed=0):
    return backcopy.sequences(count, length, starts, torch.Generator().manual_seed(seed))


def test_the_laws_are_distributions_and_the_one_after_the_start_token_is_stationary():
    assert backcopy.laws().shape == (CHARACTERS + 1, CHARACTERS)
    torch.testing.assert_close(backcopy.laws().sum(1), torch.ones(CHARACTERS + 1, dtype=torch.float64))
    assert (backcopy.laws() > 0).all()
    stationary = backcopy.laws()[START]
    torch.testing.assert_close(stationary @ backcopy.bigram(), stationary)


def test_characters_are_in_the_order_of_their_frequency_the_space_first():
    from collections import Counter
    from pydoc_data.topics import topics

    common = Counter("".join(topics.values())).most_common(4)
    assert common[0][0] == " "
    assert {character for character, _ in common[1:]} == set("eta")
    assert TRIGGERS == (1, 2, 3)


@pytest.mark.parametrize("starts", [(), (0,), (2,), (0, 5), (3, 4)])
def test_start_tokens_stand_at_their_positions_and_nowhere_else(starts):
    tokens = drawn(starts=starts)
    assert tokens.shape == (400, 20)
    places = (tokens == START).nonzero()[:, 1].unique().tolist()
    assert places == sorted(starts)
    assert tokens.min() >= 0


@pytest.mark.parametrize("starts", [(), (0,), (4,), (0, 5)])
def test_after_a_trigger_comes_the_token_before_it(starts):
    tokens, copied = drawn(starts=starts), 0
    for t in range(2, 20):
        if t in starts:
            continue
        rows = backcopy.is_trigger(tokens[:, t - 1]) & (tokens[:, t - 2] != START)
        assert torch.equal(tokens[rows, t], tokens[rows, t - 2])
        copied += int(rows.sum())
    assert copied > 500


def test_other_tokens_follow_the_bigram():
    tokens = drawn(20_000, 3)
    now, then = tokens[:, 1], tokens[:, 2]
    rows = now == 0  # after a space
    counts = torch.bincount(then[rows], minlength=CHARACTERS).double()
    expected = backcopy.bigram()[0] * rows.sum()
    deviation = (counts - expected) / expected.sqrt()
    assert deviation.abs().max() < 6
    first = torch.bincount(now, minlength=CHARACTERS).double() / len(tokens)
    assert (first - backcopy.laws()[START]).abs().max() < 6 * 0.5 / math.sqrt(len(tokens))


def test_no_sequence_and_sequences_of_one_token_can_be_drawn():
    assert drawn(0, 5).shape == (0, 5)
    assert drawn(3, 1).tolist() == [[START]] * 3


def test_a_start_outside_the_sequence_is_refused():
    for starts in ((5,), (-1,)):
        with pytest.raises(ValueError, match="do not lie in a sequence of 5"):
            drawn(1, 5, starts)


def test_who_knows_the_task_pays_for_what_is_drawn_and_not_for_copies_and_start_tokens():
    law = backcopy.laws().log()
    tokens = torch.tensor([[START, 7, 1, 7, 0]])  # <s> x e x _: the second x is a copy
    expected = -(law[START, 7] + law[7, 1] + law[7, 0]) / 4
    assert backcopy.bayes_loss(tokens, (0,)) == pytest.approx(float(expected))
    tokens = torch.tensor([[START, 1, 9, START, 4]])  # a trigger right after <s> does not copy; <s> at 3 is known
    expected = -(law[START, 1] + law[1, 9] + law[START, 4]) / 4
    assert backcopy.bayes_loss(tokens, (0, 3)) == pytest.approx(float(expected))


def test_no_model_beats_who_knows_the_task():
    tokens = drawn(2000, 12)
    assert float(backcopy.loss_of(oracle, tokens)) == pytest.approx(backcopy.bayes_loss(tokens, (0,)), rel=1e-6)


def oracle(tokens):
    """Logits of the next token of sequences with <s> at 0 alone, by the rule."""
    logits = torch.full((*tokens.shape, CHARACTERS + 1), -1e9, dtype=torch.float64)
    logits[..., :CHARACTERS] = backcopy.laws()[tokens].log()
    for t in range(1, tokens.shape[1]):
        rows = backcopy.copies(tokens, t)
        logits[rows, t] = -1e9
        logits[rows, t, tokens[rows, t - 1]] = 0
    return logits


def test_the_same_seed_gives_the_same_sequences_and_held_out_ones_are_others():
    assert torch.equal(drawn(seed=3), drawn(seed=3))
    setting = replace(TINY, length=20)
    held = backcopy.held_out(setting, 400, 3)
    assert torch.equal(held, backcopy.held_out(setting, 400, 3))
    assert not torch.equal(held, drawn(seed=3))


@pytest.mark.parametrize("name", MASKS)
def test_masks_look_back_only_and_windows_have_their_width(name):
    mask = torch.from_numpy(MASKS[name](20))
    assert not mask.triu(1).any()
    assert mask.diagonal().all() == (name == "causal")
    if name.startswith("window"):
        width = int(name.split()[1])
        assert mask.sum(1).tolist() == [min(t, width) for t in range(20)]
        assert mask[width, 0]
        assert not mask[width + 1, 0]


def test_the_setting_decides_what_is_built():
    model = Setting("key bias", layers=2, width=12, heads=3, length=9).build()
    assert len(model.blocks) == 2
    assert model.blocks[0].attention.layer.star_key.shape == (3, 1, 4)
    assert model(torch.zeros(2, 9, dtype=torch.int64)).shape == (2, 9, CHARACTERS + 1)
    with pytest.raises(ValueError, match="the model reads 9"):
        model(torch.zeros(2, 10, dtype=torch.int64))


def test_models_are_stacked_by_seed_and_variants_without_parameters_of_their_own_start_alike():
    plain = backcopy.train(replace(TINY, steps=0), 5, 3)
    other = backcopy.train(replace(TINY, steps=0, variant="sigmoid"), 5, 3)
    assert len(plain) == 3
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(other.tensors[name], tensor)
    table = plain.tensors["token.weight"]
    assert not torch.allclose(table[0], table[1])


def test_a_little_training_lowers_the_loss_of_every_seed_and_repeats_itself():
    setting = replace(TINY, steps=30, rate=0.01)
    held = backcopy.held_out(setting, 64, 5)
    trained = backcopy.losses(backcopy.train(setting, 5, 2), held)
    fresh = backcopy.losses(backcopy.train(replace(setting, steps=0), 5, 2), held)
    assert (trained < fresh).all()


def test_few_sequences_for_each_seed_must_fit_the_pool():
    with pytest.raises(ValueError, match="take fewer"):
        backcopy.train(replace(TINY, sequences=15_000), 0, 2)
    assert len(backcopy.train(replace(TINY, sequences=2, steps=1), 0, 2)) == 2

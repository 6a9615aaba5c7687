"""Small models in which sinks emerge: settings, sequences, and what is measured."""

from dataclasses import replace

import pytest
import torch

from empirical.data import library_text
from empirical.layers import Branch
from empirical.sinks import sink_emergence as toy
from empirical.sinks.backcopy import CHARACTERS, START
from empirical.sinks.observe import observe
from empirical.sinks.sink_emergence import BYTE_START, PostNorm, Setting

TINY = Setting(width=8, length=8, steps=0, batch=2)


def made(**changes):
    torch.manual_seed(0)
    return replace(TINY, **changes).build()


def weights(model, tokens):
    found = []
    observe(model, tokens, lambda layer: found.append(layer.weights))
    return found


def tokens(setting=TINY, count=6):
    return toy.held_out(setting, count, 0)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_without_changes_the_model_is_that_of_the_task():
    from empirical.sinks import backcopy

    torch.manual_seed(0)
    plain = backcopy.Setting(width=8, length=8).build()
    for (name, one), (_, other) in zip(made().named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_tokens_of_a_prefix_see_one_another_but_not_themselves():
    (A,) = weights(made(prefix=3), tokens())
    seen = (A[:, 0] > 0).all(0)
    expected = torch.ones(8, 8, dtype=torch.bool).tril(-1)
    expected[:3, :3] = ~torch.eye(3, dtype=torch.bool)
    assert torch.equal(seen, expected)


def test_the_loss_leaves_the_prefix_out():
    def model(tokens):
        return torch.randn(2, 7, 65, generator=torch.Generator().manual_seed(0))

    x = torch.randint(64, (2, 8))
    expected = torch.nn.functional.cross_entropy(model(x)[:, 3:].flatten(0, 1), x[:, 4:].flatten())
    torch.testing.assert_close(toy.loss_of(model, x, since=3), expected)


def test_rows_sum_to_the_total():
    (A,) = weights(made(total=0.25), tokens())
    torch.testing.assert_close(A.sum(-1)[..., 1:], torch.full((6, 1, 7), 0.25))


def test_a_fixed_value_lies_on_the_first_axis_and_the_key_has_its_dimensions():
    layer = made(variant="key bias", star=3.0, dimensions=2).blocks[0].attention.layer
    assert layer.star_value.flatten().tolist() == [3.0] + [0.0] * 7
    assert layer.star_key.count_nonzero() == 2
    layer.star_key.sum().backward()
    (learned,) = (value for name, value in layer.named_parameters() if "star_key" in name)
    assert learned.grad.flatten().tolist() == [1.0, 1.0] + [0.0] * 6


def test_a_key_without_learned_dimensions_makes_softmax_off_by_one():
    model, x = made(variant="key bias", dimensions=0), tokens()
    (A,) = weights(model, x)
    attention = model.blocks[0].attention
    q, k = attention.layer.queries_and_keys(attention.norm(model.places(model.token(x))))
    s = (q @ k.transpose(-2, -1) / 8**0.5).exp().tril(-1)
    torch.testing.assert_close(A[..., 1:], s / (1 + s.sum(-1, keepdim=True)))


def test_with_post_norm_every_state_after_a_branch_is_normalised():
    model, states = made(post_norm=True, layers=2), []
    observe(model, tokens(), lambda layer: states.append(layer.hidden))
    torch.testing.assert_close(states[1].square().mean(-1), torch.ones(6, 8), rtol=1e-3, atol=1e-3)
    assert all(type(module) is PostNorm for module in model.modules() if isinstance(module, Branch))
    block, x = model.blocks[0], states[0]
    attended = x + block.attention.layer(x, mask=torch.from_numpy(model.mask(8)))
    normed = attended / (attended.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(block.attention(x, mask=torch.from_numpy(model.mask(8))), normed)


# -- sequences ---------------------------------------------------------------------------------------------------------


def test_text_is_bytes_of_the_library_with_the_start_token_in_front():
    setting = replace(TINY, text=True)
    x = toy.sequences(setting, 5, 0)
    assert x[:, 0].tolist() == [BYTE_START] * 5
    train = bytes(library_text("train").tolist())
    assert all(bytes(row[1:].tolist()) in train for row in x)
    assert bytes(toy.held_out(setting, 1, 0)[0, 1:].tolist()) in bytes(library_text("test").tolist())
    assert setting.vocabulary == 257


@pytest.mark.parametrize("text", [False, True])
def test_uniform_positions_are_drawn_from_all_ordinary_tokens(text):
    setting = replace(TINY, text=text, starts=(), uniform=(0, 3))
    x = toy.sequences(setting, 20_000, 0)
    ordinary = setting.vocabulary - 1
    for place in (0, 3):
        assert x[:, place].unique().tolist() == list(range(ordinary))
    plain = toy.sequences(replace(setting, uniform=()), 20_000, 0)
    assert torch.equal(x[:, [1, 2, 4, 5, 6, 7]], plain[:, [1, 2, 4, 5, 6, 7]])


def test_random_tokens_keep_the_start_token():
    x = toy.random_tokens(replace(TINY, starts=(2,)), 1000, 0)
    assert (x[:, 2] == START).all()
    assert x[:, [0, 1, 3]].max() == CHARACTERS - 1


# -- training ----------------------------------------------------------------------------------------------------------


def test_a_training_can_go_on_from_models_that_are_trained():
    first = replace(TINY, steps=2)
    before, after = toy.train(first, 7, 2), toy.train(replace(TINY, after=first), 7, 2)
    for name, tensor in before.tensors.items():
        assert torch.equal(after.tensors[name], tensor)


def test_few_sequences_must_fit_the_pool():
    with pytest.raises(ValueError, match="take fewer"):
        toy.train(replace(TINY, sequences=15_000), 0, 2)


@pytest.mark.parametrize("changes", [
    {"variant": "key bias", "dimensions": 1, "star": 2.0}, {"prefix": 3}, {"post_norm": True}, {"gated": False},
    {"text": True, "variant": "gate"}, {"total": 0.5}, {"uniform": (0,), "starts": ()},
])  # fmt: skip
def test_every_kind_of_setting_trains(changes):
    setting = replace(TINY, steps=2, **changes)
    fresh, trained = (toy.train(one, 3, 2) for one in (replace(setting, steps=0), setting))
    moved = [name for name in fresh.tensors if not torch.equal(fresh.tensors[name], trained.tensors[name])]
    assert "token.weight" in moved
    assert not any("star_value" in name for name in moved)
    assert toy.losses(trained, tokens(setting), setting.prefix).isfinite().all()


# -- measurements ------------------------------------------------------------------------------------------------------


def test_mean_weights_are_of_the_queries_among_which_they_are_taken():
    models, x = toy.train(replace(TINY, heads=2), 0, 2), tokens()
    among = torch.zeros(6, 8, dtype=torch.bool)
    among[:2, 3] = True
    among[4, 5] = True
    found = toy.mean_weights(models, x, among)
    (A,) = weights(models.one(1), x)
    torch.testing.assert_close(found[1, 0, :, 3], A[:2, :, 3].mean(0))
    torch.testing.assert_close(found[1, 0, :, 5], A[4, :, 5])
    assert not found[:, :, :, [0, 1, 2, 4, 6, 7]].any()
    torch.testing.assert_close(toy.mean_weights(models, x)[1, 0], A.mean(0))


def test_insides_have_the_seeds_in_front():
    from empirical.sinks.inside import look_inside

    models, x = toy.train(replace(TINY, heads=2, variant="key bias"), 0, 3), tokens()
    found = toy.insides(models, x)
    assert found.sinks.shape == (3, 1, 2, 8)
    torch.testing.assert_close(found.star[2], look_inside(models.one(2), x).star)
    assert toy.by_seed(found.sinks).shape == (3,)


def test_exchanged_positions_are_those_of_the_other_place():
    models = toy.train(TINY, 0, 2)
    table, changed = (one.tensors["places.table.weight"] for one in (models, toy.with_places(models, [2, 1, 0])))
    assert torch.equal(changed[:, [2, 1, 0]], table[:, :3])
    assert torch.equal(changed[:, 3:], table[:, 3:])
    x = tokens()
    torch.testing.assert_close(toy.with_places(models, [0])(x), models(x))


def test_equal_keys_change_the_length_of_the_first_key_alone():
    models, x = toy.train(TINY, 0, 1), tokens()
    layers = []
    observe(models.one(0), x, layers.append)
    ratio = layers[0].keys.norm(dim=-1)
    ratio = ratio[..., 0] / ratio[..., 1:].mean(-1)
    s = layers[0].queries @ layers[0].keys.transpose(-2, -1) / 8**0.5
    s[..., 0] /= ratio[..., None]
    s = s.masked_fill(~torch.ones(8, 8, dtype=torch.bool).tril(-1), -torch.inf)
    (A,) = weights(toy.with_equal_keys(models).one(0), x)
    torch.testing.assert_close(A[..., 1:, :], s.softmax(-1)[..., 1:, :])

"""Observing a model: what is shown is what the model computes."""

import pytest
import torch

from empirical.sinks.backcopy import Setting
from empirical.sinks.inside import look_inside
from empirical.sinks.observe import observe
from theory.sinks import measures


def made(variant="softmax", **changes):
    torch.manual_seed(0)
    setting = Setting(variant, **{"layers": 2, "width": 8, "heads": 2, "length": 6, **changes})
    return setting.build(), torch.randint(64, (3, 6))


def seen(model, tokens):
    layers = []
    output = observe(model, tokens, layers.append)
    return layers, output


def test_layers_are_shown_in_order_and_the_output_is_the_models():
    model, tokens = made()
    layers, output = seen(model, tokens)
    assert [layer.index for layer in layers] == [0, 1]
    torch.testing.assert_close(output, model(tokens))
    assert not output.requires_grad


def test_the_hidden_state_is_what_each_block_gets():
    model, tokens = made()
    layers, _ = seen(model, tokens)
    x = model.places(model.token(tokens))
    torch.testing.assert_close(layers[0].hidden, x)
    mask = torch.from_numpy(model.mask(6))
    torch.testing.assert_close(layers[1].hidden, model.blocks[0](x, mask=mask))


@pytest.mark.parametrize("variant", ["softmax", "sigmoid"])
def test_weights_and_values_give_what_the_layer_adds(variant):
    model, tokens = made(variant)
    mask = torch.from_numpy(model.mask(6))
    for layer, block in zip(seen(model, tokens)[0], model.blocks, strict=True):
        mixed = (layer.weights @ layer.values).transpose(1, 2).flatten(2)
        attended = block.attention(layer.hidden, mask=mask)
        torch.testing.assert_close(layer.hidden + block.attention.layer.output(mixed), attended)


def test_queries_and_keys_give_the_weights():
    model, tokens = made()
    for layer in seen(model, tokens)[0]:
        scores = layer.queries @ layer.keys.transpose(-2, -1) / 4**0.5
        scores = scores.masked_fill(~torch.from_numpy(model.mask(6)), -torch.inf)
        torch.testing.assert_close(layer.weights[..., 1:, :], scores.softmax(-1)[..., 1:, :])


def test_a_learned_key_counts_as_one_that_belongs_to_no_token():
    for variant, stars in (("softmax", 0), ("value bias", 0), ("key bias", 1), ("key-value bias", 1)):
        model, tokens = made(variant)
        for layer in seen(model, tokens)[0]:
            assert layer.stars == stars
            assert layer.weights.shape == (3, 2, 6, 6 + stars)
            assert layer.keys.shape == layer.values.shape == (3, 2, 6, 4)


def test_the_masks_first_token_sees_nothing_and_the_others_what_came_before():
    model, tokens = made()
    for layer in seen(model, tokens)[0]:
        mass = measures.row_mass(layer.weights)
        assert not mass[..., 0].any()
        torch.testing.assert_close(mass[..., 1:], torch.ones(3, 2, 5))
        assert not layer.weights.triu().any()


def test_one_token_can_be_observed():
    model, tokens = made()
    layers, output = seen(model, tokens[:, :1])
    assert output.shape == (3, 1, 65)
    assert layers[0].weights.shape == (3, 2, 1, 1)


def test_the_model_is_as_before_also_when_the_callback_fails():
    model, tokens = made()

    def fail(layer):
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        observe(model, tokens, fail)
    assert not any(module._forward_pre_hooks for module in model.modules())
    model(tokens)


def test_a_model_without_attention_is_refused():
    with pytest.raises(ValueError, match="nothing to observe"):
        observe(torch.nn.Linear(2, 2), torch.zeros(1, 2), print)


def test_means_over_sequences_do_not_depend_on_the_batch():
    model, tokens = made("key bias")
    whole, parts = look_inside(model, tokens, batch=3), look_inside(model, tokens, batch=2)
    for name, value in vars(whole).items():
        torch.testing.assert_close(getattr(parts, name), value)
    assert whole.sinks.shape == whole.importance.shape == (2, 2, 6)
    assert whole.star.shape == whole.angle.shape == (2, 2)


def test_inside_a_sequence_of_two_tokens_the_second_sees_the_first_alone():
    model, tokens = made()
    found = look_inside(model, tokens[:, :2])
    torch.testing.assert_close(found.importance, torch.tensor([0.5, 0.0]).expand(2, 2, 2))
    torch.testing.assert_close(found.mass, torch.full((2, 2), 0.5))
    with pytest.raises(ValueError, match="two tokens or more"):
        look_inside(model, tokens[:, :1])
    with pytest.raises(ValueError, match="one sequence or more"):
        look_inside(model, tokens[:0])

"""The shared transformer: what each of its options does."""

import pytest

torch = pytest.importorskip("torch")

from functools import partial  # noqa: E402

from empirical.layers import Attention, Style  # noqa: E402
from empirical.transformer import Block, Classifier, Decoder  # noqa: E402
from theory.operators.attention import lssa, sigmoid, softmax  # noqa: E402


def generator():
    return torch.Generator().manual_seed(0)


def tokens(count=2, length=6):
    return torch.randint(9, (count, length), generator=generator())


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "alibi", "none"])
@pytest.mark.parametrize("operator", [softmax, partial(sigmoid, offset=-2.0)])
def test_the_decoder_does_not_look_ahead(position, operator):
    model, old = Decoder(9, 6, style=Style(8, position=position), operators=operator), tokens()
    new = old.clone()
    new[:, 4] = (new[:, 4] + 1) % 9
    before, after = model(old), model(new)
    assert before.shape == (2, 6, 9)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "alibi"])
def test_each_position_scheme_tells_the_order_of_earlier_tokens(position):
    model, old = Decoder(9, 6, style=Style(8, position=position), layers=1), torch.tensor([[1, 2, 3, 4]])
    assert not torch.allclose(model(old)[:, -1], model(old[:, [1, 0, 2, 3]])[:, -1])


def test_without_positions_the_order_of_earlier_tokens_is_not_seen():
    model, old = Decoder(9, 6, style=Style(8, position="none"), layers=1), torch.tensor([[1, 2, 3, 4]])
    torch.testing.assert_close(model(old)[:, -1], model(old[:, [1, 0, 2, 3]])[:, -1])


def test_attention_averages_what_came_before_when_all_scores_are_equal():
    layer = Attention(Style(4))
    with torch.no_grad():
        for weights in layer.parameters():
            weights.zero_()
        layer.values.weight[:] = torch.eye(4)
        layer.output.weight[:] = torch.eye(4)
    x = torch.randn(1, 3, 4, generator=generator())
    means = x.cumsum(1) / torch.arange(1, 4)[:, None]
    torch.testing.assert_close(layer(x, mask=torch.ones(3, 3, dtype=torch.bool).tril()), means)


def test_queries_and_keys_come_from_the_source_and_values_from_the_input():
    block, x = Block(Style(8)), torch.randn(2, 1, 5, 8, generator=generator())
    weights = block.attention.layer.weights(block.attention.norm(x[1]))
    changed = block.attention.layer.weights(block.attention.norm(x[0]))
    values = block.attention.layer.split(block.attention.layer.values(block.attention.norm(x[0])))
    mixed = block.attention.layer.output((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(block(x[0], source=x[1]), block.hidden(x[0] + mixed))
    assert not torch.allclose(weights, changed)


def test_normalised_queries_do_not_feel_the_size_of_the_weights():
    layer, x = Attention(Style(8, qk_norm=True)), torch.randn(1, 5, 8, generator=generator())
    with torch.no_grad():
        layer.queries_keys.bias.zero_()
        before = layer.weights(x)
        layer.queries_keys.weight.mul_(3)
    torch.testing.assert_close(layer.weights(x), before, rtol=1e-4, atol=1e-5)


def test_a_branch_of_scale_zero_adds_nothing():
    block, x = Block(Style(8, layer_scale=0.0, branch_norm=True)), torch.randn(1, 5, 8, generator=generator())
    assert torch.equal(block(x), x)


def test_a_normalised_branch_adds_vectors_of_unit_size():
    block, x = Block(Style(8, branch_norm=True)), torch.randn(1, 5, 8, generator=generator())
    added = block.attention(x) - x
    torch.testing.assert_close(added.square().mean(-1), torch.ones(1, 5), rtol=1e-2, atol=1e-2)


def test_each_layer_can_have_an_operator_of_its_own():
    model = Decoder(9, 6, style=Style(8), layers=2, operators=[softmax, lssa])
    assert [block.attention.layer.operator for block in model.blocks] == [softmax, lssa]
    with pytest.raises(ValueError, match="1 operators for 2 layers"):
        Decoder(9, 6, layers=2, operators=[softmax])


def test_the_classifier_without_positions_does_not_see_the_order_of_patches():
    model, x = Classifier(4, 16, 10, style=Style(8, position="none")), torch.rand(3, 16, 4, generator=generator())
    assert model(x).shape == (3, 10)
    torch.testing.assert_close(model(x), model(x.flip(1)))


def test_a_sequence_beyond_the_context_is_refused():
    with pytest.raises(ValueError, match="7 tokens, but the model reads 6"):
        Decoder(9, 6)(torch.zeros(1, 7, dtype=torch.int64))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        Style(width=10, heads=4)

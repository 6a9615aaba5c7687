"""A model of transformers under observation: what is shown is what it computes, and one layer of it at a time."""

import weakref
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("transformers", reason="needs transformers (pip install transformers)")

from empirical.checkpoints import Lacks  # noqa: E402
from empirical.sinks.observe_checkpoint import observe  # noqa: E402
from tests.empirical.small_models import BYTES, HEADS, LAYERS, WIDTH, make_model  # noqa: E402

KINDS = ["gpt2", "llama", "mistral", "qwen2", "neox", "bert"]
BATCH, LENGTH = 2, 12


def eager(kind):
    model = make_model(kind).eval()
    model.set_attn_implementation("eager")
    return model


@pytest.fixture
def tokens():
    return torch.randint(len(BYTES), (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [*KINDS, "bloom"])
def test_what_is_shown_is_what_the_library_returns(kind, tokens):
    model, layers = eager(kind), []
    with torch.no_grad():
        expected = model(tokens, output_attentions=True, output_hidden_states=True)
    output = observe(model, tokens, layers.append)
    assert torch.equal(output[0], expected[0])
    assert [layer.index for layer in layers] == list(range(len(expected.attentions)))
    for layer, weights, hidden in zip(layers, expected.attentions, expected.hidden_states, strict=False):
        assert torch.equal(layer.weights, weights)
        assert torch.equal(layer.hidden, hidden)
    for before, after in pairwise(layers):
        assert torch.equal(before.output, after.hidden)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_follow_from_the_queries_and_keys_that_are_shown(kind, tokens):
    layers = []
    observe(eager(kind), tokens, layers.append)
    assert len(layers) == LAYERS
    for layer in layers:
        shape = (BATCH, HEADS, LENGTH, WIDTH // HEADS)
        assert layer.queries.shape == layer.keys.shape == layer.values.shape == shape
        scores = layer.queries @ layer.keys.mT / (WIDTH // HEADS) ** 0.5
        seen = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril() | (kind == "bert")
        torch.testing.assert_close(scores.masked_fill(~seen, -torch.inf).softmax(-1), layer.weights)


def test_edited_weights_are_shown_and_meet_the_values(tokens):
    """With weights of 1 / n in place of its own, each head of the first layer puts out the mean of its values."""
    model, layers, mixed = eager("llama"), [], []
    model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(lambda module, given: mixed.append(given[0]))
    observe(model, tokens, layers.append, edit=lambda index, weights: torch.full_like(weights, 1 / LENGTH))
    assert torch.equal(layers[0].weights, torch.full_like(layers[0].weights, 1 / LENGTH))
    expected = layers[0].values.mean(2).flatten(1)[:, None].expand(-1, LENGTH, -1)
    torch.testing.assert_close(mixed[0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_that_changes_nothing_changes_nothing_and_another_does(kind, tokens):
    model = eager(kind)
    plain = observe(model, tokens)[0]
    torch.testing.assert_close(observe(model, tokens, edit=lambda index, weights: weights)[0], plain)
    changed = observe(model, tokens, edit=lambda index, weights: weights * (index != 1))[0]
    assert not torch.allclose(changed, plain)
    torch.testing.assert_close(model(tokens)[0], plain)


@pytest.mark.parametrize("kind", [*KINDS, "bloom"])
def test_no_more_than_one_layer_of_attention_is_held(kind, tokens):
    model, seen, held = eager(kind), [], []

    def see(layer):
        seen.append(weakref.ref(layer.weights))
        del layer
        held.append(sum(one() is not None for one in seen))

    observe(model, tokens, see)
    assert len(held) > 1
    assert max(held) == 1


def test_a_model_whose_attention_is_hidden_shows_weights_alone_and_cannot_be_changed(tokens):
    layers = []
    observe(eager("bloom"), tokens, layers.append)
    assert {(layer.queries, layer.keys, layer.values) for layer in layers} == {(None, None, None)}
    with pytest.raises(Lacks, match="attention that can be changed: BloomForCausalLM computes it in code of its own"):
        observe(eager("bloom"), tokens, edit=lambda index, weights: weights)


def test_a_model_without_attention_says_so_with_the_remedy(tokens):
    with pytest.raises(Lacks, match=r"attention that can be observed: no module of MambaForCausalLM .*'eager'"):
        observe(make_model("mamba"), tokens)


def test_a_sequence_beyond_the_positions_is_refused():
    with pytest.raises(ValueError, match="300 tokens, but GPT2LMHeadModel reads 256: give shorter sequences"):
        observe(eager("gpt2"), torch.zeros(1, 300, dtype=torch.long))


@pytest.mark.parametrize("kind", ["llama", "bloom"])
def test_a_model_is_left_as_it_was_even_where_the_observer_fails(kind, tokens):
    model = eager(kind)

    def fail(layer):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        observe(model, tokens, fail)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.config._attn_implementation == "eager"

"""What is measured of a checkpoint: planted sinks and outliers are found where they are, and nowhere else."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("transformers", reason="needs transformers (pip install transformers)")

from empirical.checkpoints import LENGTH, SEQUENCES, load  # noqa: E402
from empirical.sinks.observe_checkpoint import observe  # noqa: E402
from empirical.sinks.portrait import GAMMAS, portrait, sequences, sink_heads, special_tokens  # noqa: E402
from empirical.sinks.weight_outliers import weight_outliers  # noqa: E402
from tests.empirical.small_models import (  # noqa: E402
    BYTES,
    DIMENSION,
    HEADS,
    LAYERS,
    MASSIVE,
    make_model,
    make_tokenizer,
    planted_bert,
    planted_gpt2,
    planted_llama,
    save,
)
from theory.operators.attention import softmax  # noqa: E402
from theory.sinks import measures  # noqa: E402

TEXT = "abcdefgh ijklmno. pqrstuvw xyz ABCDEFGH " * 200


def of(model, folder, tokenizer="decoder", text=TEXT, **given):
    return load(save(model, folder, tokenizer), text=text, **given)


# -- planted, and absent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 2), (2, 3)])
def test_a_planted_sink_is_found_in_its_head_and_no_other_has_one(tmp_path, layer, head):
    checkpoint = of(planted_gpt2(layer, head), tmp_path)
    for kind in ("natural", "random", "repeated"):
        assert sink_heads(portrait(checkpoint, kind)).tolist() == [[layer, head, 0]]


@pytest.mark.parametrize("position", [0, 5, 60])
def test_the_sink_of_an_encoder_may_be_at_any_position(tmp_path, position):
    checkpoint = of(planted_bert(1, 3, position), tmp_path, "encoder")
    found = portrait(checkpoint)
    assert not found.is_causal
    assert found.judged == LENGTH
    assert sink_heads(found).tolist() == [[1, 3, position]]


@pytest.mark.parametrize(("kind", "tokenizer"), [("gpt2", "decoder"), ("llama", "decoder"), ("bert", "encoder")])
def test_before_training_there_is_no_sink_and_no_outlier(tmp_path, kind, tokenizer):
    checkpoint = of(make_model(kind), tmp_path, tokenizer)
    found = portrait(checkpoint)
    assert not len(sink_heads(found))
    assert not found.outliers.any()
    assert not found.attention_outliers.any()
    assert not any(one.outputs for one in weight_outliers(checkpoint))


def test_fresh_weights_have_nothing_of_what_was_planted(tmp_path):
    checkpoint = of(planted_gpt2(), tmp_path)
    fresh = portrait(checkpoint, "natural", "fresh")
    assert not len(sink_heads(fresh))
    assert not fresh.outliers.any()
    assert not any(one.outputs for one in weight_outliers(checkpoint, "fresh"))
    assert len(sink_heads(portrait(checkpoint)))


def test_a_planted_activation_is_found_in_its_dimension_at_its_position_in_every_layer(tmp_path):
    found = portrait(of(planted_gpt2(), tmp_path))
    sequence, layer, place, rank = np.nonzero(found.outliers)
    assert len(sequence) == SEQUENCES * LAYERS
    assert set(place) == set(rank) == {0}
    assert set(layer) == set(range(LAYERS))
    assert set(found.dimensions[found.outliers]) == {DIMENSION}
    np.testing.assert_allclose(found.top[found.outliers], MASSIVE, rtol=0.05)


def test_massive_tokens_are_found_wherever_they_stand(tmp_path):
    found = portrait(of(planted_llama(), tmp_path))
    assert np.array_equal(found.outliers.any(axis=(1, 3)), found.tokens == BYTES["."])
    assert set(found.dimensions[found.outliers]) == {DIMENSION}
    dots = found.importance[:, 1, 1][found.tokens == BYTES["."]]
    assert dots[: len(dots) // 2].min() > measures.EPSILON


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_planted_weight_is_found_by_the_output_that_it_writes_to(tmp_path, kind):
    model = planted_gpt2() if kind == "gpt2" else make_model("llama")
    if kind == "llama":
        with torch.no_grad():
            model.model.layers[2].mlp.down_proj.weight[11, 5] = -60.0
    [one] = [one for one in weight_outliers(of(model, tmp_path)) if one.outputs]
    name, output = ("transformer.h.0.mlp.c_proj", DIMENSION) if kind == "gpt2" else ("model.layers.2.mlp.down_proj", 11)
    assert (one.name, one.outputs, one.writes) == (name, (output,), True)
    size = abs(model.get_submodule(name).weight.detach())
    assert one.ratio == pytest.approx(float(size.max() / size.mean()), rel=1e-6)


def test_all_matrices_of_the_blocks_are_looked_at_and_no_other(tmp_path):
    names = {one.name: one.writes for one in weight_outliers(of(make_model("llama"), tmp_path))}
    assert len(names) == 7 * LAYERS
    assert all(name.startswith("model.layers.") for name in names)
    assert {name.rpartition(".")[2] for name, writes in names.items() if not writes} == {
        "k_proj",
        "v_proj",
        "gate_proj",
        "up_proj",
    }


# -- what the numbers are ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["llama", "bert"])
def measured(request, tmp_path):
    """A checkpoint, its portrait, and all layers as they were observed."""
    tokenizer = {"llama": "decoder", "bert": "encoder"}[request.param]
    checkpoint, layers = of(make_model(request.param), tmp_path, tokenizer), []
    observe(checkpoint.model, sequences(checkpoint, "natural"), layers.append)
    return portrait(checkpoint), layers


def test_importance_entropy_and_lengths_are_the_measures_of_the_weights(measured):
    found, layers = measured
    for index, layer in enumerate(layers):
        importance = measures.importance(layer.weights) if found.is_causal else layer.weights.mean(-2)
        close(found.importance[:, index], importance)
        close(found.entropy[:, index, GAMMAS.index(1)], measures.entropy(layer.weights).mean(1))
        close(found.values[:, index], layer.values.norm(dim=-1))
        close(found.keys[:, index], layer.keys.norm(dim=-1))


def test_cosines_are_means_over_the_queries_that_see_a_key(measured):
    found, layers = measured
    for index, layer in enumerate(layers):
        cosines = measures.cosines(layer.queries, layer.keys)
        seen = torch.ones(LENGTH, LENGTH).tril() if found.is_causal else torch.ones(LENGTH, LENGTH)
        close(found.cosines[:, index], (cosines * seen).sum(-2) / seen.sum(-2), atol=1e-5)


def test_magnitudes_and_distances_are_those_of_the_hidden_states(measured):
    found, layers = measured
    for index, layer in enumerate(layers):
        size = layer.output.abs()
        close(found.top[:, index, :, 0], size.amax(-1))
        assert np.array_equal(found.dimensions[:, index, :, 0], size.argmax(-1))
        close(found.mean[:, index], size.mean((1, 2)))
        for name, hidden in (("spread", layer.output), ("apart", layer.hidden)):
            far = (hidden - hidden[:, :1]).norm(dim=-1).amax(1) / hidden[:, 0].norm(dim=-1)
            close(getattr(found, name)[:, index], far)


def test_shuffled_rows_keep_the_first_weight_and_the_sum(measured):
    found, _ = measured
    if not found.is_causal:
        assert not found.shuffled.any()
        return
    seen = np.arange(LENGTH, 0, -1)
    close(found.shuffled[..., 0], torch.from_numpy(found.importance[..., 0]))
    np.testing.assert_allclose((found.shuffled * seen).sum(-1), LENGTH, rtol=1e-5)
    assert not np.allclose(found.shuffled, found.importance)


def close(found, expected, **given):
    np.testing.assert_allclose(found, expected.numpy(), **({"rtol": 1e-4} | given))


def test_tuned_entropies_are_those_of_the_scaled_rows(tmp_path):
    """Two keys seen, weights p and 1 - p: gamma scales the odds."""
    found = portrait(of(planted_gpt2(), tmp_path))
    weights = softmax(torch.tensor([[[0.0], [0.0]]]), torch.zeros(1, 2, 1))
    assert weights[0, 1].tolist() == [0.5, 0.5]
    near_uniform = found.entropy[:, 0, :, 1]
    for number, gamma in enumerate(GAMMAS):
        p = gamma / (1 + gamma)
        np.testing.assert_allclose(near_uniform[:, number], -p * np.log(p) - (1 - p) * np.log(1 - p), atol=0.01)


def test_on_a_repeated_token_relative_positions_alone_leave_all_hidden_states_equal(tmp_path):
    llama = portrait(of(make_model("llama"), tmp_path / "llama"), "repeated")
    assert llama.apart[:, 0].max() == 0
    assert llama.spread.max() < 1e-5
    assert portrait(of(make_model("gpt2"), tmp_path / "gpt2"), "repeated").apart[:, 0].min() > 0.1


# -- what is read ------------------------------------------------------------------------------------------------------


def test_windows_lie_one_after_the_other_over_the_text(tmp_path):
    checkpoint = of(make_model("gpt2"), tmp_path)
    tokens = sequences(checkpoint, "natural")
    assert tokens.shape == (SEQUENCES, LENGTH)
    read = ["".join(make_tokenizer().convert_ids_to_tokens(one.tolist())) for one in tokens]
    assert TEXT.startswith(read[0])
    assert TEXT.endswith(read[-1])
    assert all(one in TEXT for one in read)


def test_an_encoder_reads_windows_with_its_special_tokens(tmp_path):
    checkpoint = of(make_model("bert"), tmp_path, "encoder")
    assert special_tokens(checkpoint.tokenizer) == ([BYTES["[CLS]"]], [BYTES["[SEP]"]])
    tokens = sequences(checkpoint, "natural")
    assert tokens.shape == (SEQUENCES, LENGTH)
    assert set(tokens[:, 0].tolist()) == {BYTES["[CLS]"]}
    assert set(tokens[:, -1].tolist()) == {BYTES["[SEP]"]}


def test_random_tokens_are_ordinary_ones_and_depend_on_the_seed_alone(tmp_path):
    first, same, other = (of(make_model("gpt2"), tmp_path, seed=seed) for seed in (1, 1, 2))
    tokens = sequences(first, "random")
    assert BYTES["</s>"] not in tokens
    assert len(tokens.unique()) > 80
    assert torch.equal(tokens, sequences(same, "random"))
    assert not torch.equal(tokens, sequences(other, "random"))
    repeated = sequences(first, "repeated")
    assert repeated.shape == (SEQUENCES, LENGTH)
    assert torch.equal(repeated, repeated[:, :1].expand_as(repeated))


def test_a_model_of_few_positions_reads_shorter_sequences(tmp_path):
    checkpoint = of(make_model("gpt2", n_positions=20), tmp_path)
    assert portrait(checkpoint).importance.shape == (SEQUENCES, LAYERS, HEADS, 20)
    assert portrait(checkpoint).judged == 11


def test_a_model_of_too_few_positions_is_refused(tmp_path):
    with pytest.raises(ValueError, match="reads 9 tokens: too few to tell a sink from uniform attention"):
        sequences(of(make_model("gpt2", n_positions=9), tmp_path), "random")


def test_a_text_that_is_too_short_is_refused_with_what_it_takes(tmp_path):
    with pytest.raises(ValueError, match="has 300 tokens, enough for 4 sequences of 64: give one of 2560 tokens"):
        sequences(of(make_model("gpt2"), tmp_path, text="abc" * 100), "natural")


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    model = make_model("gpt2", vocab_size=50, bos_token_id=1, eos_token_id=1, pad_token_id=1)
    with pytest.raises(ValueError, match="has tokens that the model lacks: it is another's"):
        sequences(of(model, tmp_path), "natural")


def test_a_portrait_is_drawn_once(tmp_path):
    checkpoint = of(make_model("gpt2"), tmp_path)
    assert portrait(checkpoint) is portrait(checkpoint)
    assert portrait(checkpoint) is not portrait(checkpoint, "random")


def test_a_hidden_value_is_no_number(tmp_path):
    found = portrait(of(make_model("bloom"), tmp_path))
    assert np.isnan(found.values).all()
    assert np.isnan(found.cosines).all()
    assert not np.isnan(found.importance).any()


def test_a_dtype_that_is_too_narrow_is_refused(tmp_path):
    from empirical.checkpoints import look

    model = make_model("gpt2")
    with torch.no_grad():
        model.transformer.wpe.weight[0, DIMENSION] = 1e6
    with pytest.raises(ValueError, match="overflows in float16: give --dtype bfloat16 or --dtype float32"):
        portrait(load(look(save(model, tmp_path), dtype="float16", device="cpu"), text=TEXT))


def test_half_precision_finds_the_same_sink(tmp_path):
    from empirical.checkpoints import look

    source = look(save(planted_gpt2(), tmp_path), dtype="bfloat16", device="cpu")
    found = portrait(load(source, text=TEXT))
    assert sink_heads(found).tolist() == [[1, 2, 0]]
    assert found.importance.dtype == np.float32

"""The door for checkpoints, on models made on the spot: what is read, what it will take, and what is refused."""

import json

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers (pip install transformers)")
pytest.importorskip("tokenizers", reason="needs tokenizers (pip install tokenizers)")

from empirical import checkpoints  # noqa: E402
from tests.empirical.small_models import HEADS, LAYERS, make_model, make_tokenizer, save  # noqa: E402


@pytest.fixture(params=["gpt2", "llama"])
def directory(request, tmp_path):
    return save(make_model(request.param), tmp_path)


def count(model):
    return sum(one.numel() for one in {id(one): one for one in model.parameters()}.values())


def test_a_saved_model_is_loaded_when_it_is_asked_for_and_ready_to_run(directory):
    checkpoint = checkpoints.load(directory)
    assert checkpoint.held is None
    assert checkpoint.model.dtype is torch.float32
    assert not checkpoint.model.training
    assert checkpoint.positions == 256
    assert checkpoint.source.predicts


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_is_in_the_dtype_that_was_asked_for(tmp_path, dtype):
    source = checkpoints.look(save(make_model("llama"), tmp_path), dtype=dtype, device="cpu")
    for weights in ("trained", "fresh"):
        assert {one.dtype for one in source.build(weights, 0).parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox", "bert"])
def test_what_it_takes_is_known_without_loading(tmp_path, kind):
    model = make_model(kind)
    source = checkpoints.look(save(model, tmp_path), device="cpu", dtype="bfloat16")
    assert source.parameters == count(model)
    attention = checkpoints.BATCH * HEADS * checkpoints.LENGTH**2 * 4
    assert source.memory() == (
        f"{2 * count(model) / 1e6:.3g} MB for the weights, {attention / 1e6:.3g} MB for the attention of one layer"
    )
    for part in (tmp_path.name, type(model).__name__, f"{count(model):,}", f"{LAYERS} layers of {HEADS} heads"):
        assert part in str(source)


def test_the_parameters_of_a_model_in_several_files_are_counted_once(tmp_path):
    model = make_model("llama")
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    make_tokenizer().save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert checkpoints.look(tmp_path).parameters == count(model)


def test_the_model_and_its_fresh_counterpart_are_never_held_together(directory):
    checkpoint = checkpoints.load(directory, seed=3)
    trained = checkpoint.model.state_dict()
    fresh = checkpoint.model_with("fresh").state_dict()
    assert checkpoint.held[0] == "fresh"
    assert trained.keys() == fresh.keys()
    assert any(not torch.equal(trained[name], fresh[name]) for name in trained)
    again = checkpoint.model.state_dict()
    assert all(torch.equal(trained[name], again[name]) for name in trained)
    assert all(torch.equal(fresh[name], one) for name, one in checkpoint.model_with("fresh").state_dict().items())


def test_fresh_weights_leave_the_random_numbers_of_others_alone(directory):
    state = torch.random.get_rng_state()
    checkpoints.load(directory).model_with("fresh")
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("kind", "names", "predicts"),
    [
        ("bert", ["BertModel"], False),
        ("bert", None, False),
        ("gpt2", None, True),
        ("llama", ["LlamaForCausalLM"], True),
    ],
)
def test_a_decoder_predicts_and_an_encoder_does_not(tmp_path, kind, names, predicts):
    save(make_model(kind), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": names}))
    source = checkpoints.look(tmp_path)
    assert source.predicts is predicts
    assert type(source.build("trained", 0)).__name__.endswith("Model") is (not predicts or kind == "gpt2")


def test_a_repository_in_the_cache_of_the_hub_goes_by_its_own_name(tmp_path):
    folder = tmp_path / "models--some--model" / "snapshots" / "0123abc"
    assert checkpoints.look(save(make_model("gpt2"), folder)).name == "some/model"


def test_a_measurement_is_made_once_for_each_key(directory):
    checkpoint, calls = checkpoints.load(directory), []
    for key in ("a", "b", "a"):
        assert checkpoint.keep(key, lambda key=key: calls.append(key) or key) == key
    assert calls == ["a", "b"]


def test_without_a_text_it_reads_the_help_of_python(directory):
    assert "while" in checkpoints.load(directory).text
    assert checkpoints.load(directory, text="mine").text == "mine"


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_name_on_the_hub_is_refused():
    with pytest.raises(FileNotFoundError, match="names on the Hub are not fetched"):
        checkpoints.look("openai-community/gpt2")


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        ("config.json", r"no config\.json .*save_pretrained"),
        ("model.safetensors", r"no \*\.safetensors .*save_pretrained"),
        ("tokenizer.json", r"no tokenizer .*save_pretrained"),
    ],
)
def test_a_missing_file_is_named_with_its_remedy(directory, missing, remedy):
    (directory / missing).unlink()
    with pytest.raises(FileNotFoundError, match=remedy):
        checkpoints.look(directory)


def test_pickled_weights_are_refused(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"a pickle can run code.*safe_serialization=True"):
        checkpoints.look(directory)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_the_checkpoint_is_refused(directory, name):
    config = json.loads((directory / name).read_text())
    (directory / name).write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "mine.Model"}}))
    with pytest.raises(ValueError, match="auto_map, which runs code of the checkpoint"):
        checkpoints.look(directory)


@pytest.mark.parametrize("content", [b"", b"\x05", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{]", None])
def test_weights_that_are_cut_off_are_refused(directory, content):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    with pytest.raises(ValueError, match=r"model\.safetensors is missing, cut off, or no safetensors: copy it anew"):
        checkpoints.look(directory)


def test_an_index_that_names_a_missing_file_is_refused(directory):
    index = {"weight_map": {"a": "absent.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"absent\.safetensors is missing"):
        checkpoints.look(directory)


def test_a_config_that_is_no_json_is_named(directory):
    (directory / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON .*: copy it anew"):
        checkpoints.look(directory)


def test_an_architecture_that_the_library_does_not_know_is_refused(directory):
    (directory / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(ValueError, match="unheard-of"):
        checkpoints.look(directory)


def test_an_encoder_with_a_decoder_is_refused(directory):
    (directory / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ValueError, match="an encoder with a decoder: give a decoder"):
        checkpoints.look(directory)


def test_weights_of_another_architecture_than_the_config_names_are_refused(tmp_path):
    save(make_model("llama").model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(ValueError, match=r"lacks weights of LlamaForCausalLM, such as lm_head\.weight"):
        checkpoints.load(tmp_path).model  # noqa: B018


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused(directory):
    assert checkpoints.look(directory).device == "cpu"
    with pytest.raises(ValueError, match="torch finds no CUDA device here: give --device cpu"):
        checkpoints.look(directory, device="cuda")


def test_without_transformers_the_remedy_is_named(directory, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers"):
        checkpoints.look(directory)

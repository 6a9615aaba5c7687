"""The door for checkpoints, on models made on the spot."""

import json
import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers (pip install transformers)")
tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers (pip install tokenizers)")

from empirical import checkpoints  # noqa: E402

BYTES = {chr(code): at for at, code in enumerate([10, *range(32, 127)])} | {"</s>": 96}
QUESTIONS = tuple(checkpoints.Question(f"q{n}", ("ab", f"c{n}"), "ab") for n in range(4))


def make_tokenizer():
    """One token for each printable character and for the line break."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=BYTES, merges=[]))
    inner.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


def make_model(kind):
    size = {"vocab_size": len(BYTES), "bos_token_id": 96, "eos_token_id": 96}
    if kind == "gpt2":
        config = transformers.GPT2Config(n_positions=256, n_embd=16, n_layer=1, n_head=2, **size)
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        max_position_embeddings=256, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        **size,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


@pytest.fixture(params=["gpt2", "llama"])
def directory(request, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make_model(request.param).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def checkpoint(directory):
    return checkpoints.load(directory)


def test_a_saved_model_is_loaded_ready_to_ask(checkpoint):
    assert checkpoint.positions == 256
    assert checkpoint.ends == [BYTES["\n"], BYTES["</s>"]]
    assert checkpoint.model.dtype is torch.float32
    assert not checkpoint.model.training


def test_probabilities_are_products_of_token_probabilities(checkpoint):
    ids = [BYTES[letter] for letter in "ask ab"]
    steps = checkpoint.model(torch.tensor([ids])).logits[0].detach().double().softmax(-1)
    prefix = math.prod(float(steps[at - 1, ids[at]]) for at in (3, 4, 5))
    end = float(steps[5, BYTES["\n"]] + steps[5, BYTES["</s>"]])
    assert checkpoints.probabilities(checkpoint, "ask", "ab") == pytest.approx((prefix, prefix * end), rel=1e-5)


def test_complete_answers_of_one_length_or_less_have_a_mass_below_one(checkpoint):
    answers = [letter for letter in BYTES if letter not in ("\n", "</s>")]
    read = [checkpoints.probabilities(checkpoint, "ask", answer) for answer in answers]
    space = math.fsum(prefix for prefix, _ in read)
    assert math.fsum(complete for _, complete in read) < space < 1


def test_a_repeated_measurement_is_kept(checkpoint):
    first = checkpoints.measure(checkpoint, QUESTIONS, "string choices", 1, seed=1)
    assert first is checkpoints.measure(checkpoint, QUESTIONS, "string choices", 1, seed=1)
    assert first != checkpoints.measure(checkpoint, QUESTIONS, "string choices", 1, seed=2)
    bare = checkpoints.measure(checkpoint, QUESTIONS, "no choices", 0, seed=1)
    assert bare is checkpoints.measure(checkpoint, QUESTIONS, "no choices", 0, seed=2)
    expected = [checkpoints.probabilities(checkpoint, "q2", answer) for answer in ("ab", "c2")]
    assert bare[2] == checkpoints.Scored(*zip(*expected, strict=True), answer=0)


def test_a_question_is_never_its_own_example():
    for index, question in enumerate(QUESTIONS):
        shown = checkpoints._examples(QUESTIONS, index, 3, seed=5)
        assert sorted(one.question for one in [question, *shown]) == [one.question for one in QUESTIONS]


def test_more_examples_than_questions_are_refused(checkpoint):
    with pytest.raises(ValueError, match="4 examples need more than 4 questions"):
        checkpoints.measure(checkpoint, QUESTIONS, "string choices", 4, seed=0)


def test_a_sequence_beyond_the_positions_is_refused(checkpoint):
    with pytest.raises(ValueError, match=r"tokens, but .* reads 256: shorten the questions or give fewer examples"):
        checkpoints.probabilities(checkpoint, "long " * 60, "ab")


def test_prompts_are_those_of_the_paper():
    question = checkpoints.Question("How many?", ("one", "two", "three"), "two")
    example = checkpoints.Question("Which?", ("this", "that"), "that")
    shown = {style: checkpoints.prompt_with_examples(question, [example], style) for style in checkpoints.FORMATS}
    assert shown["no choices"] == "Which? that\nHow many?"
    assert shown["string choices"] == (
        "question: Which?\nanswer choices: this, or that\nThe correct answer is: that\n\n"
        "question: How many?\nanswer choices: one, two, or three\nThe correct answer is:"
    )
    assert shown["enumerated choices"] == (
        "Question: Which?\nChoices:\n A: this\n B: that\nAnswer: B\n\n"
        "Question: How many?\nChoices:\n A: one\n B: two\n C: three\nAnswer:"
    )
    assert checkpoints.ask(question, "enumerated choices")[1:] == (("A", "B", "C"), "B")
    with pytest.raises(ValueError, match="unknown prompt format 'rhyme'; use one of no choices"):
        checkpoints.ask(question, "rhyme")


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_name_on_the_hub_is_refused():
    with pytest.raises(FileNotFoundError, match="names on the Hub are not fetched"):
        checkpoints.load("openai-community/gpt2")


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
        checkpoints.load(directory)


def test_pickled_weights_are_refused(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"a pickle can run code.*safe_serialization=True"):
        checkpoints.load(directory)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_the_checkpoint_is_refused(directory, name):
    config = json.loads((directory / name).read_text())
    (directory / name).write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "mine.Model"}}))
    with pytest.raises(ValueError, match="auto_map, which runs code of the checkpoint"):
        checkpoints.load(directory)


def test_a_tokenizer_without_an_end_is_refused(directory):
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(directory)
    with pytest.raises(ValueError, match="has no end token; set eos_token"):
        checkpoints.load(directory)


def test_without_transformers_the_remedy_is_named(directory, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers"):
        checkpoints.load(directory)


def test_questions_are_read_and_repeated_choices_dropped(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "q", "choices": ["a", "b", "a"], "answer": "b"}\n\n')
    assert checkpoints.read_questions(path) == (checkpoints.Question("q", ("a", "b"), "b"),)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nonsense", "Expecting value"),
        ('{"question": "q", "choices": ["a", "b"]}', "answer"),
        ('{"question": "q", "choices": ["a", "a"], "answer": "a"}', "two or more different choices"),
        ('{"question": "q", "choices": "ab", "answer": "a"}', "two or more different choices"),
        ('{"question": "q", "choices": ["a", " "], "answer": "a"}', "text on a single line"),
        ('{"question": "q", "choices": ["a", "b\\nc"], "answer": "a"}', "text on a single line"),
        ('{"question": "q", "choices": ["a", 3], "answer": "a"}', "text on a single line"),
        ('{"question": "q", "choices": ["a", "b"], "answer": "c"}', "none of the choices"),
        ("[]", "a line looks like"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path, line, what):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "q", "choices": ["a", "b"], "answer": "a"}\n' + line + "\n")
    with pytest.raises(ValueError, match=f"line 2: .*{what}"):
        checkpoints.read_questions(path)

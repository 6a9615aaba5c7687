"""Questions to a checkpoint, on models made on the spot: prompts, probabilities, and lines that are no question."""

import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("transformers", reason="needs transformers (pip install transformers)")

from empirical import questions  # noqa: E402
from empirical.checkpoints import load  # noqa: E402
from empirical.sinks.levers import ScaleToken  # noqa: E402
from tests.empirical.small_models import BYTES, make_model, make_tokenizer, save  # noqa: E402

QUESTIONS = tuple(questions.Question(f"q{n}", ("ab", f"c{n}"), "ab") for n in range(4))


@pytest.fixture(params=["gpt2", "llama"])
def directory(request, tmp_path):
    return save(make_model(request.param), tmp_path)


@pytest.fixture
def checkpoint(directory):
    return load(directory)


def test_an_answer_ends_at_the_end_token_or_a_line_break(checkpoint):
    assert questions.ends(checkpoint) == [BYTES["\n"], BYTES["</s>"]]


def test_probabilities_are_products_of_token_probabilities(checkpoint):
    ids = [BYTES[letter] for letter in "ask ab"]
    steps = checkpoint.model(torch.tensor([ids])).logits[0].detach().double().softmax(-1)
    prefix = math.prod(float(steps[at - 1, ids[at]]) for at in (3, 4, 5))
    end = float(steps[5, BYTES["\n"]] + steps[5, BYTES["</s>"]])
    assert questions.probabilities(checkpoint, "ask", "ab") == pytest.approx((prefix, prefix * end), rel=1e-5)


def test_complete_answers_of_one_length_or_less_have_a_mass_below_one(checkpoint):
    answers = [letter for letter in BYTES if letter not in ("\n", "</s>")]
    read = [questions.probabilities(checkpoint, "ask", answer) for answer in answers]
    space = math.fsum(prefix for prefix, _ in read)
    assert math.fsum(complete for _, complete in read) < space < 1


def test_a_repeated_measurement_is_kept(checkpoint):
    first = questions.measure(checkpoint, QUESTIONS, "string choices", 1, seed=1)
    assert first is questions.measure(checkpoint, QUESTIONS, "string choices", 1, seed=1)
    assert first != questions.measure(checkpoint, QUESTIONS, "string choices", 1, seed=2)
    bare = questions.measure(checkpoint, QUESTIONS, "no choices", 0, seed=1)
    assert bare is questions.measure(checkpoint, QUESTIONS, "no choices", 0, seed=2)
    expected = [questions.probabilities(checkpoint, "q2", answer) for answer in ("ab", "c2")]
    assert bare[2] == questions.Scored(*zip(*expected, strict=True), answer=0)


def test_a_question_is_never_its_own_example():
    for index, question in enumerate(QUESTIONS):
        shown = questions._examples(QUESTIONS, index, 3, seed=5)
        assert sorted(one.question for one in [question, *shown]) == [one.question for one in QUESTIONS]


def test_more_examples_than_questions_are_refused(checkpoint):
    with pytest.raises(ValueError, match="4 examples need more than 4 questions"):
        questions.measure(checkpoint, QUESTIONS, "string choices", 4, seed=0)


def test_a_sequence_beyond_the_positions_is_refused(checkpoint):
    with pytest.raises(ValueError, match=r"tokens, but .* reads 256: shorten the questions or give fewer examples"):
        questions.probabilities(checkpoint, "long " * 60, "ab")


def test_prompts_are_those_of_the_paper():
    question = questions.Question("How many?", ("one", "two", "three"), "two")
    example = questions.Question("Which?", ("this", "that"), "that")
    shown = {style: questions.prompt_with_examples(question, [example], style) for style in questions.FORMATS}
    assert shown["no choices"] == "Which? that\nHow many?"
    assert shown["string choices"] == (
        "question: Which?\nanswer choices: this, or that\nThe correct answer is: that\n\n"
        "question: How many?\nanswer choices: one, two, or three\nThe correct answer is:"
    )
    assert shown["enumerated choices"] == (
        "Question: Which?\nChoices:\n A: this\n B: that\nAnswer: B\n\n"
        "Question: How many?\nChoices:\n A: one\n B: two\n C: three\nAnswer:"
    )
    assert questions.ask(question, "enumerated choices")[1:] == (("A", "B", "C"), "B")
    with pytest.raises(ValueError, match="unknown prompt format 'rhyme'; use one of no choices"):
        questions.ask(question, "rhyme")


def test_a_tokenizer_without_an_end_cannot_ask(directory):
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(directory)
    with pytest.raises(ValueError, match="has no end token; set eos_token"):
        questions.probabilities(load(directory), "ask", "ab")


def test_equal_changes_of_attention_are_asked_once(checkpoint):
    plain = questions.measure(checkpoint, QUESTIONS, "string choices", 0, seed=1)
    same = questions.measure(checkpoint, QUESTIONS, "string choices", 0, seed=1, edit=ScaleToken(1.0))
    changed = questions.measure(checkpoint, QUESTIONS, "string choices", 0, seed=1, edit=ScaleToken(9.0))
    assert changed is questions.measure(checkpoint, QUESTIONS, "string choices", 0, seed=1, edit=ScaleToken(9.0))
    assert same[0].prefix == pytest.approx(plain[0].prefix, rel=1e-4)
    assert changed[0].prefix != pytest.approx(plain[0].prefix, rel=1e-4)


def test_questions_are_read_and_repeated_choices_dropped(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "q", "choices": ["a", "b", "a"], "answer": "b"}\n\n')
    assert questions.read_questions(path) == (questions.Question("q", ("a", "b"), "b"),)


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
        questions.read_questions(path)

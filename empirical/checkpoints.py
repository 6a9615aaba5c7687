"""The door for a checkpoint of your own: a Hugging Face directory, and the choices' probabilities under its model.

Only safetensors weights are read, no code of the checkpoint is run, and nothing is fetched: each of these is refused
with a message that names the remedy. `transformers` is needed here and nowhere else.

The prompts are those of the released code of Wiegreffe et al. 2023 (arXiv 2305.14596), short of its opening
instruction. Its probability of a choice is a prefix probability; here the complete string's stands beside it.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
FORMATS = ("no choices", "string choices", "enumerated choices")


@dataclass(frozen=True)
class Question:
    """One multiple-choice question; `answer` is one of the choices, which are all different."""

    question: str
    choices: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Scored:
    """Probabilities of a question's choices under one prompt, in the order of its choices.

    prefix: that the model's output begins with the choice, as in the paper's released code.
    complete: that it is the choice: then comes the end token or a line break.
    answer: index of the right choice.
    """

    prefix: tuple[float, ...]
    complete: tuple[float, ...]
    answer: int


@dataclass(eq=False)
class Checkpoint:
    """A causal language model and its tokenizer. `scored` keeps what `measure` has computed."""

    directory: Path
    model: Any
    tokenizer: Any
    scored: dict[tuple[object, ...], list[Scored]] = field(default_factory=dict)

    @property
    def positions(self) -> int | None:
        """The longest sequence that the model reads, or None where its configuration does not say."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @cached_property
    def ends(self) -> list[int]:
        """Tokens that end an answer: the end token, and each token that begins with a line break.

        A base model ends an answer in these prompts by a line break. No choice contains one, so answers that end so
        are complete strings of which none begins another.
        """
        ids = range(len(self.tokenizer))
        breaks = [one for one, text in zip(ids, self.tokenizer.batch_decode([[i] for i in ids]), strict=True)
                  if text.startswith("\n")]  # fmt: skip
        return sorted({self.tokenizer.eos_token_id, *breaks})


# -- reading -----------------------------------------------------------------------------------------------------------


def load(directory: str | Path) -> Checkpoint:
    """The model and tokenizer of a local Hugging Face directory, in float32 and in evaluation mode.

    Raises:
        FileNotFoundError: no such directory, or no config.json, weights or tokenizer in it.
        ValueError: weights as pickles only, code of its own (`auto_map`), or no end token.
        ImportError: `transformers` is not installed.
    """
    folder = Path(directory)
    _check_files(folder)
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as missing:
        raise ImportError("a checkpoint needs the package transformers: pip install transformers") from missing
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(str(folder), **safe)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer in {folder} has no end token; set eos_token in tokenizer_config.json")
    model = AutoModelForCausalLM.from_pretrained(str(folder), use_safetensors=True, **safe)
    return Checkpoint(folder, model.float().eval(), tokenizer)


def _check_files(folder: Path) -> None:
    """Refuse what is missing or unsafe before any library opens it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no directory {folder}: give a local one; names on the Hub are not fetched")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no config.json in {folder}: give the directory written by model.save_pretrained(...)")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in json.loads((folder / name).read_text("utf-8")):
            raise ValueError(
                f"{folder / name} has auto_map, which runs code of the checkpoint: not done here; "
                "save the model under an architecture that transformers itself has"
            )
    if not any(folder.glob("*.safetensors")):
        if any(path for pattern in PICKLES for path in folder.glob(pattern)):
            raise ValueError(
                f"{folder} has pickled weights only, and a pickle can run code: where you trust it, convert it with "
                "model.save_pretrained(DIR, safe_serialization=True)"
            )
        raise FileNotFoundError(f"no *.safetensors in {folder}: save the weights with model.save_pretrained(...)")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(f"no tokenizer in {folder}: save it there with tokenizer.save_pretrained(...)")


def read_questions(path: str | Path) -> tuple[Question, ...]:
    """Questions from JSON lines with the fields question, choices, answer; repeated choices are dropped.

    Raises:
        ValueError: a line is not such a question; the message gives its number and what is wrong.
    """
    questions = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), start=1):
        if line.strip():
            try:
                questions.append(_question(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{path}, line {number}: {error}; a line looks like "
                    '{"question": "...", "choices": ["...", "..."], "answer": "one of the choices"}'
                ) from error
    return tuple(questions)


def _question(fields: dict[str, Any]) -> Question:
    choices = tuple(dict.fromkeys(fields["choices"]))
    if isinstance(fields["choices"], str) or len(choices) < 2:
        raise ValueError("a question needs a list of two or more different choices")
    if not all(isinstance(choice, str) and choice.strip() and "\n" not in choice for choice in choices):
        raise ValueError("each choice must be text on a single line")
    if fields["answer"] not in choices:
        raise ValueError(f"the answer {fields['answer']!r} is none of the choices")
    return Question(str(fields["question"]), choices, fields["answer"])


# -- asking ------------------------------------------------------------------------------------------------------------


def ask(question: Question, style: str) -> tuple[str, tuple[str, ...], str]:
    """The prompt of one question without its answer, the answers that it may get, and the right one.

    Args:
        style: one of `FORMATS`. Enumerated choices are answered by their letter.
    """
    choices = question.choices
    if style == "no choices":
        return question.question, choices, question.answer
    if style == "string choices":
        listed = ", ".join(choices[:-1]) + ", or " + choices[-1]
        prompt = f"question: {question.question}\nanswer choices: {listed}\nThe correct answer is:"
        return prompt, choices, question.answer
    if style != "enumerated choices":
        raise ValueError(f"unknown prompt format {style!r}; use one of {', '.join(FORMATS)}")
    letters = tuple(chr(ord("A") + index) for index in range(len(choices)))
    listed = "".join(f" {letter}: {choice}\n" for letter, choice in zip(letters, choices, strict=True))
    answer = letters[choices.index(question.answer)]
    return f"Question: {question.question}\nChoices:\n{listed}Answer:", letters, answer


def prompt_with_examples(question: Question, examples: Sequence[Question], style: str) -> str:
    """Answered examples, then the question, as the released code joins them."""
    gap = "\n" if style == "no choices" else "\n\n"
    answered = [f"{prompt} {answer}{gap}" for prompt, _, answer in (ask(example, style) for example in examples)]
    return "".join(answered) + ask(question, style)[0]


def probabilities(checkpoint: Checkpoint, prompt: str, answer: str) -> tuple[float, float]:
    """(prefix, complete) probability of an answer after a prompt: see `Scored`.

    Raises:
        ValueError: prompt and answer are longer than the model's positions.
    """
    import torch

    start = checkpoint.tokenizer(prompt)["input_ids"]
    whole = checkpoint.tokenizer(f"{prompt} {answer}")["input_ids"]
    if whole[: len(start)] != start:  # prompt and answer share a token: then the answer's tokens are taken alone
        whole = start + checkpoint.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    if checkpoint.positions is not None and len(whole) > checkpoint.positions:
        raise ValueError(
            f"{len(whole)} tokens, but {checkpoint.directory} reads {checkpoint.positions}: "
            "shorten the questions or give fewer examples"
        )
    with torch.inference_mode():
        logits = checkpoint.model(torch.tensor([whole], device=checkpoint.model.device)).logits[0, len(start) - 1 :]
    steps = logits.double().log_softmax(-1)  # (answer tokens + 1, vocabulary)
    prefix = sum(float(steps[at, token]) for at, token in enumerate(whole[len(start) :]))
    return math.exp(prefix), math.exp(prefix + float(steps[-1, checkpoint.ends].logsumexp(-1)))


def measure(
    checkpoint: Checkpoint, questions: Sequence[Question], style: str, examples: int, *, seed: int
) -> list[Scored]:
    """Score every question once per prompt format, number of examples and seed; a repeated call costs nothing.

    Args:
        examples: how many other questions, drawn anew for each question, are shown with their answers.

    Raises:
        ValueError: too few questions to draw examples from, or as in `probabilities`.
    """
    if examples >= len(questions):
        raise ValueError(f"{examples} examples need more than {len(questions)} questions; add some to the file")
    key = (tuple(questions), style, examples, seed if examples else None)
    if key not in checkpoint.scored:
        checkpoint.scored[key] = [
            _score(checkpoint, question, _examples(questions, index, examples, seed), style)
            for index, question in enumerate(questions)
        ]
    return checkpoint.scored[key]


def _examples(questions: Sequence[Question], index: int, count: int, seed: int) -> list[Question]:
    """`count` of the other questions, by a generator that belongs to this question alone."""
    others = [*questions[:index], *questions[index + 1 :]]
    return random.Random(f"{seed} {index}").sample(others, count)


def _score(checkpoint: Checkpoint, question: Question, examples: Sequence[Question], style: str) -> Scored:
    _, answers, right = ask(question, style)
    prompt = prompt_with_examples(question, examples, style)
    scores = [probabilities(checkpoint, prompt, answer) for answer in answers]
    return Scored(tuple(p for p, _ in scores), tuple(p for _, p in scores), answers.index(right))

"""Multiple-choice questions, and the probabilities of their choices under a causal language model.

The prompts are those of the released code of Wiegreffe et al. 2023 (arXiv 2305.14596), short of its opening
instruction. Its probability of a choice is a prefix probability; here the complete string's stands beside it.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from empirical.checkpoints import Checkpoint
from empirical.sinks.observe_checkpoint import Edit, observe

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


def ends(checkpoint: Checkpoint) -> list[int]:
    """Tokens that end an answer: the end token, and each token that begins with a line break.

    A base model ends an answer in these prompts by a line break. No choice contains one, so answers that end so are
    complete strings of which none begins another.

    Raises:
        ValueError: the tokenizer has no end token.
    """
    tokenizer = checkpoint.tokenizer
    if tokenizer.eos_token_id is None:
        where = checkpoint.source.folder
        raise ValueError(f"the tokenizer in {where} has no end token; set eos_token in tokenizer_config.json")
    ids = range(len(tokenizer))
    texts = checkpoint.keep("tokens as text", lambda: tokenizer.batch_decode([[i] for i in ids]))
    breaks = [one for one, text in zip(ids, texts, strict=True) if text.startswith("\n")]
    return sorted({tokenizer.eos_token_id, *breaks})


def probabilities(checkpoint: Checkpoint, prompt: str, answer: str, edit: Edit | None = None) -> tuple[float, float]:
    """(prefix, complete) probability of an answer after a prompt: see `Scored`.

    Args:
        edit: of the attention weights, as in `empirical.sinks.observe_checkpoint`.

    Raises:
        ValueError: prompt and answer are longer than the model's positions.
    """
    ending = checkpoint.keep("ends", lambda: ends(checkpoint))
    start = checkpoint.tokenizer(prompt)["input_ids"]
    whole = checkpoint.tokenizer(f"{prompt} {answer}")["input_ids"]
    if whole[: len(start)] != start:  # prompt and answer share a token: then the answer's tokens are taken alone
        whole = start + checkpoint.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    if checkpoint.positions is not None and len(whole) > checkpoint.positions:
        raise ValueError(
            f"{len(whole)} tokens, but {checkpoint.source.name} reads {checkpoint.positions}: "
            "shorten the questions or give fewer examples"
        )
    model, tokens = checkpoint.model, torch.tensor([whole])
    with torch.inference_mode():
        output = model(tokens.to(model.device)) if edit is None else observe(model, tokens, edit=edit)
        steps = output.logits[0, len(start) - 1 :].double().log_softmax(-1)  # (answer tokens + 1, vocabulary)
    prefix = sum(float(steps[at, token]) for at, token in enumerate(whole[len(start) :]))
    return math.exp(prefix), math.exp(prefix + float(steps[-1, ending].logsumexp(-1)))


def measure(
    checkpoint: Checkpoint,
    questions: Sequence[Question],
    style: str,
    examples: int,
    *,
    seed: int,
    edit: Edit | None = None,
) -> list[Scored]:
    """Score every question once per prompt format, number of examples, seed and edit; a repeated call costs nothing.

    Args:
        examples: how many other questions, drawn anew for each question, are shown with their answers.
        edit: of the attention weights; equal ones are one.

    Raises:
        ValueError: too few questions to draw examples from, or as in `probabilities`.
    """
    if examples >= len(questions):
        raise ValueError(f"{examples} examples need more than {len(questions)} questions; add some to the file")
    key = ("scored", tuple(questions), style, examples, seed if examples else None, edit)
    return checkpoint.keep(key, lambda: [
        _score(checkpoint, question, _examples(questions, index, examples, seed), style, edit)
        for index, question in enumerate(questions)
    ])  # fmt: skip


def _examples(questions: Sequence[Question], index: int, count: int, seed: int) -> list[Question]:
    """`count` of the other questions, by a generator that belongs to this question alone."""
    others = [*questions[:index], *questions[index + 1 :]]
    return random.Random(f"{seed} {index}").sample(others, count)


def _score(
    checkpoint: Checkpoint, question: Question, examples: Sequence[Question], style: str, edit: Edit | None
) -> Scored:
    _, answers, right = ask(question, style)
    prompt = prompt_with_examples(question, examples, style)
    scores = [probabilities(checkpoint, prompt, answer, edit) for answer in answers]
    return Scored(tuple(p for p, _ in scores), tuple(p for _, p in scores), answers.index(right))

"""Documents that mix styles, and a transformer trained on them from scratch.

A document is three question-answer pairs by one author. An author of style z answers with a listed choice with
probability a_z, and otherwise with a synonym of it. Each pair is four tokens:

    choice choice ANSWER answer          the choices are listed: what is verbatim is known
    concept concept ANSWER answer        they are not: the answer is any of the surface forms

Source: the mechanism is ours; the claim it serves is in Wiegreffe et al. 2023, arXiv 2305.14596. What is measured is
their PMA: the mass that the model puts on the two choices of the last question.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from empirical.transformer import Decoder
from theory.language.attentiveness import mass_after

VERBATIM = (Fraction(9, 10), Fraction(1, 10))
"""a_z of the two styles, equally frequent."""
PRIOR = (Fraction(1, 2), Fraction(1, 2))
CONCEPTS = 3
FORMS = 3
"""Surface forms of each concept; the first is the one that is listed as a choice."""
PAIRS = 3
UNLISTED = 0.25
"""Share of questions that do not list their choices."""

# Tokens: surface form f of concept c is FORMS * c + f, then the concepts as such, then the mark before an answer.
ANSWER = CONCEPTS * FORMS + CONCEPTS
VOCABULARY = ANSWER + 1
PAIR = 4


def bayes_mass(examples: int) -> Fraction:
    """PMA of the optimal predictor, with choices listed, after this many verbatim examples."""
    return mass_after(PRIOR, VERBATIM, examples)


BAYES_UNLISTED = Fraction(1, FORMS)
"""The same where neither question nor example lists choices: all surface forms are equally likely."""


def documents(count: int, generator: torch.Generator, *, shared: bool = True) -> Tensor:
    """Documents to train on: (count, PAIR * PAIRS) int64.

    Args:
        shared: all pairs of a document have its style; otherwise each draws its own.
    """
    style = torch.randint(2, (count, PAIRS), generator=generator)
    if shared:
        style = style[:, :1].expand(count, PAIRS)
    concepts = _concepts((count, PAIRS), generator)
    listed = torch.rand(count, PAIRS, generator=generator) >= UNLISTED
    verbatim = torch.where(listed, torch.tensor([float(a) for a in VERBATIM])[style], 1 / FORMS)
    synonym = 1 + torch.randint(FORMS - 1, (count, PAIRS), generator=generator)
    form = torch.where(torch.rand(count, PAIRS, generator=generator) < verbatim, 0, synonym)
    chosen = concepts.gather(-1, torch.randint(2, (count, PAIRS, 1), generator=generator))[..., 0]
    return _pairs(concepts, listed, FORMS * chosen + form).flatten(1)


@dataclass(frozen=True)
class Prompts:
    """Prompts that end before the answer, and the choices of their last question."""

    tokens: Tensor  # (count, PAIR * examples + 3) int64
    choices: Tensor  # (count, 2) int64


def prompts(
    count: int, generator: torch.Generator, *, examples: int, form: int = 0, listed: bool = True, shift: int = 0
) -> Prompts:
    """Questions after some examples. The same generator state gives the same last questions for any `examples`.

    Args:
        form: surface form of the examples' answers: 0 is verbatim, the others are synonyms.
        listed: the last question lists its choices.
        shift: list the choices of other concepts, this many further on, in place of its own.
    """
    concepts = _concepts((count, PAIRS), generator).flip(1)[:, -1 - examples :]
    chosen = concepts.gather(-1, torch.randint(2, (count, PAIRS, 1), generator=generator)[:, : examples + 1])[..., 0]
    shown = concepts.clone()
    shown[:, -1] = (shown[:, -1] + shift) % CONCEPTS
    list_it = torch.ones(count, examples + 1, dtype=torch.bool)
    list_it[:, -1] = listed
    tokens = _pairs(shown, list_it, FORMS * chosen + form).flatten(1)
    return Prompts(tokens[:, :-1], FORMS * concepts[:, -1])


def _concepts(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Two different concepts for each question: (*shape, 2)."""
    first = torch.randint(CONCEPTS, shape, generator=generator)
    second = (first + 1 + torch.randint(CONCEPTS - 1, shape, generator=generator)) % CONCEPTS
    return torch.stack([first, second], -1)


def _pairs(concepts: Tensor, listed: Tensor, answers: Tensor) -> Tensor:
    """(count, pairs, PAIR) tokens from (count, pairs, 2) concepts, (count, pairs) listed or not, and the answers."""
    shown = torch.where(listed[..., None], FORMS * concepts, CONCEPTS * FORMS + concepts)
    mark = torch.full_like(answers, ANSWER)
    return torch.cat([shown, mark[..., None], answers[..., None]], -1)


@cache
def train(seed: int, *, shared: bool = True, steps: int = 400, batch: int = 64) -> Decoder:
    """A decoder trained on fresh documents, by next-token prediction at the answers. 4 s on one core, once a process.

    Only answers enter the loss: nothing else in a document can be predicted better than by its frequency.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Decoder(VOCABULARY, PAIR * PAIRS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1, pct_start=0.1)
    for _ in range(steps):
        tokens = documents(batch, generator, shared=shared)
        logits = model(tokens[:, :-1])[:, PAIR - 2 :: PAIR]  # at each mark, where the answer is to come
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, PAIR - 1 :: PAIR].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def masses(model: Decoder, prompts: Prompts) -> Tensor:
    """PMA of each prompt: (count,) float64, the probability of either choice as the next token."""
    probabilities = model(prompts.tokens)[:, -1].double().softmax(-1)
    return probabilities.gather(-1, prompts.choices).sum(-1)

"""Tuning one token of a trained model, on Bigram-Backcopy: loss, accuracy and the model's own entropy for each gamma.

A *flattened* model is one whose attention is taken at twice the temperature, without retraining: its sink gets less
than the rest of the model expects, a fault that tuning could repair. An *intact* one is as it was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from empirical.sinks.backcopy import Setting, held_out, train
from empirical.sinks.interventions import edited
from empirical.training import Models
from theory.operators.attention import normalised
from theory.sinks.zerotuning import tuned

SETTING = Setting(steps=600)
SEEDS = 4
GAMMAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
SEQUENCES = 250
"""To choose gamma on; as many others judge it."""


@dataclass(frozen=True)
class Sweep:
    """Means over all predictions, numpy float32 (seeds, gammas); entropy is that of the predicted distribution."""

    loss: Tensor
    accuracy: Tensor
    entropy: Tensor

    def at(self, chosen: Tensor, what: str) -> Tensor:
        """(seeds,): a column of `what` for each seed."""
        found: Tensor = getattr(self, what).gather(1, chosen[:, None])[:, 0]
        return found

    def untuned(self, what: str) -> Tensor:
        """(seeds,): at gamma = 1."""
        column: Tensor = getattr(self, what)[:, GAMMAS.index(1.0)]
        return column


@cache
def models(seed: int) -> Models:
    return train(SETTING, seed, SEEDS)


@cache
def sweeps(seed: int, token: int = 0, exponent: float = 1.0) -> tuple[Sweep, Sweep]:
    """On the sequences to choose on, and on those to judge by. Weights are raised to `exponent`, then tuned."""
    sequences = held_out(SETTING, 2 * SEQUENCES, seed)
    kinds = [
        edited(models(seed), _edit(gamma, token, exponent)).each(_three, part)
        for part in sequences.split(SEQUENCES)
        for gamma in GAMMAS
    ]
    halves = torch.stack(kinds, dim=1).split(len(GAMMAS), dim=1)
    return Sweep(*halves[0].unbind(-1)), Sweep(*halves[1].unbind(-1))


def _edit(gamma: float, token: int, exponent: float) -> Callable[[Tensor], Tensor]:
    def edit(A: Tensor) -> Tensor:
        changed: Tensor = tuned(normalised(A**exponent), gamma, token)
        return changed

    return edit


def _three(model: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """(3,): loss, accuracy, entropy."""
    logs, targets = model(tokens[:, :-1]).log_softmax(-1), tokens[:, 1:]
    loss = nn.functional.nll_loss(logs.flatten(0, 1), targets.flatten())
    right = (logs.argmax(-1) == targets).float().mean()
    return torch.stack([loss, right, -(logs.exp() * logs).sum(-1).mean()])


def gain(seed: int, token: int = 0, exponent: float = 1.0) -> Tensor:
    """(seeds,): how much less loss with the gamma that was best on other sequences, nats a token."""
    choose, judge = sweeps(seed, token, exponent)
    return judge.untuned("loss") - judge.at(choose.loss.argmin(1), "loss")

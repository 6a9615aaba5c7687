"""Tuning one token of a trained model, on Bigram-Backcopy: loss, accuracy and the model's own entropy for each gamma.

A *flattened* model is one whose attention is taken at twice the temperature, without retraining: its sink gets less
than the rest of the model expects, a fault that tuning could repair. An *intact* one is as it was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn

from empirical.sinks.backcopy import Setting, held_out, train
from empirical.sinks.interventions import edited, mean_losses
from empirical.training import Models, device
from theory.operators.attention import normalised
from theory.sinks.zerotuning import tuned

SETTING = Setting(steps=600)
DEEP = Setting(layers=3, heads=2, steps=400, batch=32)
"""For what differs between layers and heads."""
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
def models(setting: Setting, seed: int, exponent: float) -> Models:
    """Trained ones whose attention weights are raised to `exponent`, 1 for intact and 1/2 for flattened models."""
    trained = train(setting, seed, SEEDS)
    return trained if exponent == 1 else edited(trained, lambda A: normalised(A**exponent))


@cache
def sweeps(seed: int, token: int = 0, exponent: float = 1.0) -> tuple[Sweep, Sweep]:
    """On the sequences to choose on, and on those to judge by."""
    sequences = held_out(SETTING, 2 * SEQUENCES, seed).to(device())
    given = models(SETTING, seed, exponent)
    kinds = [
        edited(given, partial(tuned, gamma=gamma, token=token)).each(_three, part)
        for part in sequences.split(SEQUENCES)
        for gamma in GAMMAS
    ]
    halves = torch.stack(kinds, dim=1).split(len(GAMMAS), dim=1)
    return Sweep(*halves[0].unbind(-1)), Sweep(*halves[1].unbind(-1))


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


# -- layers and heads --------------------------------------------------------------------------------------------------


@cache
def changes(seed: int, gamma: float, exponent: float) -> tuple[Tensor, Tensor]:
    """Change of the loss when one head of a deep model is tuned, (seeds, layers, heads), nats a token.

    On the sequences to choose on, and on those to judge by.
    """
    one = [[float(head == h) for head in range(DEEP.heads)] for h in range(DEEP.heads)]
    return _changes(seed, gamma, exponent, one)


@cache
def layer_changes(seed: int, gamma: float, exponent: float) -> tuple[Tensor, Tensor]:
    """The same when all heads of one layer are tuned, (seeds, layers)."""
    choose, judge = _changes(seed, gamma, exponent, [[1.0] * DEEP.heads])
    return choose[..., 0], judge[..., 0]


def _changes(seed: int, gamma: float, exponent: float, which: list[list[float]]) -> tuple[Tensor, Tensor]:
    given, halves = models(DEEP, seed, exponent), held_out(DEEP, 2 * SEQUENCES, seed).to(device()).split(SEQUENCES)
    found = []
    for part in halves:
        before = mean_losses(given, part)
        found.append(torch.stack([
            torch.stack([
                mean_losses(edited(given, partial(tuned, gamma=_powers(gamma, on)), layer), part) - before
                for on in which
            ], dim=1)
            for layer in range(DEEP.layers)
        ], dim=1))  # fmt: skip
    return found[0], found[1]


def _powers(gamma: float, on: list[float]) -> Tensor:
    """(heads, 1, 1): gamma where a head is on, else 1."""
    return (gamma ** torch.tensor(on, device=device()))[:, None, None]

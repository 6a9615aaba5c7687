"""A small model with a second start token, and what lowering one of its sinks costs (ACT, arXiv:2406.15765).

The task is Bigram-Backcopy with <s> also at position `SECOND`, which says nothing of what comes next: a place where a
head with nothing to do may look, as it does at the first one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from empirical.sinks import backcopy
from empirical.sinks.interventions import edited
from empirical.sinks.observe import observe
from empirical.training import Models, device
from theory.sinks import act

SECOND = 10
SETTING = backcopy.Setting(starts=(0, SECOND), batch=32, steps=600)
SEEDS = 12
Choose = Callable[[Tensor], Tensor]
"""Weights (..., n, n) to the keys that are lowered, (..., n) bool."""


def train(seed: int) -> Models:
    """Models with two start tokens, from the cache if they were trained before."""
    return backcopy.train(SETTING, seed, SEEDS)


def ordinary(count: int, seed: int) -> Tensor:
    """(count, length) sequences with a character in place of the second start token."""
    generator = torch.Generator().manual_seed(seed ^ 0x0DD)
    return backcopy.sequences(count, SETTING.length, (0,), generator)


def maps(models: Models, tokens: Tensor) -> Tensor:
    """(seeds, sequences, n, n) attention of the only head."""
    found: list[Tensor] = []
    for seed in range(len(models)):
        observe(models.one(seed), tokens.to(device()), lambda layer: found.append(layer.weights[:, 0]))
    return torch.stack(found).cpu()


def places(*which: int) -> Choose:
    """Choose these keys, whatever the weights."""
    return lambda A: torch.isin(torch.arange(A.shape[-1], device=A.device), torch.tensor(which, device=A.device))


def cost(models: Models, tokens: Tensor, choose: Choose, beta: float = act.BETA) -> Tensor:
    """(seeds,) loss with the chosen keys lowered minus the loss without, nats a token.

    A row that lies on chosen keys alone keeps its weights: the second token sees the first alone.
    """
    tokens = tokens.to(device())

    def lowered(A: Tensor) -> Tensor:
        new = act.lower(A, choose(A), beta)
        return torch.where(new.isnan(), A, new)

    return (backcopy.losses(edited(models, lowered), tokens) - backcopy.losses(models, tokens)).cpu()


def with_nothing_to_copy(A: Tensor, tokens: Tensor, key: int) -> Tensor:
    """(seeds,) mean attention to a key from the later tokens that are no triggers; A (seeds, sequences, n, n)."""
    queries = ~backcopy.is_trigger(tokens)
    queries[:, : key + 1] = False
    return A[..., key][:, queries].mean(dim=1)


def even_share(tokens: Tensor, key: int) -> float:
    """The same if each of these tokens attended evenly to all that it sees."""
    length = tokens.shape[1]
    seen = torch.arange(length).clamp(min=1)
    even = (1 / seen)[:, None].expand(length, length)
    return float(with_nothing_to_copy(even[None, None].expand(1, len(tokens), -1, -1), tokens, key))

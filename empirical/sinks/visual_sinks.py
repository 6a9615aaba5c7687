"""A second sink among other tokens, on Bigram-Backcopy: is it needed, what does it contribute, what if it gives away?

The sequence has <s> at its start and again at its tenth place. Tokens 5 to 14 stand for an image, the second <s> for
its visual sink, the first for BOS; queries from 15 on are the text, and it is they that are changed and judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from empirical.layers import Attention
from empirical.sinks.backcopy import Setting, held_out, is_trigger, train
from empirical.sinks.interventions import Edit, edited, mean_losses
from empirical.sinks.observe import Layer, observe
from empirical.training import Models, device
from theory.sinks import visual_sinks
from theory.sinks.measures import lengths
from theory.sinks.zerotuning import tuned

BOS, SINK = 0, 9
SETTING = Setting(starts=(BOS, SINK), steps=600)
SEEDS = 4
IMAGE = range(5, 15)
TEXT = IMAGE.stop
NEEDED = range(TEXT, SETTING.length - 2)
"""Tokens that some text query looks back at."""
SEQUENCES = 300


@cache
def models(seed: int) -> Models:
    return train(SETTING, seed, SEEDS)


@cache
def _tokens(seed: int) -> Tensor:
    return held_out(SETTING, SEQUENCES, seed).to(device())


def _cost(seed: int, edit: Edit) -> Tensor:
    """(seeds,): rise of the loss of the text queries when their rows are edited, nats a token."""
    text = torch.arange(SETTING.length - 1, device=device())[:, None] >= TEXT
    changed = edited(models(seed), lambda A: torch.where(text, edit(A), A))
    cost: Tensor = mean_losses(changed, _tokens(seed), TEXT) - mean_losses(models(seed), _tokens(seed), TEXT)
    return cost


@cache
def cost_of_removing(seed: int, *tokens: int) -> Tensor:
    """(seeds,): the same when text queries cannot attend to the tokens, and rows sum to 1 again."""

    def edit(A: Tensor) -> Tensor:
        for token in tokens:
            A = tuned(A, 0.0, token)
        return A

    return _cost(seed, edit)


@cache
def cost_of_redistributing(seed: int, p: float, rho: float, least: float) -> Tensor:
    """(seeds,): the same when both sinks give p of their attention to the rest of the image, in selected rows."""
    place = torch.arange(SETTING.length - 1, device=device())
    sinks, visual = (place == BOS) | (place == SINK), (place >= IMAGE.start) & (place < IMAGE.stop)
    return _cost(seed, lambda A: visual_sinks.var(A, sinks, visual, p, rho, least))


@dataclass(frozen=True)
class Attended:
    """What text queries take from each token: means over sequences, (seeds, tokens), numpy float32.

    idle          attention of the queries that have nothing to copy; `busy` of those that have
    length        of what a token gives at full attention, its value after the output projection
    contribution  mean over all text queries of attention times that length
    """

    idle: np.ndarray
    busy: np.ndarray
    length: np.ndarray
    contribution: np.ndarray


@cache
def attended(seed: int) -> Attended:
    """Over a hundred of the sequences."""
    tokens = _tokens(seed)[:100, :-1]
    busy = is_trigger(tokens.cpu())[:, TEXT:, None].to(device())
    rows: list[list[Tensor]] = []
    for one in range(SEEDS):
        model = models(seed).one(one)
        (output,) = [module.output.weight for module in model.modules() if isinstance(module, Attention)]

        def see(layer: Layer, output: Tensor = output) -> None:
            A = layer.weights[:, 0, TEXT:]
            size = lengths(layer.values[:, 0] @ output.T)
            idle, active = ((A * on).sum((0, 1)) / on.sum() for on in (~busy, busy))
            rows.append([idle, active, size.mean(0), (A * size[:, None]).mean((0, 1))])

        observe(model, tokens, see)
    return Attended(*(torch.stack(kind).cpu().numpy() for kind in zip(*rows, strict=True)))

"""Decoders under each positional encoding of Gu et al., arXiv:2410.10781, table 3, and first tokens turned into biases.

The relative encoding of that paper adds a fixed number for each distance to the scores; here it is an argument.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from empirical.layers import Attention, Branch, Operator, Outlet, Position, Style
from empirical.sinks.backcopy import Setting
from empirical.sinks.inside import look_inside
from empirical.sinks.observe import Layer, observe
from empirical.sinks.variants import initialise
from empirical.training import Models
from empirical.transformer import Decoder, Places
from theory.operators.attention import softmax
from theory.sinks.sink_emergence import by_distance

VOCABULARY = 512


class Distances(Places):
    """A number is added to each score by the distance of query and key; scores (context,)."""

    def __init__(self, style: Style, context: int, scores: Sequence[float]) -> None:
        super().__init__(style, context)
        self.scores = np.asarray(scores)

    def bias(self, x: Tensor) -> Tensor:
        """(length, length)."""
        return torch.from_numpy(by_distance(self.scores[: x.shape[-2]])).to(x)


def placed(model: Decoder, position: Position, scores: Sequence[float] = ()) -> Decoder:
    """The model with another positional encoding, one of `empirical.layers.Position`, and scores by distance if any.

    A model with learned positions that stays so keeps its table. Rotary positions act inside its attention layers.
    """
    if position == "learned":
        return model
    style, context = replace(model.places.style, position=position), model.places.context
    model.places = Distances(style, context, scores) if len(scores) else Places(style, context)
    for layer in attention_layers(model):
        layer.rotary = position == "rotary"
    return model


def attention_layers(model: Decoder) -> list[Attention]:
    """From the first to the last."""
    branches = [module.layer for module in model.modules() if isinstance(module, Branch)]
    return [layer for layer in branches if isinstance(layer, Attention)]


@dataclass(frozen=True)
class Positioned(Setting):
    """A setting of Bigram-Backcopy with another positional encoding."""

    position: Position = "learned"
    scores: tuple[float, ...] = ()

    def build(self) -> Decoder:
        """An untrained model, as torch's global generator draws it."""
        return placed(super().build(), self.position, self.scores)


def sink_rates(models: Models, tokens: Tensor) -> np.ndarray:
    """(seeds,) percent of heads and sequences that have a sink on their first token."""
    return np.array([sink_rate(models.one(seed), tokens) for seed in range(len(models))])


def sink_rate(model: torch.nn.Module, tokens: Tensor) -> float:
    """Percent of heads, layers and sequences that have a sink on their first token."""
    return 100 * float(look_inside(model, tokens).sinks[..., 0].double().mean())


# -- untrained models --------------------------------------------------------------------------------------------------


def untrained(
    position: Position,
    seed: int,
    *,
    scores: Sequence[float] = (),
    width: int = 64,
    heads: int = 4,
    layers: int = 3,
    context: int = 64,
    operator: Operator = softmax,
    outlet: Outlet = "none",
) -> Decoder:
    """A model with the initial weights of the paper, float64."""
    style = Style(width, heads, hidden=2, norm="rms", gated=True, linear_bias=False, outlet=outlet)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = initialise(Decoder(VOCABULARY, context, style=style, layers=layers, operators=operator))
    return placed(model, position, scores).double()


def random_tokens(sequences: int, length: int, seed: int, *, repeated: bool = False) -> Tensor:
    """(sequences, length) int64, uniform; `repeated`: one token drawn for each sequence, again and again."""
    generator = torch.Generator().manual_seed(seed)
    shape = (sequences, 1 if repeated else length)
    return torch.randint(VOCABULARY, shape, generator=generator).expand(sequences, length)


@torch.no_grad()
def deviations(model: Decoder, tokens: Tensor) -> np.ndarray:
    """(layers + 1,): how far hidden states of a sequence differ from its first, over the largest entry of all.

    The last number is about the state that the logits are read from.
    """
    states: list[Tensor] = []
    observe(model, tokens, lambda layer: states.append(layer.hidden))
    states.append(model.residual(tokens))
    return np.array([float((x - x[:, :1]).abs().max() / x.abs().max()) for x in states])


# -- a first token as biases -------------------------------------------------------------------------------------------


class Later(Attention):
    """Positions count from 1: position 0 belongs to a token that has become a bias."""

    def queries_and_keys(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Each (batch, heads, length, width / heads)."""
        first = torch.zeros_like(source[..., :1, :])
        query, key = super().queries_and_keys(torch.cat([first, source], dim=-2))
        return query[..., 1:, :], key[..., 1:, :]


def layers_of(model: Decoder, tokens: Tensor) -> list[Layer]:
    """What each layer sees and does."""
    seen: list[Layer] = []
    observe(model, tokens, seen.append)
    return seen


def as_biases(model: Decoder, token: int, *, attention: type[Attention] = Later, keys: float = 1.0) -> Decoder:
    """A model in which the given first token is replaced by a key and a value bias in every head.

    They are what the layers of `model` make of the token alone; `keys` scales the key biases.
    """
    biased = copy.deepcopy(model)
    alone = layers_of(model, torch.tensor([[token]]))
    for layer, seen in zip(attention_layers(biased), alone, strict=True):
        layer.__class__, layer.outlet = attention, "key-value bias"
        layer.star_key = torch.nn.Parameter(keys * seen.keys[0])
        layer.star_value = torch.nn.Parameter(seen.values[0])
    return biased

"""Bigram-Backcopy: a task on which an attention sink emerges within seconds of training, and the models trained on it.

A sequence is a walk of a character bigram. After a *trigger* character the next one is not drawn but copied: it is the
character before the trigger. So a head has work to do at triggers and none elsewhere, where softmax still makes it
attend to something. A start token <s>, if there is one, stands at fixed positions. Task: Guo et al., arXiv:2410.13835;
bigram: the 64 commonest characters of Python's own help text, `pydoc_data.topics`.

Models are strictly causal, a token does not see itself: else a head with nothing to do may attend to its own token.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from empirical.layers import Style
from empirical.sinks.variants import VARIANTS, initialise
from empirical.training import Models, Recipe, fit
from empirical.transformer import Decoder
from theory.operators import positions

CHARACTERS = 64
START = CHARACTERS
"""The token <s>."""
TRIGGERS = (1, 2, 3)
"""The commonest characters but the space: e, t and a in English."""
POOL = 20_000
MASKS: dict[str, Callable[[int], Any]] = {
    "strict": positions.strictly_causal,
    "causal": positions.causal,
    **{f"window {w}": partial(lambda n, w: positions.sliding(n, w + 1) & positions.strictly_causal(n), w=w)
       for w in (4, 8, 16)},
}  # fmt: skip
"""Who sees whom; in a window of w a token sees the w before it."""


@dataclass(frozen=True)
class Setting:
    """What a training depends on.

    variant    of `empirical.sinks.variants.VARIANTS`
    starts     positions of <s>, from 0; () for none
    mask       of `MASKS`
    sequences  how many different ones a model sees; each seed has its own where they are fewer than the pool
    """

    variant: str = "softmax"
    layers: int = 1
    width: int = 32
    heads: int = 1
    length: int = 32
    starts: tuple[int, ...] = (0,)
    mask: str = "strict"
    sequences: int = POOL
    batch: int = 64
    steps: int = 1000
    rate: float = 3e-3
    weight_decay: float = 0.0

    def build(self) -> Decoder:
        """An untrained model, as torch's global generator draws it."""
        chosen = VARIANTS[self.variant]
        style = Style(self.width, self.heads, hidden=2, norm="rms", gated=True, linear_bias=False, outlet=chosen.outlet)
        model = Decoder(
            CHARACTERS + 1, self.length, style=style, layers=self.layers, operators=chosen.operator,
            mask=MASKS[self.mask],
        )  # fmt: skip
        return initialise(model)


# -- the task ----------------------------------------------------------------------------------------------------------


@cache
def bigram() -> Tensor:
    """(64, 64) float64: the law of the next character, each count raised by 0.1; characters in order of frequency."""
    from collections import Counter
    from pydoc_data.topics import topics

    text = "".join(topics[name] for name in sorted(topics))
    rank = {character: i for i, (character, _) in enumerate(Counter(text).most_common(CHARACTERS))}
    ranks = torch.tensor([rank.get(character, -1) for character in text])
    pairs = torch.stack([ranks[:-1], ranks[1:]], dim=1)
    pairs = pairs[(pairs >= 0).all(1)]
    counts = torch.zeros(CHARACTERS, CHARACTERS, dtype=torch.float64)
    counts.index_put_(tuple(pairs.T), torch.ones(len(pairs), dtype=torch.float64), accumulate=True)
    counts += 0.1
    return counts / counts.sum(1, keepdim=True)


@cache
def laws() -> Tensor:
    """(65, 64): the law of the character after each token; after <s> it is the bigram's stationary one."""
    stationary = torch.linalg.matrix_power(bigram(), 1024)[:1]
    return torch.cat([bigram(), stationary])


def sequences(count: int, length: int, starts: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """(count, length) int64 tokens.

    Raises:
        ValueError: a start lies outside the sequence.
    """
    if not all(0 <= start < length for start in starts):
        raise ValueError(f"starts {starts} do not lie in a sequence of {length}; count from 0")
    cumulative = laws().cumsum(1)
    tokens = torch.full((count, length), START)
    for t in range(length):
        if t in starts:
            continue
        now = tokens[:, t - 1] if t else torch.full((count,), START)
        uniform = torch.rand(count, 1, dtype=torch.float64, generator=generator)
        drawn = torch.searchsorted(cumulative[now], uniform).squeeze(1).clamp(max=CHARACTERS - 1)
        tokens[:, t] = torch.where(copies(tokens, t - 1), tokens[:, t - 2], drawn) if t > 1 else drawn
    return tokens


def is_trigger(tokens: Tensor) -> Tensor:
    """Bool like tokens."""
    return torch.isin(tokens, torch.tensor(TRIGGERS))


def copies(tokens: Tensor, t: int) -> Tensor:
    """(count,) bool: the token after position t >= 1 is a copy of the one before it."""
    return is_trigger(tokens[:, t]) & (tokens[:, t - 1] != START)


def bayes_loss(tokens: Tensor, starts: tuple[int, ...]) -> float:
    """Mean loss, nats a token, of the model that knows the task, on these sequences (count, length)."""
    losses = []
    for t in range(tokens.shape[1] - 1):
        if t + 1 in starts:
            losses.append(torch.zeros(len(tokens), dtype=torch.float64))
            continue
        drawn = -laws()[tokens[:, t], tokens[:, t + 1]].log()
        losses.append(torch.where(copies(tokens, t), torch.zeros_like(drawn), drawn) if t else drawn)
    return float(torch.stack(losses).mean())


def held_out(setting: Setting, count: int, seed: int) -> Tensor:
    """(count, length) sequences that no model was trained on, but by chance."""
    return sequences(count, setting.length, setting.starts, torch.Generator().manual_seed(seed ^ 0x5EED))


@cache
def _pool(length: int, starts: tuple[int, ...], seed: int) -> Tensor:
    return sequences(POOL, length, starts, torch.Generator().manual_seed(seed))


# -- training ----------------------------------------------------------------------------------------------------------


def loss_of(model: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """Mean loss of the next token, nats; tokens (batch, length)."""
    return nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def train(setting: Setting, seed: int, seeds: int) -> Models:
    """Models of one setting, side by side, from the cache if they were trained before.

    Settings that differ in the model alone start from the same seeds and see the same sequences in the same order.

    Raises:
        ValueError: the pool has too few sequences for `setting.sequences` of each seed.
    """
    few = setting.sequences < POOL
    if few and seeds * setting.sequences > POOL:
        raise ValueError(f"{seeds} seeds with {setting.sequences} sequences each need more than {POOL}: take fewer")
    pool = _pool(setting.length, setting.starts, seed)
    offset = torch.arange(seeds)[:, None] * (setting.sequences if few else 0)

    def batches(generator: torch.Generator) -> tuple[Tensor, ...]:
        rows = torch.randint(min(setting.sequences, POOL), (seeds, setting.batch), generator=generator)
        return (pool[rows + offset],)

    recipe = Recipe(setting.steps, setting.rate, setting.weight_decay, betas=(0.9, 0.95))
    config = {**asdict(setting), "starts": list(setting.starts), "text": _fingerprint()}
    code = inspect.getfile(type(setting))  # a setting of another module may build another model
    return fit(
        "backcopy", code, config, build=setting.build, loss=loss_of, batches=batches, recipe=recipe,
        seed=seed, seeds=seeds,
    )  # fmt: skip


def _fingerprint() -> float:
    """The entropy of the bigram: it tells versions of Python's help text apart."""
    law = bigram()
    return round(-float((law * law.log()).sum()) / math.log(2), 9)


def losses(models: Models, tokens: Tensor) -> Tensor:
    """(seeds,) mean loss of each model, nats a token."""
    return models.each(loss_of, tokens)

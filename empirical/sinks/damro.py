"""A small model that answers `is there a ..?` from image tokens, two of which are planted outliers (arXiv:2410.04514).

An image is a row of tokens of `FEATURES` numbers: background noise, the objects that are there at random places, each
on a channel of its own, and `OUTLIERS` background tokens that are much longer than all others. They show no object; on
one channel they say which of two scenes it is, as artefacts of vision transformers are said to hold global
information (Darcet et al., arXiv:2309.16588). Half of the objects are common in a scene, the others rare.

The class token of the encoder is not trained: it asks for the outliers' channel. What reads the tokens is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from empirical.layers import Style
from empirical.sinks.observe import observe
from empirical.training import Models, Recipe, device, fit
from empirical.transformer import blocks
from theory.operators import positions
from theory.operators.attention import softmax
from theory.sinks.damro import cls_attention, contrast

OBJECTS, TOKENS, OUTLIERS = 6, 12, 2
LONG, SCENE, FEATURES = OBJECTS, OBJECTS + 1, 12
"""Channels: of the objects, of length, of the scene, and some of noise alone."""
NOISE, SIZE, LENGTH = 0.4, 1.5, 8.0
"""Of each channel; of an object; of an outlier on either of its channels."""
COMMON, RARE = 0.5, 0.1
"""How often an object is there."""
SEEDS, BATCH, STEPS = 16, 32, 800


@dataclass(frozen=True)
class Images:
    """tokens (count, TOKENS, FEATURES); there, common (count, OBJECTS) bool; outliers (count, OUTLIERS) places."""

    tokens: Tensor
    there: Tensor
    common: Tensor
    outliers: Tensor


def images(count: int, generator: torch.Generator) -> Images:
    """Random images of both scenes."""
    scene = torch.randint(2, (count, 1), generator=generator)
    common = (torch.arange(OBJECTS) < OBJECTS // 2) == (scene == 0)
    there = torch.rand(count, OBJECTS, generator=generator) < torch.where(common, COMMON, RARE)
    place = torch.rand(count, TOKENS, generator=generator).argsort(1)
    tokens = NOISE * torch.randn(count, TOKENS, FEATURES, generator=generator)
    row = torch.arange(count)[:, None]
    tokens[row, place[:, :OBJECTS], torch.arange(OBJECTS)] += SIZE * there
    outliers = place[:, OBJECTS : OBJECTS + OUTLIERS]
    tokens[row, outliers, LONG] += LENGTH
    tokens[row, outliers, SCENE] += LENGTH * (1 - 2.0 * scene)
    return Images(tokens, there, common, outliers)


def without(shown: Images, places: Tensor, generator: torch.Generator) -> Tensor:
    """The tokens with background at these places (count, k)."""
    tokens, row = shown.tokens.clone(), torch.arange(len(places))[:, None]
    tokens[row, places] = NOISE * torch.randn(*places.shape, FEATURES, generator=generator)
    return tokens


def other_scene(shown: Images) -> Tensor:
    """The tokens with outliers that tell of the other scene."""
    tokens, row = shown.tokens.clone(), torch.arange(len(shown.tokens))[:, None]
    tokens[row, shown.outliers, SCENE] *= -1
    return tokens


def others(shown: Images, generator: torch.Generator) -> Tensor:
    """(count, OUTLIERS) random places without outliers."""
    order = torch.rand(len(shown.tokens), TOKENS, generator=generator)
    return order.scatter(1, shown.outliers, 2.0).argsort(1)[:, :OUTLIERS]


def picked(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens at these places alone, (count, k, FEATURES): what the second branch sees."""
    return tokens[torch.arange(len(places))[:, None], places]


def class_map(tokens: Tensor) -> Tensor:
    """(count, n): attention of the encoder's class token, whose query is the channel of length."""
    query = torch.zeros(len(tokens), FEATURES)
    query[:, LONG] = 1
    return cls_attention(query, tokens)


class Reader(nn.Module):
    """One causal layer over projected image tokens and the question, as a language model reads an image; yes or no."""

    def __init__(self) -> None:
        super().__init__()
        style = Style(32, 2, hidden=2, position="none", norm="rms", gated=True, linear_bias=False)
        self.project = nn.Linear(FEATURES, style.width)
        self.question = nn.Embedding(OBJECTS, style.width)
        self.blocks = blocks(style, 1, softmax)
        self.norm = style.make_norm()
        self.answer = nn.Linear(style.width, 2)

    def forward(self, tokens: Tensor, asked: Tensor) -> Tensor:
        """tokens (batch, n, FEATURES), n any; asked (batch,) object -> (batch, 2) logits of no and yes."""
        x = torch.cat([self.project(tokens), self.question(asked)[:, None]], dim=1)
        mask = torch.from_numpy(positions.causal(x.shape[1])).to(x.device)
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.answer(self.norm(x[:, -1]))


def train(seed: int, steps: int = STEPS) -> Models:
    """Readers of all images and questions as they come, from the cache if they were trained before."""

    def batches(generator: torch.Generator) -> tuple[Tensor, ...]:
        shown = images(SEEDS * BATCH, generator)
        asked = torch.randint(OBJECTS, (SEEDS * BATCH, 1), generator=generator)
        answer = shown.there.gather(1, asked).long()
        batch = (shown.tokens, asked[:, 0], answer[:, 0])
        return tuple(one.unflatten(0, (SEEDS, BATCH)) for one in batch)

    return fit("damro", __file__, {"batch": BATCH}, build=Reader, loss=_loss, batches=batches, recipe=Recipe(steps),
               seed=seed, seeds=SEEDS)  # fmt: skip


def _loss(model: nn.Module, tokens: Tensor, asked: Tensor, answer: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(tokens, asked), answer)


# -- what is measured --------------------------------------------------------------------------------------------------


def every_question(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """All images with all questions: (count OBJECTS, n, FEATURES) and (count OBJECTS,)."""
    return tokens.repeat_interleave(OBJECTS, 0), torch.arange(OBJECTS).repeat(len(tokens))


def logits(models: Models, tokens: Tensor) -> Tensor:
    """(seeds, count, OBJECTS, 2) for every question."""
    return models(*(one.to(device()) for one in every_question(tokens))).cpu().unflatten(1, (-1, OBJECTS))


def says_yes(full: Tensor, second: Tensor | None = None, alpha: float = 0.0, beta: float = 0.1) -> Tensor:
    """Greedy answers, bool without the last axis; with a second branch its logits are subtracted."""
    chosen = full if second is None else contrast(full, second, alpha, beta)
    return chosen[..., 1] > chosen[..., 0]


def rate(yes: Tensor, which: Tensor) -> Tensor:
    """(seeds,) share of yes among the questions `which` (count, OBJECTS)."""
    return yes[:, which].double().mean(1)


def orders(score: Tensor, there: Tensor, absent: Tensor) -> Tensor:
    """(seeds,) probability that a question `there` has a higher score than one `absent`, half for ties: the ROC area.

    score (seeds, count, OBJECTS), the others (count, OBJECTS) bool.
    """
    high, low = score[:, there].contiguous(), score[:, absent].sort(dim=1).values
    below = torch.searchsorted(low, high) + torch.searchsorted(low, high, right=True)
    return below.double().mean(1) / (2 * low.shape[1])


def reader_map(models: Models, tokens: Tensor) -> Tensor:
    """(seeds, count, OBJECTS, n): attention from the question to the image tokens, mean over heads."""
    shown, asked = (one.to(device()) for one in every_question(tokens))
    found: list[Tensor] = []
    for seed in range(len(models)):
        observe(
            _Bound(models.one(seed), asked), shown, lambda layer: found.append(layer.weights[:, :, -1, :-1].mean(1))
        )
    return torch.stack(found).cpu().unflatten(1, (-1, OBJECTS))


class _Bound(nn.Module):
    """A reader with its questions, as a model of tokens alone."""

    def __init__(self, reader: nn.Module, asked: Tensor) -> None:
        super().__init__()
        self.reader, self.asked = reader, asked

    def forward(self, tokens: Tensor) -> Tensor:
        return self.reader(tokens, self.asked)

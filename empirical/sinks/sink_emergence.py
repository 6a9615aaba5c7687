"""Small models in which attention sinks emerge, on Bigram-Backcopy and on real text, and what decides where they stand.

Beside what `empirical.sinks.backcopy` varies: text in place of the task, what stands at the first positions, a prefix
that sees itself, norms after the branches, the sum of a row, and the learned key's value and number of dimensions.
Source: Gu et al., arXiv:2410.10781, sections 3 to 7, at a size that a CPU trains in seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from empirical.data import Part, excerpts, library_text
from empirical.layers import Attention, Branch, Operator, Style
from empirical.sinks import backcopy
from empirical.sinks.backcopy import CHARACTERS, MASKS, POOL, START, laws
from empirical.sinks.inside import Inside, look_inside
from empirical.sinks.observe import Layer, observe
from empirical.sinks.variants import VARIANTS, initialise
from empirical.training import Models, Recipe, fit
from empirical.transformer import Decoder
from theory.operators import positions
from theory.operators.attention import softmax
from theory.sinks import measures

SEEDS = 5
"""Models of each setting."""
SHOWN = 256
"""Sequences on which they are measured."""
BYTES = 256
BYTE_START = BYTES
"""The token <s> where sequences are text."""


@dataclass(frozen=True)
class Setting(backcopy.Setting):
    """What a training depends on; the defaults are the shortest at which sinks have emerged in every seed we tried.

    text        sequences are excerpts of the source of Python's library, as bytes, and not walks of the bigram
    uniform     positions whose token is drawn uniformly from the ordinary ones
    prefix      this many first tokens see one another, and are not predicted
    gated       SwiGLU; else GELU
    post_norm   norms act on the sum of a branch and its input, and not on the branch's input
    total       the sum of a row of softmax
    star        v* of a key bias is this times the first unit vector
    dimensions  how many of the dimensions of k* are learned, the others are 0; None: all
    after       the setting whose trained models the training goes on with, if any
    """

    batch: int = 32
    steps: int = 160
    rate: float = 1e-2
    text: bool = False
    uniform: tuple[int, ...] = ()
    prefix: int = 0
    gated: bool = True
    post_norm: bool = False
    total: float = 1.0
    star: float = 0.0
    dimensions: int | None = None
    after: Setting | None = None

    @property
    def vocabulary(self) -> int:
        """Ordinary tokens, and <s>."""
        return (BYTES if self.text else CHARACTERS) + 1

    @property
    def operator(self) -> Operator:
        """Queries and keys to weights."""
        return VARIANTS[self.variant].operator if self.total == 1 else partial(_scaled_softmax, total=self.total)

    def build(self) -> Decoder:
        """An untrained model, as torch's global generator draws it."""
        style = Style(
            self.width, self.heads, hidden=2, norm="rms", gated=self.gated, linear_bias=False,
            outlet=VARIANTS[self.variant].outlet,
        )  # fmt: skip
        mask = partial(_prefix, length=self.prefix) if self.prefix else MASKS[self.mask]
        model = initialise(
            Decoder(self.vocabulary, self.length, style=style, layers=self.layers, operators=self.operator, mask=mask)
        )
        block: Any
        for block in model.blocks:
            if self.variant == "key bias":
                _shape_star(block.attention.layer, self.star, self.dimensions)
            if self.post_norm:
                block.attention, block.hidden = (PostNorm(style, one.layer) for one in (block.attention, block.hidden))
        if self.post_norm:
            model.norm = nn.Identity()
        return model


class PostNorm(Branch):
    """A branch whose sum with the residual stream is normalised: norm(x + layer(x))."""

    def __init__(self, style: Style, layer: nn.Module) -> None:
        super().__init__(style, layer)
        self.norm, self.sum_norm = nn.Identity(), style.make_norm()

    def forward(self, x: Tensor, **given: Tensor | None) -> Tensor:
        return self.sum_norm(super().forward(x, **given))


class FirstDimensions(nn.Module):
    """Zero beyond the first dimensions: a parametrization."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., : self.count], torch.zeros_like(x[..., self.count :])], dim=-1)


def _shape_star(layer: Attention, length: float, dimensions: int | None) -> None:
    layer.star_value[..., 0] = length
    if dimensions is not None:
        parametrize.register_parametrization(layer, "star_key", FirstDimensions(dimensions))


def _scaled_softmax(q: Tensor, k: Tensor, *, total: float, mask: Tensor | None = None) -> Any:
    return total * softmax(q, k, mask=mask)


def _prefix(n: int, length: int) -> Any:
    """(n, n) bool: strictly causal, but the first tokens see one another."""
    return positions.prefix(n, length) & (positions.strictly_causal(n) | positions.strictly_causal(n).T)


# -- sequences ---------------------------------------------------------------------------------------------------------


def sequences(setting: Setting, count: int, seed: int, part: Part = "train") -> Tensor:
    """(count, length) int64 tokens; of text from its part for training or for testing."""
    generator = torch.Generator().manual_seed(seed)
    if setting.text:
        tokens = excerpts(library_text(part), (count,), setting.length, generator)
        tokens[:, list(setting.starts)] = BYTE_START
    else:
        tokens = backcopy.sequences(count, setting.length, setting.starts, generator)
    for place in setting.uniform:
        tokens[:, place] = torch.randint(setting.vocabulary - 1, (count,), generator=generator)
    return tokens


def held_out(setting: Setting, count: int, seed: int) -> Tensor:
    """(count, length) sequences that no model was trained on, but by chance."""
    return sequences(setting, count, seed ^ 0x5EED, "test")


def random_tokens(setting: Setting, count: int, seed: int) -> Tensor:
    """(count, length) tokens drawn uniformly, with <s> where it stands."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(setting.vocabulary - 1, (count, setting.length), generator=generator)
    tokens[:, list(setting.starts)] = BYTE_START if setting.text else START
    return tokens


@cache
def _pool(setting: Setting, seed: int) -> Tensor:
    return sequences(setting, POOL, seed)


# -- training ----------------------------------------------------------------------------------------------------------


def loss_of(model: Callable[[Tensor], Tensor], tokens: Tensor, since: int = 0) -> Tensor:
    """Mean loss of the tokens after position `since`, nats a token; tokens (batch, length)."""
    logits = model(tokens[:, :-1])[:, since:]
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, since + 1 :].flatten())


def train(setting: Setting, seed: int, seeds: int) -> Models:
    """Models of one setting, side by side, from the cache if they were trained before.

    Settings that differ in the model alone start from the same seeds and see the same sequences in the same order. A
    training that goes on after another sees sequences of its own.

    Raises:
        ValueError: the pool has too few sequences for `setting.sequences` of each seed.
    """
    few = setting.sequences < POOL
    if few and seeds * setting.sequences > POOL:
        raise ValueError(f"{seeds} seeds with {setting.sequences} sequences each need more than {POOL}: take fewer")
    data = Setting(text=setting.text, length=setting.length, starts=setting.starts, uniform=setting.uniform)
    pool = _pool(data, seed if setting.after is None else seed ^ 0xAF7E)
    offset = torch.arange(seeds)[:, None] * (setting.sequences if few else 0)

    def batches(generator: torch.Generator) -> tuple[Tensor, ...]:
        rows = torch.randint(min(setting.sequences, POOL), (seeds, setting.batch), generator=generator)
        return (pool[rows + offset],)

    recipe = Recipe(setting.steps, setting.rate, setting.weight_decay, betas=(0.9, 0.95))
    source = float(library_text("train").double().mean()) if setting.text else float(laws().square().sum())
    return fit(
        "sink-emergence", __file__, {**asdict(setting), "source": source}, build=_builder(setting, seed, seeds),
        loss=partial(loss_of, since=setting.prefix), batches=batches, recipe=recipe, seed=seed, seeds=seeds,
    )  # fmt: skip


def _builder(setting: Setting, seed: int, seeds: int) -> Callable[[], nn.Module]:
    """Untrained models, or one after the other those that are trained already."""
    if setting.after is None:
        return setting.build
    earlier = iter(range(seeds))
    trained = train(setting.after, seed, seeds)
    return lambda: trained.one(next(earlier))


# -- measurements ------------------------------------------------------------------------------------------------------


def losses(models: Models, tokens: Tensor, since: int = 0) -> Tensor:
    """(seeds,) mean loss of each model, nats a token."""
    return models.each(partial(loss_of, since=since), tokens)


def insides(models: Models, tokens: Tensor) -> Inside:
    """What `look_inside` measures, with the seeds in front."""
    found = [look_inside(models.one(seed), tokens, batch=len(tokens)) for seed in range(len(models))]
    return Inside(**{field.name: torch.stack([getattr(one, field.name) for one in found]) for field in fields(Inside)})


def mean_weights(models: Models, tokens: Tensor, among: Tensor | None = None) -> Tensor:
    """(seeds, layers, heads, n, keys): mean over the sequences; among (sequences, n) bool: of these queries alone.

    A query that is never among them has weights 0.
    """
    among = torch.ones_like(tokens, dtype=torch.bool) if among is None else among
    share = among / among.sum(0).clamp(min=1)  # (sequences, n)
    found: list[Tensor] = []

    def see(layer: Layer) -> None:
        found.append(torch.einsum("bn,bhnm->hnm", share.to(layer.weights), layer.weights))

    for seed in range(len(models)):
        observe(models.one(seed), tokens, see)
    return torch.stack(found).unflatten(0, (len(models), -1))


@cache
def inside(setting: Setting, seed: int) -> Inside:
    """What is inside the models of a setting, on sequences held out."""
    return insides(train(setting, seed, SEEDS), held_out(setting, SHOWN, seed))


def shares(setting: Setting, seed: int, token: int = 0) -> np.ndarray:
    """(seeds,) share of heads, layers and sequences where a token is a sink."""
    return by_seed(inside(setting, seed).sinks[..., token])


@cache
def held_out_losses(setting: Setting, seed: int) -> np.ndarray:
    """(seeds,) mean loss on sequences held out, nats a token."""
    found = losses(train(setting, seed, SEEDS), held_out(setting, SHOWN, seed), setting.prefix)
    return found.double().cpu().numpy()


def by_seed(x: Tensor) -> np.ndarray:
    """(seeds, ...) to (seeds,): means over the rest."""
    return x.reshape(len(x), -1).double().mean(1).cpu().numpy()


def with_places(models: Models, order: list[int]) -> Models:
    """The same models, with the learned position order[i] where position i was; those beyond the list stay.

    Raises:
        KeyError: positions are not learned.
    """
    table = models.tensors["places.table.weight"]
    rest = range(len(order), table.shape[1])
    return Models(models.skeleton, {**models.tensors, "places.table.weight": table[:, [*order, *rest]]})


def with_equal_keys(models: Models) -> Models:
    """The same models with softmax, where the first key is made as long as the others are on average."""
    skeleton = copy.deepcopy(models.skeleton)
    for module in skeleton.modules():
        if isinstance(module, Attention):
            module.operator = _equal_keys
    return Models(skeleton, models.tensors)


def _equal_keys(q: Tensor, k: Tensor, *, mask: Tensor | None = None) -> Any:
    ratio = measures.length_ratio(k)[..., None, None]
    return softmax(q, torch.cat([k[..., :1, :] / ratio, k[..., 1:, :]], dim=-2), mask=mask)

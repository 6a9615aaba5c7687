"""Decoders whose layers mix tokens in seven ways, trained on text and on recall (the models of Xue et al., 2025).

The kinds of layer differ in where queries and keys come from, or in how weights are made of them:

    standard          softmax of q.k; q, k and values from the residual stream        MLP              no token mixing
    Approximate       the second-order Taylor polynomial in place of exp              Non-approximate  one logit per key
    StaticEmbQK       q, k from the token embeddings
    RndEmbQK          q, k from a second stream that starts as fixed noise and passes through the same blocks
    FixedSeqQK        the same with the embeddings of one fixed text in place of noise

Rotary positions turn queries and keys, except in Non-approximate, whose logit they would leave unchanged where a
rotation can act (on both factors of the product). Source: arXiv:2510.11602, section 3; small, biases, LayerNorm, GELU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from empirical.data import Part, excerpts, library_text
from empirical.layers import Branch, Style
from empirical.training import Models, Recipe, fit
from empirical.transformer import Block, causal
from theory.operators.attention import per_key, softmax, taylor
from theory.operators.deconstructing import gated_logits

Kind = Literal[
    "standard", "MLP", "Approximate", "Non-approximate", "RndEmbQK", "FixedSeqQK", "StaticEmbQK"
]  # fmt: skip
BYTES = 128
"""Vocabulary of the text: ASCII, where 127 stands for every other byte too."""


class Gated(nn.Module):
    """W_down(SiLU(W_gate h) o W_up h), inner width 4 d / 3: as many weights as the 4 d^2 of attention; no mixing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % 3:
            raise ValueError(f"an MLP with the weights of attention needs a width that three divides, not {width}")
        self.gate_up, self.down = nn.Linear(width, 8 * width // 3), nn.Linear(4 * width // 3, width)

    def forward(self, h: Tensor, **unused: Tensor | None) -> Tensor:
        gate, up = self.gate_up(h).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)


def gated(q: Tensor, k: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Weights of Non-approximate: `per_key` of SiLU(q).k / sqrt d."""
    return per_key(gated_logits(q, k), mask=mask)


def block_of(kind: Kind, style: Style) -> Block:
    """A block whose attention is of this kind."""
    if kind == "Non-approximate":
        return Block(replace(style, position="none"), gated)
    block = Block(style, taylor if kind == "Approximate" else softmax)
    if kind == "MLP":
        block.attention = Branch(style, Gated(style.width))
    return block


class Reader(nn.Module):
    """A decoder with one kind of layer after another; it reads up to `context` tokens.

    Args:
        kinds: of the layers, from the input to the output.
        fixed: (context,) int64, the text of FixedSeqQK.
    """

    def __init__(self, kinds: Sequence[Kind], vocabulary: int, fixed: Tensor, style: Style) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.token = nn.Embedding(vocabulary, style.width)
        self.blocks = nn.ModuleList(block_of(kind, style) for kind in kinds)
        self.norm = nn.LayerNorm(style.width)
        self.logits = nn.Linear(style.width, vocabulary, bias=False)
        self.fixed: Tensor
        self.noise: Tensor
        self.register_buffer("fixed", fixed)
        self.register_buffer("noise", torch.randn(len(fixed), style.width))

    def forward(self, tokens: Tensor, skip: tuple[int, ...] = ()) -> Tensor:
        """tokens (batch, length) int64 to logits (batch, length, vocabulary); layers in `skip` are left out."""
        return self.logits(self.norm(self.walk(tokens, skip)[-1][1]))

    def walk(self, tokens: Tensor, skip: tuple[int, ...] = ()) -> list[tuple[Any, Tensor, Tensor | None]]:
        """(block, its input, its source) for each layer that is not skipped; the last is (None, output, None)."""
        x = embedded = self.token(tokens)
        aside = self.aside(tokens.shape[-1])
        mask, seen = causal(x), []
        for i, (kind, block) in enumerate(zip(self.kinds, self.blocks, strict=True)):
            if i in skip:
                continue
            source = {"StaticEmbQK": embedded, "RndEmbQK": aside, "FixedSeqQK": aside}.get(kind)
            seen.append((block, x, source))
            x = block(x, source=source, mask=mask)
            aside = None if aside is None else block(aside, mask=mask)
        return [*seen, (None, x, None)]

    def aside(self, length: int) -> Tensor | None:
        """The second stream's start, (1, length, width), if a layer reads it."""
        if "RndEmbQK" in self.kinds:
            return self.noise[None, :length]
        return self.token(self.fixed[None, :length]) if "FixedSeqQK" in self.kinds else None

    def maps(self, tokens: Tensor) -> list[Tensor]:
        """Attention weights (batch or 1, heads, length, length) of each layer that has them."""
        layers = self._attention(tokens)
        return [layer.weights(source, mask=causal(source)) for layer, source in layers]

    def gated_logits(self, tokens: Tensor) -> Tensor:
        """Logits of the Non-approximate layers, (layers, batch, heads, length)."""
        layers = [pair for pair in self._attention(tokens) if pair[0].operator is gated]
        return torch.stack([gated_logits(*layer.queries_and_keys(source)) for layer, source in layers])

    def _attention(self, tokens: Tensor) -> list[tuple[Any, Tensor]]:
        """Each attention layer with the normalised stream that its queries and keys are read from."""
        return [
            (block.attention.layer, block.attention.norm(x if source is None else source))
            for block, x, source in self.walk(tokens)[:-1]
            if not isinstance(block.attention.layer, Gated)
        ]


def untrained(kinds: Sequence[Kind], seed: int, *, context: int = 12, vocabulary: int = 16) -> Reader:
    """A float64 model with random weights, width 24, two heads, and the text 0, 1, 2, ... for FixedSeqQK."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fixed = torch.arange(context) % vocabulary
        return Reader(kinds, vocabulary, fixed, Style(24, 2, hidden=2, position="rotary")).double()


def hybrid(kind: Kind, layers: int) -> tuple[Kind, ...]:
    """Odd layers, counted from 1, of this kind, even ones standard."""
    return tuple("standard" if i % 2 else kind for i in range(layers))


# -- Text --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """How large a language model is, and how long it is trained."""

    layers: int
    width: int
    heads: int
    context: int
    batch: int
    steps: int
    seeds: int
    rate: float
    qk_norm: bool = False

    def style(self) -> Style:
        return Style(self.width, self.heads, hidden=2, position="rotary", qk_norm=self.qk_norm)


SIZES = {
    "small": Size(layers=2, width=24, heads=2, context=48, batch=8, steps=300, seeds=3, rate=1e-2),
    "full": Size(layers=6, width=192, heads=6, context=256, batch=16, steps=1000, seeds=3, rate=2e-3),
}
"""By scale; a model takes 4 s on one core, 25 s on a GPU."""


def ascii_text(part: Part) -> Tensor:
    """The standard library's text with every byte above 126 as 127, (count,) uint8."""
    return library_text(part).clamp(max=BYTES - 1)


def cross_entropy(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean loss of the next token in nats, tokens (batch, length)."""
    return functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def language_models(kinds: Sequence[Kind], size: Size, seed: int) -> Models:
    """Models of text with layers of these kinds, several seeds, each with excerpts of its own."""
    text = ascii_text("train")
    return fit(
        "deconstructing-text",
        __file__,
        {"kinds": list(kinds), **asdict(size)},
        build=lambda: Reader(kinds, BYTES, text[: size.context].long(), size.style()),
        loss=cross_entropy,
        batches=lambda draw: (excerpts(text, (size.seeds, size.batch), size.context + 1, draw),),
        recipe=Recipe(size.steps, size.rate),
        seed=seed,
        seeds=size.seeds,
    )


def held_out(size: Size, seed: int, count: int = 64) -> Tensor:
    """(count, context + 1) excerpts of the test text."""
    return excerpts(ascii_text("test"), (count,), size.context + 1, torch.Generator().manual_seed(seed))


def losses(models: Models, tokens: Tensor, skip: tuple[int, ...] = ()) -> np.ndarray:
    """(seeds, batch, length - 1): loss of each token in nats, layers in `skip` left out."""

    def each(model: Any, tokens: Tensor) -> Tensor:
        logits = model(tokens[:, :-1], skip)
        return functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")

    where = next(iter(models.tensors.values())).device
    return models.each(each, tokens.to(where)).double().cpu().numpy()


def largest_logits(models: Models, tokens: Tensor) -> np.ndarray:
    """(seeds, layers): largest absolute logit of each Non-approximate layer on these excerpts."""
    where = next(iter(models.tensors.values())).device
    readers = [cast(Reader, models.one(i).to(where)) for i in range(len(models))]
    found = [reader.gated_logits(tokens[:, :-1].to(where)) for reader in readers]
    return torch.stack([logits.detach().abs().amax(dim=(1, 2, 3)) for logits in found]).double().cpu().numpy()


# -- Associative recall ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recall:
    """Pairs of key and value, then all keys again in another order: after each, its value is asked for.

    A solution needs a head that attends to the previous token, and then one that matches contents.
    """

    pairs: int = 3
    keys: int = 6
    values: int = 6

    @property
    def length(self) -> int:
        return 3 * self.pairs

    def sample(self, shape: tuple[int, ...], draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Tokens (*shape, 3 pairs) int64, and the answers (*shape, pairs) int64 to the last `pairs` of them."""
        keys = torch.rand(*shape, self.keys, generator=draw).argsort(dim=-1)[..., : self.pairs]
        values = torch.randint(self.values, (*shape, self.pairs), generator=draw)
        order = torch.rand(*shape, self.pairs, generator=draw).argsort(dim=-1)
        told = torch.stack([keys, self.keys + values], dim=-1).flatten(-2)
        return torch.cat([told, keys.gather(-1, order)], dim=-1), values.gather(-1, order)


RECALL = Recall()


def answer_losses(model: Any, tokens: Tensor, answers: Tensor) -> Tensor:
    """(batch, pairs): loss of each answer, nats."""
    logits = model(tokens)[:, -answers.shape[-1] :]
    return functional.cross_entropy(logits.transpose(1, 2), answers, reduction="none")


def recall_models(kinds: Sequence[Kind], seed: int, *, steps: int = 300, batch: int = 32, seeds: int = 3) -> Models:
    """Models of recall, width 24, with layers of these kinds; FixedSeqQK reads a sequence of tokens drawn once.

    4 s on one core for 300 steps of two layers.
    """
    vocabulary = RECALL.keys + RECALL.values
    fixed = torch.randint(vocabulary, (RECALL.length,), generator=torch.Generator().manual_seed(0))
    return fit(
        "deconstructing-recall",
        __file__,
        {"kinds": list(kinds), "batch": batch},
        build=lambda: Reader(kinds, vocabulary, fixed, Style(24, 2, hidden=2, position="rotary")),
        loss=lambda model, *given: answer_losses(model, *given).mean(),
        batches=lambda draw: RECALL.sample((seeds, batch), draw),
        recipe=Recipe(steps, 1e-2),
        seed=seed,
        seeds=seeds,
    )


def fresh_recall(models: Models, seed: int, count: int = 512) -> tuple[Tensor, Tensor]:
    """Sequences and answers on the models' device."""
    where = next(iter(models.tensors.values())).device
    tokens, answers = RECALL.sample((count,), torch.Generator().manual_seed(seed))
    return tokens.to(where), answers.to(where)


def recall_accuracy(models: Models, seed: int) -> np.ndarray:
    """(seeds,): share of right answers on fresh sequences."""
    tokens, answers = fresh_recall(models, seed)
    found = models(tokens)[..., -RECALL.pairs :, : RECALL.values].argmax(-1)
    return (found == answers).double().mean(dim=(1, 2)).cpu().numpy()


def recall_losses(models: Models, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses (seeds, count) in nats of answers, the keys asked for (count,), and the right values (count,)."""
    tokens, answers = fresh_recall(models, seed)
    each = models.each(answer_losses, tokens, answers).flatten(1).double().cpu().numpy()
    return each, tokens[:, -RECALL.pairs :].flatten().cpu().numpy(), answers.flatten().cpu().numpy()

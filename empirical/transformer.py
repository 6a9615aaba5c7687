"""A small transformer to be read from top to bottom: pre-norm blocks whose attention operator is an argument.

An operator is a function of `theory.operators.attention`, or a module that is called in the same way: it takes queries
and keys (batch, heads, length, width / heads), `mask` and `bias` where there are any, and returns weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from theory.operators import positions
from theory.operators.attention import softmax

Operator = Callable[..., Any]
Position = Literal["learned", "sinusoidal", "rotary", "alibi", "none"]


@dataclass(frozen=True)
class Style:
    """What papers vary around the operator.

    width, heads     of the residual stream, of each attention layer
    hidden           width of the layer that acts on each position alone, in multiples of `width`
    position         how a model knows positions; "alibi" and "rotary" act inside attention, the others on its input
    qk_norm          queries and keys are brought to unit root mean square, with a learned gain (RMSNorm per head)
    branch_norm      each branch is normalised again before it is added (hybrid-norm, arXiv:2409.04431)
    layer_scale      initial value of a learned factor per channel on each branch (arXiv:2103.17239); None: no factor
    """

    width: int = 64
    heads: int = 2
    hidden: float = 4
    position: Position = "learned"
    qk_norm: bool = False
    branch_norm: bool = False
    layer_scale: float | None = None

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads; choose a multiple")


class Attention(nn.Module):
    """Self-attention with several heads."""

    def __init__(self, style: Style, operator: Operator = softmax) -> None:
        super().__init__()
        self.heads, self.rotary, self.operator = style.heads, style.position == "rotary", operator
        width = style.width // style.heads
        self.queries_keys = nn.Linear(style.width, 2 * style.width)
        self.values = nn.Linear(style.width, style.width)
        self.output = nn.Linear(style.width, style.width)
        self.query_norm = nn.RMSNorm(width, eps=1e-6) if style.qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(width, eps=1e-6) if style.qk_norm else nn.Identity()

    def forward(
        self, x: Tensor, *, source: Tensor | None = None, mask: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Values come from x (batch, length, width), queries and keys from `source`, which is x unless given."""
        weights = self.weights(x if source is None else source, mask=mask, bias=bias)
        mixed = weights @ self.split(self.values(x))
        return self.output(mixed.transpose(-3, -2).flatten(-2))

    def weights(self, source: Tensor, *, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """(batch, heads, length, length): who attends to whom."""
        given = {name: value for name, value in (("mask", mask), ("bias", bias)) if value is not None}
        return self.operator(*self.queries_and_keys(source), **given)

    def queries_and_keys(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Each (batch, heads, length, width / heads), as the operator sees them."""
        query, key = self.queries_keys(source).chunk(2, dim=-1)
        query, key = self.query_norm(self.split(query)), self.key_norm(self.split(key))
        return (positions.rotary(query), positions.rotary(key)) if self.rotary else (query, key)

    def split(self, x: Tensor) -> Tensor:
        """(batch, length, width) to (batch, heads, length, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class Branch(nn.Module):
    """norm, a layer, and what a style puts between the layer and the residual stream that it is added to."""

    def __init__(self, style: Style, layer: nn.Module) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(style.width), layer
        self.after = nn.LayerNorm(style.width) if style.branch_norm else nn.Identity()
        self.scale = None
        if style.layer_scale is not None:
            self.scale = nn.Parameter(torch.full((style.width,), style.layer_scale))

    def forward(self, x: Tensor, **given: Tensor | None) -> Tensor:
        added = self.after(self.layer(self.norm(x), **given))
        return x + (added if self.scale is None else added * self.scale)


class Block(nn.Module):
    """Attention, then a layer that acts on each position alone; both add to the residual stream."""

    def __init__(self, style: Style, operator: Operator = softmax) -> None:
        super().__init__()
        hidden = int(style.hidden * style.width)
        self.attention = Branch(style, Attention(style, operator))
        self.hidden = Branch(
            style, nn.Sequential(nn.Linear(style.width, hidden), nn.GELU(), nn.Linear(hidden, style.width))
        )

    def forward(
        self, x: Tensor, *, source: Tensor | None = None, mask: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """x (batch, length, width) to the same; a `source` for queries and keys is normalised as x is."""
        source = None if source is None else self.attention.norm(source)
        return self.hidden(self.attention(x, source=source, mask=mask, bias=bias))


def blocks(style: Style, layers: int, operators: Operator | Sequence[Operator]) -> nn.ModuleList:
    """A stack of blocks, with one operator for all layers or one for each.

    Raises:
        ValueError: their number differs from that of the layers.
    """
    each = list(operators) if isinstance(operators, Sequence) else [operators] * layers
    if len(each) != layers:
        raise ValueError(f"{len(each)} operators for {layers} layers: give one for each, or one for all")
    return nn.ModuleList(Block(style, operator) for operator in each)


class Places(nn.Module):
    """What a model adds to its input, and to its scores, to know positions."""

    def __init__(self, style: Style, context: int) -> None:
        super().__init__()
        self.style, self.context = style, context
        if style.position == "learned":
            self.table = nn.Embedding(context, style.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, length, width) with its positions.

        Raises:
            ValueError: positions are learned, and the sequence is longer than the context.
        """
        length = x.shape[-2]
        if self.style.position == "learned":
            if length > self.context:
                raise ValueError(f"{length} tokens, but the model reads {self.context}; build it with a longer context")
            return x + self.table(torch.arange(length, device=x.device))
        if self.style.position == "sinusoidal":
            return x + table(positions.sinusoidal, length, self.style.width, dtype=x.dtype, device=x.device)
        return x

    def bias(self, x: Tensor) -> Tensor | None:
        """(heads, length, length), for ALiBi only."""
        if self.style.position != "alibi":
            return None
        return table(positions.alibi, x.shape[-2], self.style.heads, dtype=x.dtype, device=x.device)


@cache
def table(make: Callable[..., Any], *sizes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The numpy array `make(*sizes)` as a tensor, made once: a copy to a GPU at every step would wait for it."""
    return torch.from_numpy(make(*sizes)).to(device, dtype)


class Decoder(nn.Module):
    """A language model over `vocabulary` tokens; with learned positions it reads up to `context` of them."""

    def __init__(
        self,
        vocabulary: int,
        context: int,
        *,
        style: Style | None = None,
        layers: int = 2,
        operators: Operator | Sequence[Operator] = softmax,
    ) -> None:
        super().__init__()
        style = style or Style()
        self.token = nn.Embedding(vocabulary, style.width)
        self.places = Places(style, context)
        self.blocks = blocks(style, layers, operators)
        self.norm = nn.LayerNorm(style.width)
        self.logits = nn.Linear(style.width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at each position.

        Args:
            tokens: (batch, length) int64.

        Returns:
            (batch, length, vocabulary) in the parameters' dtype.

        Raises:
            ValueError: the sequence is longer than the context, with learned positions.
        """
        x = self.places(self.token(tokens))
        mask, bias = causal(x), self.places.bias(x)
        for block in self.blocks:
            x = block(x, mask=mask, bias=bias)
        return self.logits(self.norm(x))


class Classifier(nn.Module):
    """A vision transformer: patches in, logits of classes out, read off the mean over all tokens."""

    def __init__(
        self,
        patch: int,
        tokens: int,
        classes: int,
        *,
        style: Style | None = None,
        layers: int = 3,
        operators: Operator | Sequence[Operator] = softmax,
    ) -> None:
        super().__init__()
        style = style or Style(width=32, heads=4, hidden=2)
        self.patch = nn.Linear(patch, style.width)
        self.places = Places(style, tokens)
        self.blocks = blocks(style, layers, operators)
        self.norm = nn.LayerNorm(style.width)
        self.logits = nn.Linear(style.width, classes)

    def forward(self, patches: Tensor) -> Tensor:
        """patches (batch, tokens, patch) to logits (batch, classes)."""
        x = self.places(self.patch(patches))
        bias = self.places.bias(x)
        for block in self.blocks:
            x = block(x, bias=bias)
        return self.logits(self.norm(x).mean(dim=-2))


def causal(x: Tensor) -> Tensor:
    """(length, length) bool for x (batch, length, width): no token sees a later one."""
    return table(positions.causal, x.shape[-2], dtype=torch.bool, device=x.device)

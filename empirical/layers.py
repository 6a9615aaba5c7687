"""The layers of the small transformer, and what papers vary about them: attention, what follows it, and their branches.

An operator is a function of `theory.operators.attention`, or a module that is called in the same way: it takes queries
and keys (batch, heads, length, width / heads), `mask` and `bias` where there are any, and returns weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from theory.operators import positions
from theory.operators.attention import softmax

Operator = Callable[..., Any]
Position = Literal["learned", "sinusoidal", "rotary", "alibi", "none"]
Outlet = Literal["none", "value bias", "context-aware bias", "key bias", "key-value bias", "gate"]
STAR_KEYS = ("key bias", "key-value bias")
"""Outlets with a key k* in front of the keys of the tokens: the weights then have one column more, the first."""


@dataclass(frozen=True)
class Style:
    """What papers vary around the operator.

    width, heads     of the residual stream, of each attention layer
    hidden           width of the layer that acts on each position alone, in multiples of `width`
    position         how a model knows positions; "alibi" and "rotary" act inside attention, the others on its input
    qk_norm          queries and keys are brought to unit root mean square, with a learned gain (RMSNorm per head)
    branch_norm      each branch is normalised again before it is added (hybrid-norm, arXiv:2409.04431)
    layer_scale      initial value of a learned factor per channel on each branch (arXiv:2103.17239); None: no factor
    norm             LayerNorm, or RMSNorm
    gated            SwiGLU (arXiv:2002.05202) in place of GELU, with a third matrix
    linear_bias      whether linear layers have biases
    outlet           what a head may do in place of attending to some token: see `Attention`
    """

    width: int = 64
    heads: int = 2
    hidden: float = 4
    position: Position = "learned"
    qk_norm: bool = False
    branch_norm: bool = False
    layer_scale: float | None = None
    norm: Literal["layer", "rms"] = "layer"
    gated: bool = False
    linear_bias: bool = True
    outlet: Outlet = "none"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads; choose a multiple")

    def make_norm(self) -> nn.Module:
        """A norm of the residual stream."""
        return nn.LayerNorm(self.width) if self.norm == "layer" else nn.RMSNorm(self.width, eps=1e-6)

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        """A linear layer, with a bias where the style has them."""
        return nn.Linear(inputs, outputs, bias=self.linear_bias)


class Attention(nn.Module):
    """Self-attention with several heads, and an outlet: what a head may do in place of attending to some token.

    With A the weights among the tokens, A* the same with a learned key k* in front, and * its first column, a head
    returns, by outlet (An et al., arXiv:2502.06415, table 2; Gu et al., arXiv:2410.10781, section 7):

        none                A V                      key bias            A* [v*; V], v* a buffer, 0 unless set
        value bias          A V + v*                 key-value bias      A* [v*; V], v* learned
        context-aware bias  A V + A*_{:, *} v*       gate                2 sigmoid(w x + b) A V, x the layer's input
    """

    def __init__(self, style: Style, operator: Operator = softmax) -> None:
        super().__init__()
        self.heads, self.rotary, self.operator = style.heads, style.position == "rotary", operator
        self.outlet, width = style.outlet, style.width // style.heads
        self.queries_keys = style.linear(style.width, 2 * style.width)
        self.values = style.linear(style.width, style.width)
        self.output = style.linear(style.width, style.width)
        self.query_norm = nn.RMSNorm(width, eps=1e-6) if style.qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(width, eps=1e-6) if style.qk_norm else nn.Identity()
        star = (style.heads, 1, width)
        if style.outlet in (*STAR_KEYS, "context-aware bias"):
            self.star_key = nn.Parameter(0.02 * torch.randn(star))
        if style.outlet in ("key-value bias", "context-aware bias"):
            self.star_value = nn.Parameter(0.02 * torch.randn(star))
        elif style.outlet == "value bias":
            self.star_value = nn.Parameter(torch.zeros(star))
        elif style.outlet == "key bias":
            self.register_buffer("star_value", torch.zeros(star))
        elif style.outlet == "gate":
            self.gate = nn.Linear(style.width, style.heads)

    def forward(
        self, x: Tensor, *, source: Tensor | None = None, mask: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Values come from x (batch, length, width), queries and keys from `source`, which is x unless given."""
        source = x if source is None else source
        mixed = self.mix(source, self.split(self.values(x)), mask, bias)
        if self.outlet == "gate":
            mixed = mixed * (2 * self.gate(source).sigmoid()).transpose(-2, -1)[..., None]
        return self.output(mixed.transpose(-3, -2).flatten(-2))

    def mix(self, source: Tensor, values: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        """Values (batch, heads, length, width / heads) as each token gets them, before the gate."""
        weights = self.weights(source, mask=mask, bias=bias)
        if self.outlet in STAR_KEYS:
            return weights @ torch.cat([self.star_value.expand_as(values[..., :1, :]), values], dim=-2)
        mixed = weights @ values
        if self.outlet == "value bias":
            return mixed + self.star_value
        if self.outlet == "context-aware bias":
            return mixed + self._with_star_key(source, mask, bias)[..., :1] * self.star_value
        return mixed

    def weights(self, source: Tensor, *, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """(batch, heads, length, keys): who attends to whom; with a bias of the keys its column comes first."""
        if self.outlet in STAR_KEYS:
            return self._with_star_key(source, mask, bias)
        return self._weights(*self.queries_and_keys(source), mask, bias)

    def _with_star_key(self, source: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        query, key = self.queries_and_keys(source)
        key = torch.cat([self.star_key.expand_as(key[..., :1, :]), key], dim=-2)
        mask = None if mask is None else torch.cat([torch.ones_like(mask[..., :1]), mask], dim=-1)
        bias = None if bias is None else torch.cat([torch.zeros_like(bias[..., :1]), bias], dim=-1)
        return self._weights(query, key, mask, bias)

    def _weights(self, query: Tensor, key: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        given = {name: value for name, value in (("mask", mask), ("bias", bias)) if value is not None}
        return self.operator(query, key, **given)

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
        self.norm, self.layer = style.make_norm(), layer
        self.after = style.make_norm() if style.branch_norm else nn.Identity()
        self.scale = None
        if style.layer_scale is not None:
            self.scale = nn.Parameter(torch.full((style.width,), style.layer_scale))

    def forward(self, x: Tensor, **given: Tensor | None) -> Tensor:
        added = self.after(self.layer(self.norm(x), **given))
        return x + (added if self.scale is None else added * self.scale)


class Gated(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, style: Style, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = style.linear(style.width, hidden), style.linear(style.width, hidden)
        self.down = style.linear(hidden, style.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


def hidden_layer(style: Style) -> nn.Module:
    """What acts on each position alone."""
    hidden = int(style.hidden * style.width)
    if style.gated:
        return Gated(style, hidden)
    return nn.Sequential(style.linear(style.width, hidden), nn.GELU(), style.linear(hidden, style.width))

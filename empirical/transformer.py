"""A small transformer to be read from top to bottom, after `empirical.layers`; attention is an argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from empirical.layers import Attention, Branch, Operator, Style, hidden_layer
from theory.operators import positions
from theory.operators.attention import softmax


class Block(nn.Module):
    """Attention, then a layer that acts on each position alone; both add to the residual stream."""

    def __init__(self, style: Style, operator: Operator = softmax, attention: type[Attention] = Attention) -> None:
        super().__init__()
        self.attention = Branch(style, attention(style, operator))
        self.hidden = Branch(style, hidden_layer(style))

    def forward(
        self, x: Tensor, *, source: Tensor | None = None, mask: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """x (batch, length, width) to the same; a `source` for queries and keys is normalised as x is."""
        source = None if source is None else self.attention.norm(source)
        return self.hidden(self.attention(x, source=source, mask=mask, bias=bias))


def blocks(
    style: Style, layers: int, operators: Operator | Sequence[Operator], attention: type[Attention] = Attention
) -> nn.ModuleList:
    """A stack of blocks, with one operator for all layers or one for each.

    Raises:
        ValueError: their number differs from that of the layers.
    """
    each = list(operators) if isinstance(operators, Sequence) else [operators] * layers
    if len(each) != layers:
        raise ValueError(f"{len(each)} operators for {layers} layers: give one for each, or one for all")
    return nn.ModuleList(Block(style, operator, attention) for operator in each)


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
    """A language model over `vocabulary` tokens; with learned positions it reads up to `context` of them.

    `mask` says who may attend to whom among n tokens, as a function of `theory.operators.positions`; `attention` is the
    class of its attention layers.
    """

    def __init__(
        self,
        vocabulary: int,
        context: int,
        *,
        style: Style | None = None,
        layers: int = 2,
        operators: Operator | Sequence[Operator] = softmax,
        mask: Callable[[int], Any] = positions.causal,
        attention: type[Attention] = Attention,
    ) -> None:
        super().__init__()
        style, self.mask = style or Style(), mask
        self.token = nn.Embedding(vocabulary, style.width)
        self.places = Places(style, context)
        self.blocks = blocks(style, layers, operators, attention)
        self.norm = style.make_norm()
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
        return self.logits(self.residual(tokens))

    def residual(self, tokens: Tensor) -> Tensor:
        """(batch, length, width): what the logits are read from, normed."""
        x = self.places(self.token(tokens))
        mask, bias = table(self.mask, x.shape[-2], dtype=torch.bool, device=x.device), self.places.bias(x)
        for block in self.blocks:
            x = block(x, mask=mask, bias=bias)
        return self.norm(x)


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
        self.norm = style.make_norm()
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

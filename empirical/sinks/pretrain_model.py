"""The models of `empirical.sinks.pretrain`: the shared transformer at 60 million parameters, with fused attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from empirical.layers import STAR_KEYS, Attention, Operator, Style
from empirical.sinks.variants import VARIANTS, initialise
from empirical.transformer import Decoder
from theory.operators import positions
from theory.operators.attention import softmax

LONGEST = 4096
"""Tokens that rotary positions are tabled for."""


@dataclass(frozen=True)
class Setting:
    """What a pre-training depends on, beside the corpus.

    variant   of `empirical.sinks.variants.VARIANTS`
    fixed     place, from 0, of one token that is the same in all sequences; None for none
    tokens    how many of the corpus's tokens are used; None for all
    """

    variant: str = "softmax"
    width: int = 768
    layers: int = 10
    heads: int = 8
    length: int = 1024
    batch: int = 64
    steps: int = 2000
    rate: float = 1e-3
    weight_decay: float = 0.1
    fixed: int | None = None
    tokens: int | None = None

    def build(self, vocabulary: int) -> Decoder:
        """An untrained model: RMSNorm, SwiGLU of twice the width, rotary positions, no biases."""
        chosen = VARIANTS[self.variant]
        style = Style(
            self.width, self.heads, hidden=2, position="rotary", norm="rms", gated=True, linear_bias=False,
            outlet=chosen.outlet,
        )  # fmt: skip
        model = Decoder(
            vocabulary, self.length, style=style, layers=self.layers, operators=chosen.operator, attention=Fused
        )
        return initialise(model, embedding=(2 / (5 * self.width)) ** 0.5)


class Fused(Attention):
    """The same attention, through PyTorch's fused kernel where the operator is softmax; causal only, rotary positions.

    Angles are float32 also for bfloat16 queries: bfloat16 cannot count beyond 256.
    """

    angles: Tensor

    def __init__(self, style: Style, operator: Operator = softmax) -> None:
        super().__init__(style, operator)
        half = style.width // style.heads // 2
        basis = torch.cat([torch.ones(LONGEST, half), torch.zeros(LONGEST, half)], dim=-1)
        self.register_buffer("angles", torch.stack(positions.rotary(basis).chunk(2, dim=-1)), persistent=False)

    def mix(self, source: Tensor, values: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        if self.operator is not softmax or self.outlet == "context-aware bias":
            return super().mix(source, values, mask, bias)
        query, key = self.queries_and_keys(source)
        query, key = query.to(values.dtype), key.to(values.dtype)
        if self.outlet not in STAR_KEYS:
            mixed = nn.functional.scaled_dot_product_attention(query, key, values, is_causal=True)
            return mixed + self.star_value if self.outlet == "value bias" else mixed
        # k* as a first token, and for it a query of zeros, so that the mask stays causal
        first = torch.zeros_like(query[..., :1, :])
        query = torch.cat([first, query], dim=-2)
        key = torch.cat([self.star_key.to(key.dtype).expand_as(first), key], dim=-2)
        values = torch.cat([self.star_value.to(values.dtype).expand_as(first), values], dim=-2)
        return nn.functional.scaled_dot_product_attention(query, key, values, is_causal=True)[..., 1:, :]

    def queries_and_keys(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Attention`; cosines and sines come from a table, which is half of what they cost to compute."""
        query, key = self.queries_keys(source).chunk(2, dim=-1)
        query, key = self.split(query), self.split(key)
        cos, sin = (part[: query.shape[-2]] for part in self.angles)
        return positions.turned(query, cos, sin).to(query.dtype), positions.turned(key, cos, sin).to(key.dtype)


def flops_per_token(setting: Setting, vocabulary: int) -> float:
    """Of the model, forward and backward: 6 for each weight that multiplies, and causal attention's products.

    Embeddings multiply nothing, the output layer does. What a program recomputes does not count.
    """
    weights = setting.layers * (4 + 3 * 2) * setting.width**2 + setting.width * vocabulary
    return 6 * weights + 6 * setting.layers * setting.width * setting.length

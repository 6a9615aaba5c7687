"""A small decoder to be read from top to bottom: causal, pre-norm, learned positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} does not divide into {heads} heads; choose a multiple")
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.inputs(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (batch, heads, length, width / heads)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attention, then a layer that acts on each position alone; both add to the residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.hidden_norm = nn.LayerNorm(width)
        self.hidden = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.hidden(self.hidden_norm(x))


class Decoder(nn.Module):
    """A language model over `vocabulary` tokens that reads up to `context` of them."""

    def __init__(self, vocabulary: int, context: int, *, width: int = 64, layers: int = 2, heads: int = 2) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at each position.

        Args:
            tokens: (batch, length) int64.

        Returns:
            (batch, length, vocabulary) in the parameters' dtype.

        Raises:
            ValueError: the sequence is longer than the context.
        """
        length, context = tokens.shape[1], self.position.num_embeddings
        if length > context:
            raise ValueError(f"{length} tokens, but the decoder reads {context}; build it with a longer context")
        x = self.token(tokens) + self.position(torch.arange(length, device=tokens.device))
        return self.logits(self.norm(self.blocks(x)))

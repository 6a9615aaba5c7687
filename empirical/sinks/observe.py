"""What a model does inside, one layer at a time: attention, keys, values and the hidden state, batch by batch.

    observe(model, tokens, lambda layer: print(layer.index, measures.importance(layer.weights).mean((0, 1))[0]))

The callback gets one layer's tensors and they are freed when it returns, so that never more than one attention matrix
of one batch is held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from empirical.layers import Attention, Branch


@dataclass(frozen=True)
class Layer:
    """What one attention layer sees and does with one batch.

    index    from 0
    hidden   (batch, n, width): the residual stream as the layer gets it, before the norm
    weights  (batch, heads, n, m): m = n, or n + 1 where a learned key stands in front
    queries, keys, values  (batch, heads, n, width / heads), of tokens alone, after the positions
    """

    index: int
    hidden: Tensor
    weights: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor

    @property
    def stars(self) -> int:
        """How many keys in front belong to no token."""
        return self.weights.shape[-1] - self.weights.shape[-2]


@torch.no_grad()
def observe(model: nn.Module, tokens: Tensor, see: Callable[[Layer], None]) -> Any:
    """Run a model of `empirical.transformer` on tokens and show each attention layer to `see`; returns its output.

    Raises:
        ValueError: the model has no layer of `empirical.layers.Attention`.
    """
    branches = [module for module in model.modules() if isinstance(module, Branch)]
    layers = [branch for branch in branches if isinstance(branch.layer, Attention)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no attention layer of empirical.layers: nothing to observe")

    def hook(index: int) -> Callable[..., None]:
        def show(branch: Any, inputs: tuple[Tensor, ...], given: dict[str, Tensor | None]) -> None:
            attention, x = branch.layer, branch.norm(inputs[0])
            source = given.get("source")
            source = x if source is None else source
            weights = attention.weights(source, mask=given.get("mask"), bias=given.get("bias"))
            queries, keys = attention.queries_and_keys(source)
            see(Layer(index, inputs[0], weights, queries, keys, attention.split(attention.values(x))))

        return show

    handles = [branch.register_forward_pre_hook(hook(index), with_kwargs=True) for index, branch in enumerate(layers)]
    try:
        return model(tokens)
    finally:
        for handle in handles:
            handle.remove()

"""Trained models whose attention is changed at inference: weights pass through an edit, parameters stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from empirical.layers import Attention, Operator
from empirical.training import Models

Edit = Callable[[Tensor], Tensor]
"""Attention weights (batch, heads, n, m) to the same shape."""


def edited(models: Models, edit: Edit, layer: int | None = None) -> Models:
    """The same models, with attention weights passed through `edit`, after earlier edits if there were any.

    Args:
        layer: the one whose weights are edited, from 0; None: all.

    Raises:
        ValueError: there is no layer of `empirical.layers.Attention`.
    """
    skeleton = copy.deepcopy(models.skeleton)
    layers = [module for module in skeleton.modules() if isinstance(module, Attention)]
    if not layers:
        raise ValueError(f"{type(skeleton).__name__} has no attention layer of empirical.layers: nothing to edit")
    for changed in layers if layer is None else [layers[layer]]:
        changed.operator = _followed(changed.operator, edit)
    return Models(skeleton, models.tensors)


def _followed(operator: Operator, edit: Edit) -> Operator:
    def both(*states: Tensor, **given: Any) -> Tensor:
        return edit(operator(*states, **given))

    return both


def token_losses(model: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """(batch, length - 1): loss of each token but the first, nats; tokens (batch, length)."""
    logits = model(tokens[:, :-1])
    return nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")


@torch.no_grad()
def mean_losses(models: Models, tokens: Tensor, since: int = 0) -> Tensor:
    """(seeds,) mean loss over the predictions of queries since, since + 1, .., nats a token."""
    losses: Tensor = models.each(token_losses, tokens)[:, :, since:].mean((1, 2))
    return losses

"""What rounding and pruning cost a pre-trained model, in loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from empirical.sinks.pretrain import Pretrained, loss_on
from empirical.transformer import Decoder
from theory.sinks import measures, quantisation

Change = Callable[[Tensor], Tensor]
CHANGES: dict[str, Change] = {
    "8 bits": partial(quantisation.round_to_nearest, bits=8),
    "6 bits": partial(quantisation.round_to_nearest, bits=6),
    "4 bits": partial(quantisation.round_to_nearest, bits=4),
    "8 bits by row": partial(quantisation.round_to_nearest, bits=8, by_row=True),
    "4 bits by row": partial(quantisation.round_to_nearest, bits=4, by_row=True),
    "half pruned": partial(quantisation.prune, share=0.5),
}
"""Of the matrices in the blocks; embeddings and output layer stay, as in An et al., arXiv:2502.06415."""


def cost(trained: Pretrained, text: Tensor, change: Change) -> float:
    """Test loss of a model with changed weights less that of the model itself, nats a token; text (count,) tokens."""
    model = copy.deepcopy(trained.model)
    with torch.no_grad():
        for layer in matrices(model):
            layer.weight.copy_(change(layer.weight))
    return _rise(model, trained, text)


def activation_cost(trained: Pretrained, text: Tensor, bits: int) -> float:
    """The same with the inputs of the matrices rounded instead, one step size for a whole batch of 16 excerpts."""
    model = copy.deepcopy(trained.model)
    for layer in matrices(model):
        layer.register_forward_pre_hook(
            lambda module, inputs: (quantisation.round_to_nearest(inputs[0].float(), bits).to(inputs[0].dtype),)
        )
    return _rise(model, trained, text)


def weight_ratio(trained: Pretrained) -> float:
    """The largest max |W| / mean |W| of a matrix in the blocks."""
    return max(float(measures.max_over_mean(layer.weight.detach())) for layer in matrices(trained.model))


def matrices(model: Decoder) -> list[nn.Linear]:
    """The linear layers of the blocks."""
    return [layer for layer in model.blocks.modules() if isinstance(layer, nn.Linear)]


def _rise(model: Decoder, trained: Pretrained, text: Tensor) -> float:
    """Test loss of a changed model less that of the trained one."""
    text = text.to(model.token.weight.device)
    changed, own = (loss_on(one, trained.setting, text) for one in (model, trained.model))
    return float(changed - own)

"""The attention variants that the papers on sinks compare, and the initial weights of their models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from empirical.layers import Gated, Operator, Outlet
from empirical.transformer import Decoder
from theory.operators import attention


@dataclass(frozen=True)
class Variant:
    """An operator, and what a head may do in place of attending to some token."""

    operator: Operator = attention.softmax
    outlet: Outlet = "none"


VARIANTS = {
    "softmax": Variant(),
    "value bias": Variant(outlet="value bias"),
    "context-aware bias": Variant(outlet="context-aware bias"),
    "key bias": Variant(outlet="key bias"),
    "key-value bias": Variant(outlet="key-value bias"),
    "gate": Variant(outlet="gate"),
    "sigmoid": Variant(partial(attention.sigmoid, offset=0.0)),
    "sigmoid - log n": Variant(attention.sigmoid),
    "sigmoid, normalised": Variant(partial(attention.elementwise, positive="sigmoid", normalise="l1")),
    "elu": Variant(partial(attention.kernel, feature_map=attention.elu_plus_one)),
    "elu, normalised": Variant(partial(attention.linear, feature_map=attention.elu_plus_one)),
    "identity": Variant(partial(attention.kernel, feature_map=lambda x: x)),
}
"""Those of An et al., arXiv:2502.06415, table 2, and of Gu et al., arXiv:2410.10781, tables 4 and 6."""


@torch.no_grad()
def initialise(model: Decoder, embedding: float = 0.1) -> Decoder:
    """Weights of linear layers N(0, 2 / (5 inputs)), of SwiGLU's last one N(0, 1 / (hidden L^2)), L the layers.

    Embeddings are N(0, embedding^2). Source: the released code of Gu et al., arXiv:2410.10781, after TinyLlama.
    """
    layers = len(model.blocks)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(std=(2 / (5 * module.in_features)) ** 0.5)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(std=embedding)
    for module in model.modules():
        if isinstance(module, Gated):
            module.down.weight.normal_(std=module.down.in_features**-0.5 / layers)
    return model

"""PyTorch's softmax attention as a baseline, its kernel pinned by name, and what plain references have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.operation import Inputs, Outputs

BACKENDS = {"SDPA/flash": SDPBackend.FLASH_ATTENTION, "SDPA/cudnn": SDPBackend.CUDNN_ATTENTION}
"""By the names in tables and records."""


def attention(q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend, **options: Any) -> Tensor:
    """Forward, by one backend; key heads may be fewer than query heads.

    Raises:
        RuntimeError: this backend does not have it.
    """
    with sdpa_kernel(backend):
        return scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1], **options)


def backward(inputs: Inputs, gradient: Tensor, backend: SDPBackend, **options: Any) -> Outputs:
    """dQ, dK, dV. The backward pass alone is timed: its graph is made once and kept in the inputs."""
    if (graph := f"graph of {backend}") not in inputs:
        q, k, v = leaves = tuple(inputs[name].detach().requires_grad_() for name in ("q", "k", "v"))
        with torch.enable_grad():
            inputs[graph] = attention(q, k, v, backend, **options), leaves
    output, leaves = inputs[graph]
    return named(torch.autograd.grad(output, leaves, gradient, retain_graph=True))


def named(gradients: Sequence[Tensor]) -> Outputs:
    return dict(zip(("dq", "dk", "dv"), gradients, strict=True))


def in_float64(inputs: Inputs, but: Sequence[str] = ()) -> Inputs:
    """Inputs of a reference: floating-point tensors in float64, but for those named."""

    def wide(name: str, x: Any) -> bool:
        return isinstance(x, Tensor) and x.is_floating_point() and name not in but

    return {name: x.double() if wide(name, x) else x for name, x in inputs.items()}

"""What operators on q, k, v check and pass on: shapes (batch, heads, length, width), one dtype, one device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_attention(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Each has four axes, and dtype and device are the same.

    Raises:
        ValueError: not so; the message says which and what to give.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 4:
            raise ValueError(f"{name} has shape {tuple(x.shape)}: give (batch, heads, length, width)")
        if x.dtype != q.dtype or x.device != q.device:
            raise ValueError(f"{name} is {x.dtype} on {x.device}, q {q.dtype} on {q.device}: bring them together")
        if not x.is_floating_point():
            raise ValueError(f"{name} is {x.dtype}: give bfloat16, float16, float32 or float64")


def check_groups(q: Tensor, k: Tensor) -> None:
    """Each key head serves the same number of query heads.

    Raises:
        ValueError: not so.
    """
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads over {k.shape[1]} key heads: one must divide the other")


def runs(kernel: Any, q: Tensor) -> bool:
    """Whether a Triton kernel can take this tensor: it has elements and is on a GPU, or Triton's interpreter is on."""
    return q.numel() > 0 and (q.is_cuda or type(kernel).__name__ == "InterpretedFunction")


def rows(x: Tensor) -> Tensor:
    """x with its last axis contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def strides(*tensors: Tensor) -> list[int]:
    """Of the first three axes, tensor by tensor: the last has 1."""
    return [x.stride(axis) for x in tensors for axis in range(3)]


def is_hopper(x: Tensor) -> bool:
    """Whether the kernels of the modules named `hopper` could be used; elsewhere they are not even imported."""
    return x.is_cuda and torch.cuda.get_device_capability(x.device)[0] == 9

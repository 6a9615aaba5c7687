"""Outliers among the weights of a checkpoint's blocks, matrix by matrix."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from empirical.checkpoints import Checkpoint, Weights
from theory.sinks import measures


@dataclass(frozen=True)
class Matrix:
    """One matrix.

    name     of its module
    ratio    its largest magnitude over its mean magnitude
    outputs  those that an outlier writes to: elements above `TAU` times the mean magnitude
    writes   is the output as wide as the residual stream?
    """

    name: str
    ratio: float
    outputs: tuple[int, ...]
    writes: bool


def weight_outliers(checkpoint: Checkpoint, weights: Weights = "trained") -> list[Matrix]:
    """All matrices of the blocks; a repeated call costs nothing."""
    return checkpoint.keep(("weight outliers", weights), lambda: _measure(checkpoint, weights))


@torch.inference_mode()
def _measure(checkpoint: Checkpoint, weights: Weights) -> list[Matrix]:
    model = checkpoint.model_with(weights)
    width = model.config.get_text_config().hidden_size
    return [
        _matrix(name, module, module.weight, width)
        for name, module in model.named_modules()
        if re.search(r"\.\d+\.", name) and getattr(module, "weight", None) is not None and module.weight.ndim == 2
    ]


def _matrix(name: str, module: nn.Module, weight: Tensor, width: int) -> Matrix:
    size = (weight.T if type(module).__name__ == "Conv1D" else weight).float().abs()  # (outputs, inputs)
    outputs = (size.amax(1) > measures.TAU * size.mean()).nonzero()[:, 0].tolist()
    return Matrix(name, float(measures.max_over_mean(size)), tuple(outputs), size.shape[0] == width)

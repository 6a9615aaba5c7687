"""Magnitude-aware linear attention, row by row: ratios of scores, when they turn negative, what the released code does.

A row of kernel values S_j = phi(q).phi(k_j) >= 0 with sum z and mean z / N has the MALA scores

    A_j(a) = S_j / z + a (S_j - z / N)

when phi(q) is multiplied by a: linear attention plus a times the centred kernel. Everything below follows from this
line. The operator itself is `theory.operators.attention.mala`.
Source: Fan, Huang, Ai, He, arXiv:2507.00698, and their code, github.com/qhfan/MALA at commit 1b62d46.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from theory.operators.attention import Array, elu_plus_one, linear, mala, normalised, transpose
from theory.operators.positions import rotary

Kernel = Literal["mala", "softmax"]


def identity(x: Array) -> Array:
    """The feature map of features that are given as such."""
    return x


def row_scores(row: Sequence[Any], magnitude: Any = 1, operator: Callable[..., Any] = mala) -> Any:
    """(N,) scores of one query whose kernel values are `row`, after its features are multiplied by `magnitude`.

    Entries may be floats, Fractions or symbols: one feature, phi(q) = magnitude and phi(k_j) = row_j.
    """
    query = np.array([[magnitude]], dtype=object)
    return operator(query, np.array(row, dtype=object)[:, None], feature_map=identity)[0]


def scaled_score(value: Any, total: Any, keys: Any, magnitude: Any) -> Any:
    """S_j / z + a (S_j - z / N): `row_scores` with the number of keys N as a symbol, too."""
    return value / total + magnitude * (value - total / keys)


def pole(row: Sequence[Any], j: int) -> Any:
    """Magnitude a > 0 at which the score of key j vanishes, beyond which it is negative; None if there is none.

    a = (S_j / z) / (z / N - S_j) for a key below the row's mean.
    """
    z = sum(row)
    below = z / len(row) - row[j]
    return row[j] / z / below if below > 0 else None


def released(q: Array, k: Array, *, scale_power: int = 1, rotated_norm: bool = False) -> Array:
    """Weights of the released vision model: z from plain features, the kernel from rotated ones.

    q, k          (..., N, d), d even; rotary angles along the sequence (the code's are two-dimensional)
    scale_power   2: the scale enters twice, as in a widely copied port
    rotated_norm  z from the rotated features too, which restores rows that sum to 1
    """
    q, k = elu_plus_one(q), elu_plus_one(k)
    scale, keys = q.shape[-1] ** -0.5, k.shape[-2]
    turned_q, turned_k = rotary(q), rotary(k)
    q, k = (turned_q, turned_k) if rotated_norm else (q, k)
    z = scale * (q @ transpose(k)).sum(-1)[..., None] / keys
    return (1 + 1 / z) * scale**scale_power / keys * (turned_q @ transpose(turned_k)) - z / keys


def released_scale(d: int, keys: int) -> float:
    """1 / (sqrt(d) N), the factor of the kernel in the released code; the paper's text has 1."""
    return 1 / (math.sqrt(d) * keys)


def official(q: Array, k: Array, *, mask: Array | None = None) -> Array:
    """`mala` with ELU + 1 and the released code's scale, without rotary positions."""
    return mala(q, k, scale=released_scale(q.shape[-1], k.shape[-2]), mask=mask)


def without_gamma(q: Array, k: Array) -> Array:
    """The paper's ablation: beta S alone, `official` with the mean not subtracted. Rows sum to 1 + z."""
    scale = released_scale(q.shape[-1], k.shape[-2])
    S = scale * (elu_plus_one(q) @ transpose(elu_plus_one(k)))
    return S + normalised(S)


def without_beta(q: Array, k: Array) -> Array:
    """The paper's ablation: beta = 1, so that the centred kernel is left. Rows sum to 0."""
    return official(q, k) - linear(q, k)


def total_variation(p: Array, q: Array) -> Array:
    """Half the sum of |p - q| over the last axis: (...,)."""
    return abs(p - q).sum(-1) / 2


@dataclass(frozen=True)
class Backbone:
    """A released MAViT: dimensions, depths and the kind of attention of its four stages.

    Source: classfication_release/model.py: MALA in stages 1 and 2, softmax in stages 3 and 4.
    """

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    projection: int
    kinds: tuple[Kernel, ...] = ("mala", "mala", "softmax", "softmax")
    hidden: float = 3.5

    def parameters(self) -> int:
        """Number of trained parameters with 1000 classes."""
        first, last = self.dims[0], self.dims[-1]
        count = _convolution(3, first // 2) + 2 * _convolution(first // 2, first // 2) + 3 * first
        count += _convolution(first // 2, first) + 2 * first
        for C, depth in zip(self.dims, self.depths, strict=True):
            f = int(self.hidden * C)
            attention = 4 * C * C + 4 * C + _depthwise(C, 5) + C * C + C
            feed_forward = 2 * C * f + f + C + _depthwise(f, 3)
            count += depth * (attention + feed_forward + _depthwise(C, 3) + 4 * C + 2 * C)  # norms, layer scales
        for C, D in zip(self.dims, self.dims[1:], strict=False):
            count += _convolution(C, D) + 2 * D
        return count + last * self.projection + 3 * self.projection + self.projection * 1000 + 1000

    def multiplications(self, side: int) -> dict[str, int]:
        """Multiply-adds for an image of side x side: `dense` (convolutions), `mala` and `softmax` (attention itself).

        Image sides are multiples of 32; the head is counted, norms and activations are not.
        """
        first = self.dims[0]
        half, grid = (side // 2) ** 2, (side // 4) ** 2
        dense = half * 9 * (3 * first // 2 + 2 * (first // 2) ** 2) + grid * 9 * first // 2 * first
        attention = dict.fromkeys(("mala", "softmax"), 0)
        for stage, (C, depth) in enumerate(zip(self.dims, self.depths, strict=True)):
            N, f = grid // 4**stage, int(self.hidden * C)
            dense += depth * N * (5 * C * C + 25 * C + 2 * C * f + 9 * f + 9 * C)
            heads = _heads(C, stage, self.dims)
            kind = self.kinds[stage]
            attention[kind] += depth * (2 * N * C * (C // heads) + N * C if kind == "mala" else 2 * N * N * C)
            if stage + 1 < len(self.dims):
                dense += N // 4 * 9 * C * self.dims[stage + 1]
        last = grid // 4 ** (len(self.dims) - 1)
        dense += last * self.dims[-1] * self.projection + self.projection * 1000
        return {"dense": dense, **attention}


BACKBONES = {
    "MAViT-S": Backbone((64, 128, 320, 512), (3, 5, 9, 3), 2048),
    "MAViT-B": Backbone((96, 192, 384, 512), (4, 6, 12, 6), 2048),
    "MAViT-L": Backbone((96, 192, 448, 640), (4, 7, 19, 8), 2560),
}
"""The three released configurations that the paper's table names."""


def _heads(C: int, stage: int, dims: tuple[int, ...]) -> int:
    """Heads of a stage: 1 and 2 in the first two, then a width of 64 per head."""
    return stage + 1 if stage < 2 else C // 64


def _convolution(inputs: int, outputs: int) -> int:
    """Parameters of a 3 x 3 convolution with bias."""
    return 9 * inputs * outputs + outputs


def _depthwise(channels: int, kernel: int) -> int:
    return kernel * kernel * channels + channels

"""What linear attention with non-negative features can concentrate on, and the cost of L2ViT.

Row-normalised kernel attention factors as A = U V with U (N, d) and V (d, N) row-stochastic:

    U_ir = phi(q_i)_r K_r / sum_r' phi(q_i)_r' K_r',    V_rj = phi(k_j)_r / K_r,    K_r = sum_j phi(k_j)_r.

So for any one-to-one assignment j = pi(i) the weights A_i,pi(i) add up to at most d: `assignment_mass` of an N x N row
matrix is N for a permutation, and at most d for linear attention. Derived here.
Source of the model: Zheng, arXiv:2501.16182, and github.com/ChuanyangZheng/L2ViT at commit 52f008c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from theory.operators.attention import Array, relu_map

FLOOR = 100
"""The released code's least denominator."""


def factors(q: Array, k: Array) -> tuple[Array, Array]:
    """U (n, d) and V (d, m) of features q (n, d), k (m, d): entries >= 0, each channel of k and row of q used."""
    K = k.sum(0)
    U = q * K
    return U / U.sum(1)[:, None], (k / K).T


def concentrating_features(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Integer features q, k (n, d), n >= d, that reach the bound d: channel r belongs to token r, others only look."""
    q, k = np.zeros((2, n, d), dtype=object) + 0
    for i in range(n):
        q[i, min(i, d - 1)] = 1
    for r in range(d):
        k[r, r] = 1
    return q, k


def assignment_mass(weights: np.ndarray) -> Any:
    """(...,) largest sum of A_i,pi(i) over one-to-one pi, for weights (..., n, m), n <= m, float64."""
    from scipy.optimize import linear_sum_assignment

    flat = weights.reshape(-1, *weights.shape[-2:])
    masses = [one[linear_sum_assignment(one, maximize=True)].sum() for one in flat]
    return np.reshape(masses, weights.shape[:-2])


def normalised_entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy of each row of (..., m) over ln m, in [0, 1]; rows are brought to sum 1, zero rows count as 1."""
    total = weights.sum(-1, keepdims=True)
    p = np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / weights.shape[-1])
    logs = np.log(np.where(p > 0, p, 1))
    entropy: np.ndarray = -(p * logs).sum(-1) / math.log(weights.shape[-1])
    return entropy


def on_a_circle(n: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Queries and keys (n, 2) whose softmax tends to the identity as the sharpness grows."""
    angles = 2 * math.pi * np.arange(n) / n
    k = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return sharpness * k, k


def tempered(q: Array, k: Array, temperature: Any = 1, *, floor: Any = FLOOR) -> Array:
    """tau S / max(S 1, floor) with ReLU features: L2ViT's weights, written out. floor > 0."""
    from theory.operators.attention import linear

    return temperature * linear(q, k, feature_map=relu_map, floor=floor)


def windows(side: int, width: int) -> np.ndarray:
    """(side^2, side^2) bool: tokens of a side x side grid in the same width x width window."""
    place = np.arange(side) // width
    block = (place[:, None] * side + place).ravel()
    same: np.ndarray = block[:, None] == block
    return same


def reachable(*layers: np.ndarray) -> np.ndarray:
    """Whether token j can influence token i through layers with skip connections; both (n, n) bool."""
    reached = np.eye(len(layers[0]), dtype=bool)
    for layer in layers:
        reached = ((layer | np.eye(len(layer), dtype=bool)).astype(float) @ reached) > 0
    return reached


@dataclass(frozen=True)
class Backbone:
    """A released L2ViT: even blocks have window attention, odd ones linear attention and the LCM.

    Source: classification/models/l2vit.py, block_type mix_local_enhanced_vit, conv_stem, heads of width 32.
    """

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    window: int = 7
    linear: bool = True

    def parameters(self) -> int:
        """Number of trained parameters with 1000 classes."""
        first, last = self.dims[0], self.dims[-1]
        count = 9 * 3 * first // 2 + first // 2 + first + 9 * first // 2 * first + first + 2 * first + 2 * first
        for C, depth in zip(self.dims, self.depths, strict=True):
            shared = 4 * C * C + 4 * C + 8 * C * C + 5 * C + 4 * C + 10 * C  # qkv and proj, MLP, two norms, one CPE
            local, spread = 10 * C, C // 32 + 2 * C + 2 * 50 * C + 2 * C  # second CPE; temperature, norm, LCM
            count += depth * shared + -(-depth // 2) * local + depth // 2 * spread
        for C, D in zip(self.dims, self.dims[1:], strict=False):
            count += 2 * C + 4 * C * D + D
        return count + 2 * last + last * 1000 + 1000

    def multiplications(self, side: int) -> int:
        """Multiply-adds for an image of side x side pixels (a multiple of 32), windows padded as in the code."""
        first, grid = self.dims[0], side // 4
        count = (side // 2) ** 2 * 27 * first // 2 + grid**2 * 9 * first // 2 * first
        for stage, (C, depth) in enumerate(zip(self.dims, self.depths, strict=True)):
            edge = grid // 2**stage
            N = edge * edge
            padded = (-(-edge // self.window) * self.window) ** 2
            local = padded * (4 * C * C + 2 * self.window**2 * C) + N * (8 * C * C + 18 * C)
            mixing = 2 * N * C * 32 + N * C if self.linear else 2 * N * N * C
            spread = N * (12 * C * C + 9 * C + 98 * C) + mixing
            count += -(-depth // 2) * local + depth // 2 * spread
            if stage + 1 < len(self.dims):
                count += N // 4 * 4 * C * self.dims[stage + 1]
        return count + self.dims[-1] * 1000


BACKBONES = {
    "L2ViT-T": Backbone((96, 192, 384, 768), (2, 2, 6, 2)),
    "L2ViT-S": Backbone((96, 192, 384, 768), (2, 2, 18, 2)),
    "L2ViT-B": Backbone((128, 256, 512, 1024), (2, 2, 18, 2)),
}
"""The released configurations that the paper's table names."""

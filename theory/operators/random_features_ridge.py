"""Kernel ridge regression with one eigendecomposition, shared by all targets and all penalties.

The model sum_m <v_m, phi_m> with penalty lambda M sum |v_m|^2 has the dual K_M = Phi Phi^T / M, alpha solves
(K_M + n lambda I) alpha = y, and M sum |v_m|^2 = alpha^T K_M alpha: the size of the trained values is read off the
eigenvalues too. For infinitely many heads K_M becomes the kernel and the size the squared RKHS norm.

The ERM of Theorem 2 in arXiv:2307.11353 minimises over {sum |v_m| <= K_1, sum |v_m|^2 <= K_2 / M}; where K_1 >=
sqrt(K_2) the first constraint follows from the second, and for squared loss the solution is ridge at the penalty where
the size is K_2 (`in_ball`). Arrays float64 numpy or torch; a `Spectrum` holds two (n, n) arrays at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from theory.operators.random_features import head_features


def head_kernel(x: Any, y: Any, W: Any, rows: int = 256, heads: int = 250) -> Any:
    """K_M = Phi(x) Phi(y)^T / M of finitely many heads: (n, N + 1, d), (m, N + 1, d) -> (n, m).

    Blocks of `heads` heads: beside the result, memory for (n + m) heads (d + 1) features and for rows heads
    (N + d + 1) numbers on the way to them.
    """
    xp = array_namespace(x, y, W)
    total = 0.0
    for start in range(0, W.shape[0], heads):
        block = W[start : start + heads]
        left, right = (
            xp.concat([
                xp.reshape(head_features(one[i : i + rows], block), (-1, block.shape[0] * block.shape[1]))
                for i in range(0, one.shape[0], rows)
            ])
            for one in (x, y)
        )  # fmt: skip
        total = total + left @ right.T
    return total / W.shape[0]


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues (n,) and eigenvectors (n, n) of a kernel matrix on n inputs; negative rounding errors are zero."""

    values: Any
    vectors: Any

    def weights(self, y: Any, penalty: float) -> Any:
        """alpha = (K + n penalty I)^-1 y: responses (n,) or (n, targets) -> the same shape. penalty > 0."""
        xp = array_namespace(y)
        n = self.values.shape[0]
        rotated = xp.matrix_transpose(self.vectors) @ (y if y.ndim == 2 else y[:, None])
        alpha = self.vectors @ (rotated / (self.values[:, None] + n * penalty))
        return alpha if y.ndim == 2 else alpha[:, 0]

    def size(self, y: Any, penalty: float) -> float:
        """alpha^T K alpha for responses (n,): M sum |v_m|^2 of the trained values, or the squared RKHS norm."""
        rotated = self.vectors.T @ y / (self.values + self.values.shape[0] * penalty)
        return float((self.values * rotated**2).sum())

    def in_ball(self, y: Any, radius: float, steps: int = 100) -> float:
        """The penalty at which `size` is the radius, by bisection of its logarithm; 1e-14 where the ball holds all."""
        low, high = 1e-14, 1e6
        for _ in range(steps):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self.size(y, middle) > radius else (low, middle)
        return high


def spectrum(matrix: Any) -> Spectrum:
    """The decomposition of a symmetric kernel matrix (n, n); n = 4096 takes about a minute of one core."""
    xp = array_namespace(matrix)
    values, vectors = xp.linalg.eigh(matrix)
    return Spectrum(xp.clip(values, 0.0, None), vectors)


def validated_errors(
    train: Any, validation: Any, test: Any, y: tuple[Any, Any, Any], penalties: tuple[float, ...]
) -> Any:
    """Mean squared test errors (targets,) of ridge, each target at the penalty with the least validation error.

    train (n, n), validation (v, n), test (t, n)   kernel matrices against the training inputs
    y                                              responses (n, targets), (v, targets), (t, targets)
    """
    xp = array_namespace(train)
    parts, best, errors = spectrum(train), None, None
    for penalty in penalties:
        alpha = parts.weights(y[0], penalty)
        chosen = xp.mean((validation @ alpha - y[1]) ** 2, axis=0)
        found = xp.mean((test @ alpha - y[2]) ** 2, axis=0)
        better = chosen < best if best is not None else xp.ones_like(chosen, dtype=xp.bool)
        best = xp.where(better, chosen, chosen if best is None else best)
        errors = xp.where(better, found, found if errors is None else errors)
    return errors

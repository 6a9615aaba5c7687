"""Targets for random-feature attention: permutation-invariant functions of tokens, and one that is not.

Each takes inputs x (n, N + 1, d), float, and a unit vector b (d,), and returns responses (n,). t_i = <x_0, x_i>.
Source: the example classes of arXiv:2307.11353 (functions of the query, averages over keys, query-key correlations).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Target = Callable[[np.ndarray, np.ndarray], np.ndarray]


def of_query(power: int) -> Target:
    """<b, x_0>^power."""
    return lambda x, b: (x[:, 0] @ b) ** power


def average(power: int) -> Target:
    """(1/N) sum_i <b, x_i>^power."""
    return lambda x, b: ((x[:, 1:] @ b) ** power).mean(axis=1)


def correlations(x: np.ndarray) -> np.ndarray:
    """t_i = <x_0, x_i>: (n, N + 1, d) -> (n, N)."""
    t: np.ndarray = (x[:, 1:] @ x[:, 0, :, None])[..., 0]
    return t


def correlated(power: int) -> Target:
    """(1/N) sum_i t_i^power <b, x_i>."""
    return lambda x, b: (correlations(x) ** power * (x[:, 1:] @ b)).mean(axis=1)


def correlated_relu(x: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(1/N) sum_i relu(t_i) <b, x_i>."""
    value: np.ndarray = (np.maximum(correlations(x), 0) * (x[:, 1:] @ b)).mean(axis=1)
    return value


def alternating(x: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(1/N) sum_i (-1)^i <b, x_i>: it changes sign when two neighbouring keys change places."""
    signs = (-1.0) ** np.arange(1, x.shape[1])
    value: np.ndarray = (x[:, 1:] @ b) @ signs / len(signs)
    return value


TARGETS: dict[str, Target] = {
    "average of <b,x>": average(1),
    "average of <b,x>²": average(2),
    "average of <b,x>³": average(3),
    "average of <b,x>⁴": average(4),
    "<b,query>²": of_query(2),
    "average of t<b,x>": correlated(1),
    "average of t²<b,x>": correlated(2),
    "average of relu(t)<b,x>": correlated_relu,
    "alternating sum": alternating,
}
"""By the name that the pages show; t = <x_0, x_i>. The last is the control: no invariant model can learn it."""

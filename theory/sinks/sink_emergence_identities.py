"""Identities around attention biases, the scale of attention's output, norms of rows, and printed percentages.

Functions of + - * / and powers run on floats, arrays and sympy symbols alike. Source: Gu et al., arXiv:2410.10781,
sections 3.1 and 7.3, appendix D.4; the reading of key-value biases as a scaling is derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from theory.operators.attention import softmax_rows

Array = Any


# -- biases in attention -----------------------------------------------------------------------------------------------


def with_star(weighted: Any, total: Any, star: Any, value: Any) -> Any:
    """Attention with one more key: (sum_j e_j v_j + e* v*) / (sum_j e_j + e*), e the exponentials of the scores."""
    return (weighted + star * value) / (total + star)


def scaled_by_star(weighted: Any, total: Any, star: Any, value: Any) -> Any:
    """S o + (1 - S) v* with o = sum_j e_j v_j / sum_j e_j and S = sum_j e_j / (sum_j e_j + e*)."""
    share = total / (total + star)
    return share * weighted / total + (1 - share) * value


def star_share(scores: Array, star: Array) -> Array:
    """S (..., n): logistic of LSE_j s_tj - s_t*, what the tokens keep; scores (..., n, m), -inf where masked."""
    xp = array_namespace(scores)
    top = xp.max(scores, axis=-1)
    total = top + xp.log(xp.sum(xp.exp(scores - top[..., None]), axis=-1))
    return 1 / (1 + xp.exp(star - total))


# -- a factor on the output is another learning rate -------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """Learning rate, weight decay and epsilon; numbers or symbols."""

    rate: Any
    decay: Any = 0
    eps: Any = 0


def rescaled_sgd(recipe: Recipe, factor: Any) -> Recipe:
    """What trains W' = factor W on L(W') as SGD trains W on L(factor W): the rate times factor^2. Appendix D.4."""
    return Recipe(factor**2 * recipe.rate)


def rescaled_adamw(recipe: Recipe, factor: Any) -> Recipe:
    """The same for AdamW: rate times factor, weight decay and epsilon over factor. Appendix D.4, equation 42."""
    return Recipe(factor * recipe.rate, recipe.decay / factor, recipe.eps / factor)


def sgd_step(weight: Any, gradient: Any, recipe: Recipe) -> Any:
    """Equation 32."""
    return weight - recipe.rate * gradient


def adamw_step(
    weight: Any,
    m: Any,
    v: Any,
    gradient: Any,
    recipe: Recipe,
    *,
    betas: tuple[Any, Any],
    step: Any,
    sqrt: Any = np.sqrt,
) -> tuple[Any, Any, Any]:
    """The next (weight, m, v); step counts from 1. Equations 36-39."""
    first, second = betas
    m, v = first * m + (1 - first) * gradient, second * v + (1 - second) * gradient**2
    update = m / (1 - first**step) / (sqrt(v / (1 - second**step)) + recipe.eps)
    return (1 - recipe.rate * recipe.decay) * weight - recipe.rate * update, m, v


def cosine_rate(step: int, *, rate: float, floor: float, warmup: int, steps: int) -> float:
    """Learning rate of a step: linear warm-up, then a cosine from `rate` down to `floor`. Source: `tinyllama.py`."""
    if step < warmup:
        return rate * step / warmup
    share = min((step - warmup) / (steps - warmup), 1.0)
    return floor + (1 + math.cos(math.pi * share)) / 2 * (rate - floor)


# -- rows in other norms -----------------------------------------------------------------------------------------------


def p_normalised(scores: Array, p: float) -> Array:
    """exp(s_j) / (sum_j exp(s_j)^p)^(1/p) over the last axis. Equation 43."""
    xp = array_namespace(scores)
    e = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
    return e / xp.sum(e**p, axis=-1, keepdims=True) ** (1 / p)


def rooted(scores: Array, p: float) -> Array:
    """The p-th root of softmax at temperature 1/p. Equation 44."""
    return softmax_rows(p * scores) ** (1 / p)


# -- printed percentages -----------------------------------------------------------------------------------------------


def possible(percent: str, cases: int) -> bool:
    """Can a share of so many cases be printed as this percentage, rounded up or down at a tie?"""
    printed = Decimal(percent)
    half = Decimal(1).scaleb(int(printed.as_tuple().exponent)) / 2
    low, high = ((printed + sign * half) * cases / 100 for sign in (-1, 1))
    return math.ceil(low) <= math.floor(high)


def parameters(width: int, layers: int, hidden: int, *, gated: bool = True) -> int:
    """Of a decoder without biases and embeddings: four matrices of attention, three of SwiGLU (else two), norms."""
    return layers * (4 * width**2 + (3 if gated else 2) * width * hidden + 2 * width) + width

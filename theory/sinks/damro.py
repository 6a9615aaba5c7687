"""DAMRO: a second branch that sees outlier tokens only, and what subtracting its logits does; arithmetic of its tables.

    logits, minus  (..., V)  logits of the next word: from the whole image, from the outlier tokens alone
    q, k           (..., C), (..., n, C)  query of the class token and keys of n image tokens, all heads side by side

Sources: Gong et al., arXiv:2410.04514, and its released code (`sample_method/sample.py`, `modeling_llava.py`,
`modeling_instructblip.py`), read, not copied. Balanced questions: half of the objects asked for are there (POPE).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from theory.operators.attention import softmax

Array = Any
TOP = 10
"""Tokens taken as outliers with LLaVA; 4 with InstructBLIP."""

# -- decoding ----------------------------------------------------------------------------------------------------------


def contrast(logits: Array, minus: Array, alpha: float, beta: float) -> Array:
    """(1 + alpha) logits - alpha minus; -inf for words below beta times the probability of the likeliest, by logits."""
    xp = array_namespace(logits)
    combined = (1 + alpha) * logits - alpha * minus
    if beta == 0:
        return combined
    kept = logits >= math.log(beta) + xp.max(logits, axis=-1, keepdims=True)
    return xp.where(kept, combined, xp.full_like(combined, -math.inf))


def product_of_experts(p: np.ndarray, p_minus: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """p^(1 + alpha) / p_minus^alpha on the words with p >= beta max p, normalised: the same in probabilities."""
    kept = p >= beta * p.max(axis=-1, keepdims=True)
    weight = np.where(kept, p ** (1 + alpha) / p_minus**alpha, 0)
    return np.asarray(weight / weight.sum(axis=-1, keepdims=True))


# -- the filter --------------------------------------------------------------------------------------------------------


def cls_attention(q: Array, k: Array, heads: int = 1) -> Array:
    """(..., n): the class token's attention, the mean over heads of width C / heads.

    The code for LLaVA has one head of width C, whose logits are the sum of all heads' over sqrt(C); that for
    InstructBLIP has the encoder's heads.
    """
    xp, C = array_namespace(q), k.shape[-1]
    lead, width = q.shape[:-1], C // heads
    query = xp.reshape(q, (*lead, heads, 1, width))
    key = xp.moveaxis(xp.reshape(k, (*k.shape[:-1], heads, width)), -2, -3)
    return xp.mean(softmax(query, key)[..., 0, :], axis=-2)


def top(a: np.ndarray, count: int) -> np.ndarray:
    """(..., n) bool: the `count` largest of each row; ties go to the earlier."""
    order = np.argsort(-a, axis=-1, kind="stable")[..., :count]
    chosen = np.zeros(a.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=-1)
    return chosen


# -- what a table of averages allows -----------------------------------------------------------------------------------


def false_positives(recall: Any, accuracy: Any) -> Any:
    """Share of absent objects that are affirmed, on balanced questions: 1 + R - 2 Acc. Holds for averages too."""
    return 1 + recall - 2 * accuracy


def accuracy_range(precision: Any, recall: Any, *, sets: int = 3, spread: Any = 0) -> tuple[Any, Any]:
    """Least and largest mean accuracy over so many balanced sets with these mean precision and recall.

    Recalls differ from their mean by `spread` at most: the sets share their positive questions. The share of false
    positives of set i is R_i (1 / P_i - 1), convex in P_i: its mean is least where all P_i are equal, and largest where
    all but one are 1. Both are attained with equal recalls.

    Raises:
        ValueError: sets (1 - precision) >= 1, so that one set may have precision 0 and no bound exists.
    """
    worst = 1 - sets * (1 - precision)
    if worst <= 0:
        raise ValueError(f"precision {precision} as a mean of {sets} sets allows one of 0: no bound")
    most = (recall + spread) * (1 / worst - 1) / sets
    least = (recall - spread) * (1 / precision - 1)
    return (1 + recall - most) / 2, (1 + recall - least) / 2


def score_range(precision: Any, recall: Any, *, sets: int = 3) -> tuple[Any, Any]:
    """Least and largest mean F1, 2 P R / (P + R), likewise, for equal recalls: it is concave in P."""
    worst = 1 - sets * (1 - precision)
    least = ((sets - 1) * 2 * recall / (1 + recall) + 2 * worst * recall / (worst + recall)) / sets
    return least, 2 * precision * recall / (precision + recall)


# -- sampling and sharpening -------------------------------------------------------------------------------------------


def sharpened_accuracy(p: Any, power: float = 1.0) -> Any:
    """Of a yes-or-no answer right with probability p, where it is drawn with odds (p / (1 - p))^power.

    power = 1 samples, p^2 + (1 - p)^2; power = inf is greedy, max(p, 1 - p). Where the second branch is indifferent
    between yes and no, contrast samples with power 1 + alpha.
    """
    if math.isinf(power):
        return np.maximum(p, 1 - p)
    yes, no = p**power, (1 - p) ** power
    return (p * yes + (1 - p) * no) / (yes + no)


def greedy_at_most(sampled: Any) -> Any:
    """Largest accuracy of greedy answers of a calibrated model that has this accuracy when it samples.

    max(p, 1 - p) = (1 + sqrt(2 s - 1)) / 2 with s = p^2 + (1 - p)^2 is concave in s, so that the mean over questions is
    at most its value at the mean of s; attained where all questions have the same p.
    """
    return (1 + (2 * sampled - 1) ** 0.5) / 2

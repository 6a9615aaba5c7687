"""Attention operators, each defined once: numpy float64, torch with gradients, and flint balls run the same lines.

An operator is a function of queries and keys that returns weights; the output of attention is `weights @ v`.

    q        (..., n, d)   queries               k     (..., m, d)     keys
    weights  (..., n, m)   one row per query     mask  (n, m) bool     True: the query may attend to the key; None: all
    bias     (..., n, m)   added to the scores (ALiBi and the like, see `theory.operators.positions`)

Leading axes broadcast. Arrays follow the array-API standard, floating dtypes; results keep dtype and device. An object
array of `flint.arb` passes through `sigmoid` and everything else made of + - * / exp and tanh alone.
A row that may attend to nothing has weights 0. Where papers write <q, k> / sqrt(d), `scale` is that factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from array_api_compat import array_namespace

Array = Any
"""An array of any library that follows the array-API standard."""
FeatureMap = Callable[[Array], Array]
Positive = Literal["exp", "softplus", "sigmoid", "relu"]
Normaliser = Literal["l1", "l2", "length", "none"]


def scores(q: Array, k: Array, bias: Array | None = None, scale: float | None = None) -> Array:
    """scale q k^T + bias, (..., n, m); scale is 1 / sqrt(d) unless given."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    product = q @ transpose(k) * scale
    return product if bias is None else product + bias


def transpose(x: Array) -> Array:
    """The last two axes exchanged."""
    return array_namespace(x).matrix_transpose(x)


def masked(x: Array, mask: Array | None, value: float) -> Array:
    """x with `value` wherever the mask forbids."""
    if mask is None:
        return x
    xp = array_namespace(x)
    return xp.where(mask, x, xp.full_like(x, value))


def total(x: Array) -> Array:
    """Sum of each row, kept as an axis of length 1."""
    return array_namespace(x).sum(x, axis=-1, keepdims=True)


def normalised(weights: Array, norm: Array | None = None) -> Array:
    """Each row over its norm (its sum unless given); a row of norm 0 stays 0."""
    norm = total(weights) if norm is None else norm
    return weights / array_namespace(weights).where(norm == 0, norm + 1, norm)


# -- softmax and elementwise operators ---------------------------------------------------------------------------------


def softmax(
    q: Array, k: Array, *, mask: Array | None = None, bias: Array | None = None, scale: float | None = None
) -> Array:
    """exp(s_ij) / sum_j exp(s_ij). Source: Vaswani et al., arXiv:1706.03762, equation 1."""
    return softmax_rows(scores(q, k, bias, scale), mask)


def softmax_rows(s: Array, mask: Array | None = None) -> Array:
    """Softmax of each row of scores (..., m), shifted by the row's maximum so that nothing overflows."""
    xp = array_namespace(s)
    s = masked(s, mask, -math.inf)
    top = xp.max(s, axis=-1, keepdims=True)
    return normalised(xp.exp(s - xp.where(top == -math.inf, xp.zeros_like(top), top)))


def sigmoid(
    q: Array,
    k: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    offset: float | None = None,
    scale: float | None = None,
) -> Array:
    """1 / (1 + exp(-s_ij - b)) without normalisation; the offset b is -ln m unless given, also under a causal mask.

    Written as (1 + tanh) / 2: exact at -inf, no overflow; the absolute error is half an ulp of 1, so that the relative
    one grows as 1e-16 exp(-s - b). Source: Ramapuram et al., arXiv:2409.04431, section 2.
    """
    offset = -math.log(k.shape[-2]) if offset is None else offset
    return masked(logistic(scores(q, k, bias, scale) + offset), mask, 0.0)


def logistic(s: Array) -> Array:
    """1 / (1 + exp(-s)), elementwise."""
    return (1 + array_namespace(s).tanh(s / 2)) / 2


def softplus(s: Array) -> Array:
    """ln(1 + exp(s)), elementwise."""
    xp = array_namespace(s)
    return xp.logaddexp(s, xp.zeros_like(s))


def elementwise(
    q: Array,
    k: Array,
    *,
    positive: Positive,
    normalise: Normaliser,
    mask: Array | None = None,
    bias: Array | None = None,
    scale: float | None = None,
) -> Array:
    """A positive map of each score, then a norm of the row: softmax is exp with l1.

    `length` divides by the number of keys that the row may attend to. exp without l1 overflows for scores above 88 in
    float32. Source: Gao and Spratling, arXiv:2501.13428, section 2.1; ReLU with l1 or length: Wortsman et al. 2023.
    """
    s = scores(q, k, bias, scale)
    if (positive, normalise) == ("exp", "l1"):
        return softmax_rows(s, mask)
    xp = array_namespace(s)
    maps: dict[str, Callable[[Array], Array]] = {
        "exp": xp.exp, "softplus": softplus, "sigmoid": logistic, "relu": relu_map
    }  # fmt: skip
    weights = masked(maps[positive](s), mask, 0.0)
    if normalise == "l1":
        return normalised(weights)
    if normalise == "l2":
        return unit(weights)
    return weights * uniform(q, k, mask=mask) if normalise == "length" else weights


def uniform(q: Array, k: Array, *, mask: Array | None = None) -> Array:
    """1 / (number of keys that the row may attend to): the operator that looks at nothing."""
    xp = array_namespace(q)
    return normalised(masked(xp.ones_like(q[..., :1] @ transpose(k[..., :1])), mask, 0.0))


def taylor(
    q: Array, k: Array, *, mask: Array | None = None, bias: Array | None = None, scale: float | None = None
) -> Array:
    """T(s_ij) / sum_j T(s_ij) with T(s) = 1 + s + s^2 / 2 >= 1/2.

    Source: the Approximate variant of Xue et al., arXiv:2510.11602, equation 6, after Arora et al., arXiv:2402.18668.
    """
    s = scores(q, k, bias, scale)
    return normalised(masked(1 + s + s**2 / 2, mask, 0.0))


def per_key(logits: Array, *, mask: Array | None = None) -> Array:
    """exp(s_j) / sum_j' exp(s_j') over the keys a row may attend to: logits (..., m), one per key, weights (..., n, m).

    Without a mask there is one row. Source: the Non-approximate variant of Xue et al., arXiv:2510.11602, equation 18.
    """
    return softmax_rows(logits[..., None, :], mask)


# -- kernels with a feature map: linear in the number of keys ----------------------------------------------------------


def relu_map(x: Array) -> Array:
    """max(x, 0): positively homogeneous, so that scaling a query leaves normalised linear attention unchanged."""
    return array_namespace(x).clip(x, 0)


def elu_plus_one(x: Array) -> Array:
    """x + 1 where x > 0, else exp(x). Source: Katharopoulos et al., arXiv:2006.16236, equation 7."""
    xp = array_namespace(x)
    return xp.where(x > 0, x + 1, xp.exp(xp.clip(x, None, 0)))


def exp_map(x: Array) -> Array:
    """exp(x), elementwise."""
    return array_namespace(x).exp(x)


def focused(x: Array, power: int = 3) -> Array:
    """ReLU(x)^p, brought back to the length of ReLU(x). Source: Han et al., arXiv:2308.00442, equation 5."""
    base = relu_map(x)
    return unit(base**power) * total(unit(base) * base)


def kernel(
    q: Array, k: Array, *, feature_map: FeatureMap = elu_plus_one, mask: Array | None = None, scale: float = 1
) -> Array:
    """scale phi(q_i).phi(k_j), without a norm. Source: Gu et al., arXiv:2410.10781, table 6."""
    return masked(scale * (feature_map(q) @ transpose(feature_map(k))), mask, 0.0)


def linear(
    q: Array, k: Array, *, feature_map: FeatureMap = elu_plus_one, mask: Array | None = None, floor: float = 0.0
) -> Array:
    """phi(q_i).phi(k_j) / max(row sum, floor), written out.

    Source: Katharopoulos et al., arXiv:2006.16236, equation 4; floor = 100 is L2ViT's, arXiv:2501.16182.
    """
    S = kernel(q, k, feature_map=feature_map, mask=mask)
    return normalised(S, array_namespace(S).clip(total(S), floor))


def linear_output(q: Array, k: Array, v: Array, *, feature_map: FeatureMap = elu_plus_one, floor: float = 0.0) -> Array:
    """`linear(q, k) @ v` with phi(k)^T v first: time linear in n and m, no mask."""
    q, k = feature_map(q), feature_map(k)
    norm = q @ transpose(array_namespace(k).sum(k, axis=-2, keepdims=True))
    return normalised(q @ (transpose(k) @ v), array_namespace(q).clip(norm, floor))


def mala(
    q: Array, k: Array, *, feature_map: FeatureMap = elu_plus_one, scale: float = 1, mask: Array | None = None
) -> Array:
    """(1 + 1 / z_i) S_ij - z_i / m_i with S = scale phi(q) phi(k)^T, z its row sums, m_i the keys of row i.

    This is linear attention plus the centred kernel, S / z + (S - mean): rows sum to 1, weights may be negative. The
    paper has scale = 1, its code 1 / (sqrt(d) m). Source: Fan et al., arXiv:2507.00698, section 4.
    """
    S = kernel(q, k, feature_map=feature_map, mask=mask, scale=scale)
    allowed = masked(array_namespace(S).ones_like(S), mask, 0.0)
    return S + normalised(S) - normalised(total(S), total(allowed)) * allowed


def mala_output(q: Array, k: Array, v: Array, *, feature_map: FeatureMap = elu_plus_one, scale: float = 1) -> Array:
    """`mala(q, k) @ v` with phi(k)^T v first: time linear in n and m, no mask."""
    xp = array_namespace(v)
    q, k = scale * feature_map(q), feature_map(k)
    S_v, z = q @ (transpose(k) @ v), q @ transpose(xp.sum(k, axis=-2, keepdims=True))
    return S_v + normalised(S_v, z) - z * xp.mean(v, axis=-2, keepdims=True)


# -- softplus attention with re-weighting ------------------------------------------------------------------------------


def lssa(q: Array, k: Array, *, mask: Array | None = None) -> Array:
    """softplus(ln d ln m_i cos(q_i, k_j)), rows over their sum; m_i is the number of keys that row i may attend to.

    Source: Gao and Spratling, arXiv:2501.13428, LSSA.
    """
    xp = array_namespace(q)
    keys = 1 / xp.max(uniform(q, k, mask=mask), axis=-1, keepdims=True)  # m_i
    cosines = unit(q) @ transpose(unit(k))
    return normalised(masked(softplus(math.log(q.shape[-1]) * xp.log(keys) * cosines), mask, 0.0))


def unit(x: Array) -> Array:
    """Rows of Euclidean length 1; a zero row stays 0, and its gradient finite."""
    xp, square = array_namespace(x), total(x**2)
    return x / xp.sqrt(xp.where(square == 0, xp.ones_like(square), square))


def reweight(weights: Array, power: float, *, mask: Array | None = None) -> Array:
    """Rows ReLU(m_i A_ij - o_i)^p over their sum, with o_i = 1, but 0 where m_i <= 3: what exceeds uniform survives.

    Divided by the row's maximum before the power, which changes nothing in exact arithmetic and cannot overflow.
    Source: Gao and Spratling, arXiv:2501.13428, LSSAR, p = 15 or 3.
    """
    excess = _excess(weights, mask)
    return normalised(normalised(excess, array_namespace(weights).max(excess, axis=-1, keepdims=True)) ** power)


def reweight_printed(weights: Array, power: float, *, mask: Array | None = None) -> Array:
    """`reweight` as the paper prints it: overflows, and is 0 / 0 where a row is uniform."""
    raised = _excess(weights, mask) ** power
    return raised / total(raised)


def _excess(weights: Array, mask: Array | None) -> Array:
    """ReLU(m_i A_ij - o_i), 0 where the mask forbids."""
    xp = array_namespace(weights)
    allowed = masked(xp.ones_like(weights), mask, 0.0)
    keys = total(allowed)
    return relu_map(weights * keys - xp.where(keys > 3, xp.ones_like(keys), xp.zeros_like(keys))) * allowed


# -- operators of another shape ----------------------------------------------------------------------------------------


def positional(P: Array, W_q: Array, W_k: Array) -> Array:
    """softmax(P W_q (P W_k)^T / sqrt(d_k)): P (n, p) encodes positions, so the weights do not depend on the data.

    Source: Back de Luca et al., arXiv:2410.01686, section 4.
    """
    return softmax(P @ W_q, P @ W_k)


def gaussian_adaptive(x: Array, offset: Array, width: Array, *, axis: int = -1, eps: float = 1e-8) -> Array:
    """Weights like x, which gate x elementwise (`weights * x`): K Gaussians of x multiplied, over their sum.

    offset, width (K,) are delta_k and c_k; mean and unbiased variance run along the axis. Source: released code of
    Ioannides et al., arXiv:2401.11143, GaussianBlock.py.
    """
    xp = array_namespace(x)
    mean, variance = xp.mean(x, axis=axis, keepdims=True), xp.var(x, axis=axis, correction=1, keepdims=True) + eps
    deviation = x[..., None] - mean[..., None] - offset
    bells = -(deviation**2) / (2 * width**2 * variance[..., None]) - xp.log(2 * math.pi * width**2) / 2
    product = xp.exp(xp.sum(bells, axis=-1))
    return product / xp.clip(xp.sum(product, axis=axis, keepdims=True), eps)


def gaussian_adaptive_paper(x: Array, offset: float, width: float, *, axis: int = -1, eps: float = 1e-8) -> Array:
    """exp(-z^2 / (2 xi)) with z = (x - mean - delta) / sqrt(variance + eps): the paper's form, one head, no sum.

    offset is delta, width is xi. Source: Ioannides et al., arXiv:2401.11143.
    """
    xp = array_namespace(x)
    mean, variance = xp.mean(x, axis=axis, keepdims=True), xp.var(x, axis=axis, keepdims=True)
    return xp.exp(-((x - mean - offset) ** 2) / (2 * width * (variance + eps)))


def kolmogorov_arnold(s: Array, cosine: Array, sine: Array, mix: Array) -> Array:
    """W Phi(row) for each row of scores (..., m): a learnable map of whole rows in place of softmax.

    cosine, sine (..., r, m, G) are the Fourier coefficients of phi_pq(t) = sum_g a_pqg cos(g t) + b_pqg sin(g t), mix
    (..., m, r) is W; with mix the identity and r = m it is the full operator. Base function 0. Source: Maity et al.,
    arXiv:2503.10632.
    """
    xp = array_namespace(s)
    grid = xp.arange(1, cosine.shape[-1] + 1, dtype=s.dtype, device=s.device)
    multiples = s[..., None] * grid  # (..., m, G)
    flat = (*s.shape[:-1], s.shape[-1] * cosine.shape[-1])

    def units(values: Array, coefficients: Array) -> Array:
        return xp.reshape(values, flat) @ transpose(xp.reshape(coefficients, (*coefficients.shape[:-2], -1)))

    return (units(xp.cos(multiples), cosine) + units(xp.sin(multiples), sine)) @ transpose(mix)

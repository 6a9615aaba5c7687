"""Mixture-of-head attention: each token weighs its heads, and those that its router leaves out weigh nothing.

    MoH(X) = sum_i g_i H_i W_O^i,   W_O cut into h blocks of rows,   g_i = 0 for a routed head that is not selected.

Of h heads the first h_s are shared: all tokens use them. Of the E others each token selects the K with the largest
logits. Source: Jin, Zhu, Yuan, Yan, arXiv:2410.11842, equations 3 to 6; the released code, github.com/SkyworkAI/MoH,
renormalises the gates.
"""

from __future__ import annotations

from fractions import Fraction

from array_api_compat import array_namespace

from theory.operators.attention import Array, normalised, softmax, softmax_rows

PRINTED_MS = {
    256: {100: Fraction("0.360"), 90: Fraction("0.352"), 75: Fraction("0.321"), 50: Fraction("0.225")},
    512: {100: Fraction("1.376"), 90: Fraction("1.351"), 75: Fraction("1.180"), 50: Fraction("0.863")},
}
"""Tokens -> per cent of heads -> milliseconds: table 7, 32 heads of width 64, sparse matrix products throughout."""
HALF_A_DIGIT = Fraction(1, 2000)
"""Of these milliseconds."""


def gates(shared: Array, routed: Array, kinds: Array, top: int, *, released: bool = False) -> Array:
    """Weights of all heads (..., h_s + E), 0 for routed heads outside the `top`; equations 5 and 6.

    shared (..., h_s), routed (..., E) and kinds (..., 2) are the routers' logits. The softmax over routed heads runs
    over all of them, before the cut. `released`: as in the released code, the mean gate is about 1: routed weights over
    their sum, times K; shared ones times h_s; both kinds times 2.
    """
    xp = array_namespace(routed)
    always, all_routed, kind = softmax_rows(shared), softmax_rows(routed), softmax_rows(kinds)
    order = xp.argsort(routed, axis=-1, descending=True, stable=True)
    rank = xp.argsort(order, axis=-1, stable=True)
    kept = xp.where(rank < top, all_routed, xp.zeros_like(all_routed))
    if released:
        always, kept, kind = always * shared.shape[-1], normalised(kept) * top, kind * 2
    return xp.concat([kind[..., :1] * always, kind[..., 1:] * kept], axis=-1)


def gated_heads(q: Array, k: Array, v: Array, weights: Array, *, mask: Array | None = None,
                scale: float | None = None) -> Array:  # fmt: skip
    """g_i H_i side by side: q, k, v (..., h, n, d) and gates (..., n, h) to (..., n, h d).

    Times W_O (h d, width) this is equation 4.
    """
    xp = array_namespace(q)
    heads = xp.moveaxis(softmax(q, k, mask=mask, scale=scale) @ v, -3, -2) * weights[..., None]
    return xp.reshape(heads, (*heads.shape[:-2], heads.shape[-2] * heads.shape[-1]))


def speedup(tokens: int, per_cent: int, end: int = 0) -> Fraction:
    """Printed time of all heads over that of a share; `end` -1 and 1: the least and most, as both times are rounded."""
    times = PRINTED_MS[tokens]
    return (times[100] + end * HALF_A_DIGIT) / (times[per_cent] - end * HALF_A_DIGIT)

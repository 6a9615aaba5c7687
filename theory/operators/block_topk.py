"""Block top-k attention of one decoding step, the bytes it moves, and the throughput gains that are printed for it.

Keys lie in pages of b tokens. A page's score is the mean over a group of query heads of q.(mean key of the page); the
first page, the last and the `top` best of the others are attended to. Source: Sadhukhan et al., arXiv:2506.05333, and
their code, github.com/Infini-AI-Lab/Kinetics.
"""

from __future__ import annotations

from fractions import Fraction

from array_api_compat import array_namespace

from theory.operators.attention import Array, softmax, transpose

PAGE = 16
"""Tokens of a page."""
TOP = 64
"""Pages chosen by score."""
PRINTED_GAINS = {16_384: Fraction("12.6"), 32_768: Fraction("25.5")}
"""Context -> throughput with block top-k over that without: Qwen3-0.6B, 8 H200, quoted from memory."""


def page_means(k: Array, page: int = PAGE) -> Array:
    """Mean key of each page: (..., m, d) to (..., ceil(m / page), d); of the last one, of the tokens that it has."""
    xp = array_namespace(k)
    pages = [xp.mean(k[..., at : at + page, :], axis=-2) for at in range(0, k.shape[-2], page)]
    return xp.stack(pages, axis=-2)


def page_scores(q: Array, means: Array) -> Array:
    """Sum over a group of query heads (..., group, d) of q.mean, means (..., pages, d): (..., pages).

    The mean over the group has the same order.
    """
    return array_namespace(q).sum(q @ transpose(means), axis=-2)


def chosen(scores: Array, top: int) -> Array:
    """Which pages are attended to: the first, the last and the `top` best others, of equal ones the earlier.

    scores (..., pages); the result is boolean.
    """
    xp = array_namespace(scores)
    pages = scores.shape[-1]
    order = xp.argsort(scores[..., 1 : pages - 1], axis=-1, descending=True, stable=True)
    rank = xp.argsort(order, axis=-1, stable=True)
    ends = xp.ones_like(scores[..., :1], dtype=xp.bool)
    return xp.concat([ends, rank < top, ends], axis=-1) if pages > 1 else ends


def page_mask(pages: Array, keys: int, page: int = PAGE) -> Array:
    """Pages attended to (..., pages) as tokens attended to, (..., keys)."""
    xp = array_namespace(pages)
    return xp.repeat(pages, page, axis=-1)[..., :keys]


def block_topk(q: Array, k: Array, top: int, *, page: int = PAGE, scale: float | None = None) -> Array:
    """Weights (..., group, m) of one step: softmax of a group's queries (..., group, d) over its chosen pages."""
    pages = chosen(page_scores(q, page_means(k, page)), top)
    return softmax(q, k, mask=page_mask(pages, k.shape[-2], page)[..., None, :], scale=scale)


def dense_bytes(context: int, width: int, element: int = 2) -> int:
    """Bytes of keys and values that one step reads for one sequence and one key head."""
    return 2 * context * width * element


def sparse_bytes(
    context: int, width: int, *, top: int = TOP, page: int = PAGE, kept: int = 2, search: bool = True, element: int = 2
) -> int:
    """The same with `top` pages by score and `kept` pages always; `search` adds one mean key a page."""
    pages = -(-context // page)
    tokens = min(context, (top + kept) * page)
    return dense_bytes(tokens, width, element) + (pages * width * element if search else 0)


def byte_ratio(
    context: int, *, width: int = 128, top: int = TOP, page: int = PAGE, kept: int = 2, search: bool = True
) -> Fraction:
    """Bytes of dense attention over those of block top-k: no kernel bound by memory gains more at an equal batch."""
    sparse = sparse_bytes(context, width, top=top, page=page, kept=kept, search=search)
    return Fraction(dense_bytes(context, width), sparse)

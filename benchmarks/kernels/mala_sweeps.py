"""The kernels of `benchmarks.kernels.mala`, which says what they compute: each sweeps once over its inputs.

A program takes one chunk of rows of one batch and head. What it sums goes to buffers of its own, and `add` puts the
chunks together in a fixed tree.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _features(x, inside):
    """phi(x) = ELU(x) + 1 in float32, 0 outside; phi'(x) is min(phi(x), 1)."""
    x = x.to(tl.float32)
    return tl.where(inside, tl.where(x > 0, x + 1, tl.exp2(tl.minimum(x, 0.0) * LOG2_E)), 0.0)


@triton.jit
def _tile(base, rows, stride, last, D: tl.constexpr, WIDTH: tl.constexpr):
    """Rows (R,) below `last` of a matrix with D columns, as (R, WIDTH), zeros beyond; and which are inside."""
    columns = tl.arange(0, WIDTH)
    inside = (rows[:, None] < last) & (columns[None, :] < D)
    return tl.load(base + rows[:, None].to(tl.int64) * stride + columns[None, :], mask=inside, other=0.0), inside


@triton.jit
def _write(base, rows, last, value, D: tl.constexpr, WIDTH: tl.constexpr):
    columns = tl.arange(0, WIDTH)
    inside = (rows[:, None] < last) & (columns[None, :] < D)
    at = base + rows[:, None].to(tl.int64) * D + columns[None, :]
    tl.store(at, value.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _partial(Matrix, Left, Right, matrix, left, right, WIDTH: tl.constexpr):
    """Sums of this program to row (batch * heads + head) * splits + split of float32 buffers of WIDTH columns."""
    across = tl.arange(0, WIDTH)
    row = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    tl.store(Matrix + row * WIDTH * WIDTH + across[:, None] * WIDTH + across[None, :], matrix)
    tl.store(Left + row * WIDTH + across, left)
    tl.store(Right + row * WIDTH + across, right)


@triton.jit
def sum_keys(
    K, V, Matrix, Left, Right, keys, chunk, heads, kb, kh, kn, vb, vh, vn,
    D: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Sums of phi(k)^T v, phi(k) and v over one chunk of keys: program (chunk, batch * heads)."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    K, V = K + batch * kb + head * kh, V + batch * vb + head * vh
    matrix = tl.zeros((WIDTH, WIDTH), tl.float32)
    left, right = tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
    first = tl.program_id(0) * chunk
    last = tl.minimum(keys, first + chunk)
    for start in range(first, last, N):
        rows = start + tl.arange(0, N)
        k, inside = _tile(K, rows, kn, last, D, WIDTH)
        v, _ = _tile(V, rows, vn, last, D, WIDTH)
        g = _features(k, inside)
        matrix = tl.dot(tl.trans(g.to(v.dtype)), v, matrix, input_precision="ieee")
        left += tl.sum(g, 0)
        right += tl.sum(v.to(tl.float32), 0)
    _partial(Matrix, Left, Right, matrix, left, right, WIDTH)


@triton.jit
def add(
    Matrix, Left, Right, C, LeftMean, RightMean, splits, keys,
    WIDTH: tl.constexpr, SPLITS: tl.constexpr, ROWS: tl.constexpr, CENTRED: tl.constexpr,
):  # fmt: skip
    """Sums of all chunks over the number of keys; CENTRED subtracts the means' product: program (rows, batch * heads).

    SPLITS is `splits` padded to a power of two: all chunks are read at once and added in a fixed tree.
    """
    split, across = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    block = tl.program_id(1).to(tl.int64)
    chunks, there = block * splits + split, split < splits
    left = tl.load(Left + chunks[:, None] * WIDTH + rows[None, :], mask=there[:, None], other=0.0)
    right = tl.load(Right + chunks[:, None] * WIDTH + across[None, :], mask=there[:, None], other=0.0)
    at = chunks[:, None, None] * WIDTH * WIDTH + rows[None, :, None] * WIDTH + across[None, None, :]
    matrix = tl.sum(tl.load(Matrix + at, mask=there[:, None, None], other=0.0), 0) / keys
    left, right = tl.sum(left, 0) / keys, tl.sum(right, 0) / keys
    if CENTRED:
        matrix -= left[:, None] * right[None, :]
    to = C + block * WIDTH * WIDTH + rows[:, None] * WIDTH + across[None, :]
    tl.store(to, matrix.to(C.dtype.element_ty))
    tl.store(LeftMean + block * WIDTH + rows, left)
    if tl.program_id(0) == 0:
        tl.store(RightMean + block * WIDTH + across, right)


@triton.jit
def _state(C, LeftMean, RightMean, WIDTH: tl.constexpr):
    """What `add` wrote for this batch and head."""
    across = tl.arange(0, WIDTH)
    block = tl.program_id(1).to(tl.int64)
    matrix = tl.load(C + block * WIDTH * WIDTH + across[:, None] * WIDTH + across[None, :])
    return matrix, tl.load(LeftMean + block * WIDTH + across), tl.load(RightMean + block * WIDTH + across)


@triton.jit
def _inverse(z):
    """1 / z, and 0 where z is."""
    return tl.where(z == 0, 0.0, 1 / tl.where(z == 0, 1.0, z))


@triton.jit
def outputs(
    Q, C, KeyMean, ValueMean, Out, c, queries, chunk, heads, qb, qh, qn,
    D: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """o of one chunk of queries: program (chunk, batch * heads)."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    Q, Out = Q + batch * qb + head * qh, Out + tl.program_id(1).to(tl.int64) * queries * D
    covariance, key_mean, value_mean = _state(C, KeyMean, ValueMean, WIDTH)
    first = tl.program_id(0) * chunk
    last = tl.minimum(queries, first + chunk)
    for start in range(first, last, N):
        rows = start + tl.arange(0, N)
        q, inside = _tile(Q, rows, qn, last, D, WIDTH)
        f = _features(q, inside)
        z = tl.sum(f * key_mean[None, :], 1)
        centred = tl.dot(f.to(q.dtype), covariance, input_precision="ieee")
        o = tl.where(z == 0, 0.0, 1.0)[:, None] * value_mean[None, :] + (c + _inverse(z))[:, None] * centred
        _write(Out, rows, last, o, D, WIDTH)


@triton.jit
def backward_queries(
    Q, dO, C, KeyMean, ValueMean, dQ, Matrix, Left, Right, c, queries, chunk, heads, qb, qh, qn, ob, oh, on,
    D: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """dQ of one chunk of queries, and its sums of w f^T dO, dz f and dO: program (chunk, batch * heads)."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    Q, dO = Q + batch * qb + head * qh, dO + batch * ob + head * oh
    dQ += tl.program_id(1).to(tl.int64) * queries * D
    covariance, key_mean, _unused = _state(C, KeyMean, ValueMean, WIDTH)
    matrix = tl.zeros((WIDTH, WIDTH), tl.float32)
    left, right = tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
    first = tl.program_id(0) * chunk
    last = tl.minimum(queries, first + chunk)
    for start in range(first, last, N):
        rows = start + tl.arange(0, N)
        q, inside = _tile(Q, rows, qn, last, D, WIDTH)
        do, _ = _tile(dO, rows, on, last, D, WIDTH)
        f = _features(q, inside)
        z = tl.sum(f * key_mean[None, :], 1)
        over_z = _inverse(z)
        G = tl.dot(do, tl.trans(covariance), input_precision="ieee")
        dz = -tl.sum(f * G, 1) * over_z * over_z
        df = (c + over_z)[:, None] * G + dz[:, None] * key_mean[None, :]
        _write(dQ, rows, last, df * tl.minimum(f, 1.0), D, WIDTH)
        weighted = (c + over_z)[:, None] * f
        matrix = tl.dot(tl.trans(weighted.to(do.dtype)), do, matrix, input_precision="ieee")
        left += tl.sum(dz[:, None] * f, 0)
        right += tl.sum(tl.where(z == 0, 0.0, 1.0)[:, None] * do.to(tl.float32), 0)
    _partial(Matrix, Left, Right, matrix, left, right, WIDTH)


@triton.jit
def backward_keys(
    K, V, KeyMean, ValueMean, dC, dLeft, dRight, dK, dV, keys, chunk, heads, kb, kh, kn, vb, vh, vn,
    D: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """dK and dV of one chunk of keys: program (chunk, batch * heads)."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    K, V = K + batch * kb + head * kh, V + batch * vb + head * vh
    block = tl.program_id(1).to(tl.int64)
    dK, dV = dK + block * keys * D, dV + block * keys * D
    gradient, left, right = _state(dC, dLeft, dRight, WIDTH)
    across = tl.arange(0, WIDTH)
    key_mean, value_mean = tl.load(KeyMean + block * WIDTH + across), tl.load(ValueMean + block * WIDTH + across)
    first = tl.program_id(0) * chunk
    last = tl.minimum(keys, first + chunk)
    for start in range(first, last, N):
        rows = start + tl.arange(0, N)
        k, inside = _tile(K, rows, kn, last, D, WIDTH)
        v, _ = _tile(V, rows, vn, last, D, WIDTH)
        g = _features(k, inside)
        centred = (g - key_mean[None, :]).to(k.dtype)
        shifted = (v.to(tl.float32) - value_mean[None, :]).to(v.dtype)
        dg = tl.dot(shifted, tl.trans(gradient), input_precision="ieee") + left[None, :]
        dv = tl.dot(centred, gradient, input_precision="ieee") + right[None, :]
        _write(dK, rows, last, dg * tl.minimum(g, 1.0), D, WIDTH)
        _write(dV, rows, last, dv, D, WIDTH)

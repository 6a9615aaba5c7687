"""Kernels of sparse-linear attention in Triton: states, forward, backward; `benchmarks.kernels.sla` runs them.

Tiles come and go by descriptors, so that rows beyond the end read as zeros and are not written. All sums are float32;
features, states and weights are rounded to the inputs' dtype before they are multiplied. Source: Zhang et al.,
arXiv:2509.24006, algorithms 1 and 2.
"""

import math

import triton
import triton.language as tl

LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _tile(x, batch, head, row, ROWS: tl.constexpr, D: tl.constexpr):
    """Rows (ROWS, D) of a head; zeros beyond its end."""
    return x.load([batch, head, row, 0]).reshape(ROWS, D)


@triton.jit
def _features(x, FEATURES: tl.constexpr):
    """phi of rows (R, D), float32."""
    x = x.to(tl.float32)
    if FEATURES == "softmax":
        e = tl.exp2((x - tl.max(x, 1)[:, None]) * LOG2_E)
        return e * (1 / tl.sum(e, 1))[:, None]
    if FEATURES == "elu":
        return tl.where(x > 0, x + 1, tl.exp2(tl.minimum(x, 0.0) * LOG2_E))
    return tl.maximum(x, 0.0)


@triton.jit
def _through_features(x, df, FEATURES: tl.constexpr):
    """Gradient of x (R, D) from that of phi(x)."""
    f = _features(x, FEATURES)
    if FEATURES == "softmax":
        return f * (df - tl.sum(f * df, 1)[:, None])
    if FEATURES == "elu":
        return df * tl.minimum(f, 1.0)
    return tl.where(x.to(tl.float32) > 0, df, 0.0)


@triton.jit
def _state(states, at, D: tl.constexpr):
    """Pointers to one state: (D, D), and below it the row (D,) of its norm."""
    first = states + at.to(tl.int64) * (D + 1) * D
    columns = tl.arange(0, D)
    return first + columns[:, None] * D + columns[None, :], first + D * D + columns


@triton.jit
def key_states(
    K, V, states, keys, heads, blocks, D: tl.constexpr, N: tl.constexpr, EACH: tl.constexpr, FEATURES: tl.constexpr
):
    """phi(K_j)^T V_j and phi(K_j)^T 1 over N of EACH blocks of keys: program (group of blocks, batch * heads).

    Over N so that sums of many blocks stay within float16; the quotient of the branch does not see it.
    """
    row = tl.program_id(1)
    for block in tl.range(tl.program_id(0) * EACH, tl.minimum((tl.program_id(0) + 1) * EACH, blocks), num_stages=2):
        k = _tile(K, row // heads, row % heads, block * N, N, D)
        v = _tile(V, row // heads, row % heads, block * N, N, D)
        inside = block * N + tl.arange(0, N) < keys
        f = tl.where(inside[:, None], _features(k, FEATURES), 0.0).to(v.dtype)
        h, z = _state(states, row * blocks + block, D)
        tl.store(h, (tl.dot(tl.trans(f), v) * (1 / N)).to(v.dtype))
        tl.store(z, (tl.sum(f.to(tl.float32), 0) * (1 / N)).to(v.dtype))


@triton.jit
def branch(Q, Ol, H, heads, state_rows, D: tl.constexpr, M: tl.constexpr, FEATURES: tl.constexpr):
    """O^l = phi(Q_i) H_i / (phi(Q_i) Z_i) of one block of queries: program (block, batch * heads)."""
    block, row = tl.program_id(0), tl.program_id(1)
    q = _tile(Q, row // heads, row % heads, block * M, M, D)
    h, z = _state(H, row * state_rows + block % state_rows, D)
    h = tl.load(h)
    f = _features(q, FEATURES).to(q.dtype)
    total = tl.sum(f.to(tl.float32) * tl.load(z).to(tl.float32)[None, :], 1)
    o = tl.dot(f, h) * (1 / tl.where(total > 0, total, 1.0))[:, None]
    Ol.store([row // heads, row % heads, block * M, 0], o.to(q.dtype).reshape(1, 1, M, D))


@triton.jit
def forward(
    Q, K, V, Os, Lse, lists, counts, scale, queries, keys, heads, key_blocks, D: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, RAGGED: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """O^s of one block of queries: program (block, batch * heads), so that a head's keys stay in L2."""
    block, row = tl.program_id(0), tl.program_id(1)
    batch, head, at = row // heads, row % heads, row * tl.num_programs(0) + block
    q = _tile(Q, batch, head, block * M, M, D)
    top, norm, o = tl.full((M,), float("-inf"), tl.float32), tl.zeros((M,), tl.float32), tl.zeros((M, D), tl.float32)
    entry = lists + at * key_blocks
    for n in tl.range(tl.load(counts + at), num_stages=STAGES):
        start = tl.load(entry + n) * N
        k = _tile(K, batch, head, start, N, D)
        v = _tile(V, batch, head, start, N, D)
        s = tl.dot(q, tl.trans(k))
        if RAGGED:
            s = tl.where((start + tl.arange(0, N) < keys)[None, :], s, float("-inf"))
        higher = tl.maximum(top, tl.max(s, 1) * (scale * LOG2_E))
        p = tl.exp2(s * (scale * LOG2_E) - higher[:, None])
        shrink = tl.exp2(top - higher)
        norm = norm * shrink + tl.sum(p, 1)
        o = tl.dot(p.to(v.dtype), v, o * shrink[:, None])
        top = higher
    norm = tl.where(norm > 0, norm, 1.0)  # a row without critical blocks: 0 / 1
    o = o * (1 / norm)[:, None]
    Os.store([batch, head, block * M, 0], o.to(q.dtype).reshape(1, 1, M, D))
    rows = block * M + tl.arange(0, M)
    tl.store(Lse + row * queries + rows, top + tl.log2(norm), mask=rows < queries)


@triton.jit
def backward_queries(
    Q, K, V, Os, dOs, Ol, dOl, dQ, Lse, Delta, H, dH, lists, counts, scale, queries, heads, key_blocks,
    state_rows, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, LINEAR: tl.constexpr, FEATURES: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """dQ, rowsum(dOs Os) and dH_i with dZ_i of one block of queries: program (block, batch * heads).

    Keys beyond the end are zeros, so that what their dS is does not matter to dS K. H is over N, as `key_states` leaves
    it, hence dH times N.
    """
    block, row = tl.program_id(0), tl.program_id(1)
    batch, head, at = row // heads, row % heads, row * tl.num_programs(0) + block
    rows = block * M + tl.arange(0, M)
    q = _tile(Q, batch, head, block * M, M, D)
    dq = tl.zeros((M, D), tl.float32)
    if LINEAR:
        h, z = _state(H, row * state_rows + block % state_rows, D)
        z = tl.load(z).to(tl.float32)[None, :]
        dh, dz = _state(dH, at, D)
        f = _features(q, FEATURES).to(q.dtype)
        total = tl.sum(f.to(tl.float32) * z, 1)
        each = 1 / tl.where(total > 0, total, 1.0)  # 0 only where H and Z are
        o, do = _tile(Ol, batch, head, block * M, M, D), _tile(dOl, batch, head, block * M, M, D)
        slope = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1) * each
        given = (do.to(tl.float32) * each[:, None]).to(q.dtype)
        tl.store(dh, tl.dot(tl.trans(f), given).to(q.dtype))
        tl.store(dz, (-tl.sum(f.to(tl.float32) * slope[:, None], 0)).to(q.dtype))
        dq = _through_features(q, tl.dot(given, tl.trans(tl.load(h))) - slope[:, None] * z, FEATURES) * (1 / scale)
    o, do = _tile(Os, batch, head, block * M, M, D), _tile(dOs, batch, head, block * M, M, D)
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    tl.store(Delta + row * queries + rows, delta, mask=rows < queries)
    lse = tl.load(Lse + row * queries + rows, mask=rows < queries, other=0.0)
    entry = lists + at * key_blocks
    for n in tl.range(tl.load(counts + at), num_stages=STAGES):
        start = tl.load(entry + n) * N
        k = _tile(K, batch, head, start, N, D)
        v = _tile(V, batch, head, start, N, D)
        p = tl.exp2(tl.dot(q, tl.trans(k)) * (scale * LOG2_E) - lse[:, None])
        dS = p * (tl.dot(do, tl.trans(v)) - delta[:, None])
        dq = tl.dot(dS.to(k.dtype), k, dq)
    dQ.store([batch, head, block * M, 0], (dq * scale).to(q.dtype).reshape(1, 1, M, D))


@triton.jit
def backward_keys(
    Q, K, V, dOs, dK, dV, Lse, Delta, G, lists, counts, scale, queries, heads, query_blocks, state_rows,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, STEP: tl.constexpr, LINEAR: tl.constexpr,
    FEATURES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dK and dV of one block of keys, STEP queries at a time: program (block, batch * heads)."""
    block, row = tl.program_id(0), tl.program_id(1)
    batch, head, at = row // heads, row % heads, row * tl.num_programs(0) + block
    k, v = _tile(K, batch, head, block * N, N, D), _tile(V, batch, head, block * N, N, D)
    dk, dv = tl.zeros((N, D), tl.float32), tl.zeros((N, D), tl.float32)
    if LINEAR:  # before the loop: after it, the compiler would no longer overlap the loop's products
        G_j, g_j = _state(G, row * state_rows + block % state_rows, D)
        G_j = tl.load(G_j)
        dv = tl.dot(_features(k, FEATURES).to(G_j.dtype), G_j) * (1 / N)
        df = tl.dot(v, tl.trans(G_j)) + tl.load(g_j).to(tl.float32)[None, :]
        dk = _through_features(k, df, FEATURES) * (1 / (N * scale))
    entry = lists + at * query_blocks
    for n in tl.range(tl.load(counts + at) * (M // STEP), num_stages=STAGES):
        start = tl.load(entry + n // (M // STEP)) * M + n % (M // STEP) * STEP
        rows = start + tl.arange(0, STEP)
        q, do = _tile(Q, batch, head, start, STEP, D), _tile(dOs, batch, head, start, STEP, D)
        lse = tl.load(Lse + row * queries + rows, mask=rows < queries, other=float("inf"))
        delta = tl.load(Delta + row * queries + rows, mask=rows < queries, other=0.0)
        p = tl.exp2(tl.dot(k, tl.trans(q)) * (scale * LOG2_E) - lse[None, :])
        dv = tl.dot(p.to(do.dtype), do, dv)
        dS = p * (tl.dot(v, tl.trans(do)) - delta[None, :])
        dk = tl.dot(dS.to(q.dtype), q, dk)
    dK.store([batch, head, block * N, 0], (dk * scale).to(k.dtype).reshape(1, 1, N, D))
    dV.store([batch, head, block * N, 0], dv.to(k.dtype).reshape(1, 1, N, D))

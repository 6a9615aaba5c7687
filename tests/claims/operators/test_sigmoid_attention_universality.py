"""Transformers with sigmoid attention are universal approximators, by construction (Ramapuram et al., 2024, sec. 3.1).

What the paper says. Theorem 3.1: every continuous permutation-equivariant function of n tokens with compact support is
approximated in L_p by transformers whose attention is sigmoid, with four heads of dimension 1. Its proof follows Yun et
al. (2020): quantise, tell all tokens of all sequences apart by a *contextual mapping*, look values up.

Notation. A token becomes an integer l below the number of bins, K^d for a grid of K; `gain` is the factor c of a
selective shift, which adds c times the sum of all tokens above a bin to the tokens in the bin.

Scope. The construction and its proof are ours. Staircase and table, the parts of feed-forward layers, are given.
"""

from itertools import combinations

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.sigmoid_universality import (
    add_sum,
    approximation_error,
    decode,
    four_heads,
    four_heads_bound,
    ids_in_order,
    network_ids,
    next_id,
    selective_shift,
    spread,
    sweep,
)

PAPER = "ramapuram2024theory"
EPS = np.finfo(float).eps

shift = Claim(
    paper=PAPER,
    slug="selective-shift",
    where="Section 3.1, Appendix C",
    says="Four sigmoid heads of dimension 1, with affine queries and keys, come as close as one likes to the selective "
    "shift: a token in the bin gets the sum of the tokens above the bin, any other token 0.",
    formula=r"\Bigl| \sum_{h=1}^4 w_h \mathrm{SigmoidAttn}_h(x)_i"
    r" - 1[b < x_i < b'] \sum_{k : x_k > b'} x_k \Bigr| \le \bigl( e^{-t m^2} + e^{-t m} \bigr) e^{|b_n|} \sum_k |x_k|",
    gap="That fewer heads cannot do it is not shown; two of these four do not.",
)


@shift.check(
    "property",
    controls={
        "the first two heads alone": {"used": 2},
        "the last two left out, the others doubled": {"used": 2, "weight": 2.0},
        "three heads": {"used": 3},
    },
)
@given(
    tokens=st.lists(st.integers(-20, 20), min_size=1, max_size=6),
    place=st.integers(-10, 10),
    temperature=st.integers(4, 400),
    offset=st.sampled_from([0.0, -1.0, -5.0]),
)
def test_four_heads_carry_out_the_shift(evidence, tokens, place, temperature, offset, *, used=4, weight=1.0):
    """Integer tokens, half-integer ends of the bin (margin 1/2), temperatures 4 to 400; the offset b stays as it is."""
    x, ends = np.array(tokens, dtype=float), (place - 0.5, place + 0.5)
    output = weight * four_heads(x, *ends, temperature=temperature, offset=offset, used=used)
    bound = four_heads_bound(x, *ends, temperature=temperature, offset=offset)
    rounding = 16 * EPS * abs(x).sum() * (1 + len(x))
    evidence.expect("error", abs(output - selective_shift(x, *ends)), at_most=bound + rounding)


def with_own_bin(token, remaining, done, gain):
    """The id if the shift also summed the tokens of its own bin."""
    return token + gain * (token + remaining + done)


def without_earlier(token, remaining, done, gain):
    """The id if tokens that were shifted before no longer counted."""
    return token + gain * remaining


mapping = Claim(
    paper=PAPER,
    slug="contextual-mapping",
    where="Appendix C.2.4",
    says="Selective shifts through all bins, with a gain of at least the number of bins, and then a head that adds the "
    "sum of all tokens, give different ids to all tokens of all sequences of n distinct tokens, for every n.",
    formula=r"S_k = (1 + c) S_{k-1} + l_k + c R_k \equiv l_k - R_k \pmod{c + 1}, \qquad"
    r" \mathrm{id}_{k+1} - \mathrm{id}_k = l_{k+1} - l_k + c \, (\mathrm{id}_k - l_{k+1})",
    gap="Equal tokens are excluded. That the sweep follows the recursion is checked exhaustively and at random, not by "
    "symbols.",
)


@mapping.check(
    "proof",
    controls={
        "the shift counts its own bin": {"rule": with_own_bin},
        "shifted tokens no longer count": {"rule": without_earlier},
    },
)
def test_the_sum_of_ids_determines_the_tokens(evidence, *, rule=next_id):
    """Induction step for every n: S_k + R_k - l_k is a multiple of c + 1, so S_k says l_k < c + 1, then S_(k-1).

    S_(k-1) and R_k are symbols; then the same, unrolled, for whole sequences of up to six tokens. The second identity
    makes the ids of a sequence grow, and all ids exceed the bins to come: id_1 >= c l_2 >= c.
    """
    import sympy

    token, later, remaining, done, c = sympy.symbols("l_k l_k1 R S c", positive=True)
    first = rule(token, later + remaining, done, c)
    second = rule(later, remaining, done + first, c)
    congruence = sympy.rem(sympy.expand(done + first + later + remaining - token), c + 1, c)
    evidence.true("S_k + R_k - l_k is a multiple of c + 1", congruence == 0)
    growth = sympy.expand(second - first - (later - token) - c * (first - later))
    evidence.true("the difference of neighbouring ids is as stated", growth == 0)
    for n in range(1, 7):
        tokens = sympy.symbols(f"l1:{n + 1}")
        ids = ids_in_order(tokens, c, rule)
        parts = [sum(ids[: k + 1]) + sum(tokens[k + 1 :]) - tokens[k] for k in range(n)]
        left = sum(sympy.rem(sympy.Poly(sympy.expand(p), c), sympy.Poly(c + 1, c)) != 0 for p in parts)
        evidence.expect("congruences that fail, up to six tokens", left, equals=0, error=0)


def ids_of_all(sets, bins, gain, mix):
    ids = sweep(sets, bins, gain)
    return ids, add_sum(ids, spread(ids)) if mix else ids


@mapping.check(
    "exact",
    scope="exhaustive for (n, bins) = (2, 16), (3, 12), (4, 10), (5, 9)",
    controls={
        "gain 1": {"gain": lambda bins: 1},
        "gain of one less than the bins": {"gain": lambda bins: bins - 1},
        "no sum of all tokens": {"mix": False},
    },
)
def test_all_ids_differ(evidence, *, gain=lambda bins: bins, mix=True):
    """Every set of distinct tokens, in exact integers: all ids differ, the recursion holds, and sets decode."""
    for n, bins in ((2, 16), (3, 12), (4, 10), (5, 9)):
        sets = np.array(list(combinations(range(bins), n)), dtype=object)
        ids, mixed = ids_of_all(sets, bins, gain(bins), mix)
        if len(set(mixed.ravel())) < mixed.size:
            evidence.counterexample("Ids coincide", n=n, bins=bins)
        evidence.expect("ids that coincide", mixed.size - len(set(mixed.ravel())), equals=0, error=0)
        recursion = [ids_in_order(list(tokens), gain(bins)) for tokens in sets]
        evidence.expect("ids off the recursion", np.count_nonzero(ids != np.array(recursion)), equals=0, error=0)
        wrong = sum(decode(sum(row), n, gain(bins)) != list(tokens) for row, tokens in zip(ids, sets, strict=True))
        evidence.expect("sets that do not decode", wrong, equals=0, error=0)


@mapping.check(
    "property",
    scope="up to 12 of 40 bins",
    controls={"half the gain": {"gain": 20}, "gain 1": {"gain": 1}},
)
@given(tokens=st.sets(st.integers(0, 39), min_size=1, max_size=12))
def test_long_sequences_decode(evidence, tokens, *, gain=40):
    """Exact integers of up to 65 bits: the sum of the ids decodes to the tokens."""
    ordered = sorted(tokens)
    ids = sweep(np.array(ordered, dtype=object), 40, gain)
    evidence.true("the tokens come back", decode(sum(ids), len(ordered), gain) == ordered)


@mapping.check(
    "exact",
    scope="the network of sigmoid heads",
    controls={"temperature 8": {"temperature": 8.0}, "gain 1": {"gain": 1}},
)
def test_the_heads_compute_these_ids(evidence, *, temperature=400.0, gain=None):
    """All pairs of 32 bins, all triples of 12: float64 heads at temperature 400, b = -ln n, against integers."""
    for n, bins in ((2, 32), (3, 12)):
        sets = np.array(list(combinations(range(bins), n)))
        _, mixed = ids_of_all(sets.astype(object), bins, bins, True)
        found = network_ids(sets, bins, temperature=temperature, gain=gain)
        evidence.expect("ids that differ", np.count_nonzero(found != mixed), equals=0, error=0)


universal = Claim(
    paper=PAPER,
    slug="universality",
    where="Theorem 3.1",
    says="For every continuous permutation-equivariant function of n tokens on a compact set and every accuracy there "
    "is a transformer with sigmoid attention, of four heads of dimension 1, that is as close in L_2.",
    formula=r"\forall f, \epsilon \; \exists g : \; \|f - g\|_{L_2} \le \epsilon",
    gap="The construction is run for one function, with n = 2 and 3 tokens in one and two dimensions; with the "
    "claims selective-shift and contextual-mapping it works for any. Feed-forward layers are a staircase and a table.",
)


def wave(X):
    """f(X)_i = sin 3 x_i + x_i cos(4 sum of X), coordinate by coordinate: (..., n, d) to the same."""
    return np.sin(3 * X) + X * np.cos(4 * X.sum(axis=-2, keepdims=True))


@universal.check(
    "exact",
    scope="one function, n = 2 and 3, d = 1 and 2",
    controls={
        "gain 1": {"ids": lambda tokens, bins: network_ids(tokens, bins, gain=1)},
        "no attention: a token's own bin": {"ids": lambda tokens, bins: tokens},
    },
)
def test_the_error_halves_with_the_grid(evidence, *, ids=network_ids):
    """L_2 error outside cells with equal tokens: below its Lipschitz bound, and halved when K doubles.

    Lipschitz: a point is at most sqrt(n d) / (2 K) from the middle of its cell, and |f'| <= 4 + 4 n (row and column
    sums: 3 + 1 on the diagonal, and 4 for each token). Halving is told from standing still at
    three quarters. Cells with equal tokens, where the network may say 0, shrink as 1 / K: there the error is of order
    K^(-1/2).
    """
    curves = {}
    for n, d, grids in ((2, 1, (8, 16, 32, 64)), (3, 1, (4, 8, 16)), (2, 2, (2, 4, 8))):
        errors = np.array([approximation_error(wave, n, d, K, ids) for K in grids])
        curves[n, d] = grids, errors
        lipschitz = (4 + 4 * n) * np.sqrt(n * d) / (2 * np.array(grids))
        evidence.expect("error over its Lipschitz bound", errors[:, 0] / lipschitz, at_most=1)
        evidence.expect("error over that of half the grid, last two", errors[-1, 0] / errors[-2, 0], at_most=0.75)
        evidence.expect("whole cube: error over that of half the grid", errors[-1, 1] / errors[-2, 1], less_than=1)
    evidence.figure("L2 error against the grid", error_figure(curves), "Dashed: cells with equal tokens included.")


def error_figure(curves):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for i, ((n, d), (grids, errors)) in enumerate(curves.items()):
        axes.loglog(grids, errors[:, 0], "o-", color=f"C{i}", label=f"n = {n}, d = {d}")
        axes.loglog(grids, errors[:, 1], "o--", color=f"C{i}", alpha=0.5)
    axes.set_xlabel("grid K")
    axes.set_ylabel("L2 error")
    axes.legend(frameon=False)
    return figure

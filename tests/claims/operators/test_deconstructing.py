"""Attention taken apart: the polynomial form of the weights, and caches (Xue, Moosavi, Aletras, 2025).

What the paper says. Standard attention is replaced, in all layers or in every other one, by layers that lack one of its
properties. *Approximate* replaces exp(s) by its Taylor polynomial 1 + s + s^2/2 (Equation 6) and runs as a recurrence
(Equations 14-17). Table 8 says what each variant must cache while it decodes.

Notation. One head of width d, their d_h; the cache has their width d, h heads, batch B and length L. phi is the feature
map, T the polynomial.

Scope. Identities and counts, one head. Of the same paper: test_deconstructing_per_key.py has Non-approximate,
test_deconstructing_streams.py layers that read queries and keys elsewhere, test_deconstructing_mixing.py models that do
not mix, test_deconstructing_table.py Table 1's arithmetic, test_deconstructing_trained.py trained models.
"""

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import taylor
from theory.operators.deconstructing import (
    CACHE,
    cache_bytes,
    elementwise_order,
    kernel_rank,
    per_key_recurrence,
    second_order,
    separate_sums,
    taylor_recurrence,
)
from theory.operators.positions import causal

PAPER = "xue2025deconstructing"
EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)

# -- Approximate ------------------------------------------------------------------------------------------------------

recurrence = Claim(
    paper=PAPER,
    slug="taylor-recurrence",
    where="Equations 6 and 14-17",
    says="Causal attention with weights proportional to T(s) = 1 + s + s^2/2 is a recurrence with a state of constant "
    "size, and its weights are positive.",
    formula=r"T(q^\top k) = \varphi(q)^\top \varphi(k), \quad T(s) = \tfrac{1}{2}(s + 1)^2 + \tfrac{1}{2}",
    gap="Equations 14-17 were read from a text extracted from the PDF, in which three sums are normalised one by one; "
    "whether the paper prints that is not settled here. The control shows that it would be another operator.",
)


@recurrence.check("proof", controls={"squares without cross terms": {"features": elementwise_order}})
def test_the_state_yields_the_polynomials_sums_identically(evidence, *, features=second_order):
    """Polynomial identities in queries, keys and values over Q(sqrt 2), heads of width 1 to 3, three tokens.

    For any width: (q.k)^2 is the sum of q_a k_a q_b k_b over pairs, which is what the features of degree two list.
    """
    from sympy import QQ, sqrt
    from sympy.polys.rings import ring

    field = QQ.algebraic_field(sqrt(2))
    for d in (1, 2, 3):
        names = [f"{letter}{i}{a}" for letter in "qk" for i in range(3) for a in range(d)]
        space, *generators = ring([*names, "v0", "v1", "v2"], field)
        q, k = np.array(generators[:-3], object).reshape(2, 3, d)
        v = np.array(generators[-3:], object)[:, None]
        root = field.from_sympy(sqrt(2))
        found, norm = taylor_recurrence(q, k, v, features=lambda x, root=root: features(x, root))
        s = q @ k.T
        T = 1 + s + s**2 / 2
        evidence.expect("terms by which T is no sum of squares", positive_part(T, s), equals=0, error=0)
        for i in range(3):
            off = [found[i, 0] - (T[i, : i + 1] @ v[: i + 1])[0], norm[i, 0] - T[i, : i + 1].sum()]
            evidence.expect("terms by which the state is off", sum(len(space(p)) for p in off), equals=0, error=0)


def positive_part(T, s):
    """Terms of T - ((s + 1)^2 + 1) / 2, over all entries: none, so that T is at least 1/2."""
    return sum(len(p) for p in (T - ((s + 1) ** 2 + 1) / 2).ravel())


@recurrence.check(
    "property",
    scope="against the masked operator in float64",
    controls={
        "squares without cross terms": {"run": lambda q, k, v: taylor_recurrence(q, k, v, features=elementwise_order)},
        "three sums, each over its own norm": {"run": separate_sums},
    },
)
@given(size=st.tuples(st.integers(1, 12), st.integers(2, 5)), magnitude=st.integers(-2, 2), seed=seeds)
def test_the_recurrence_is_the_masked_operator(evidence, size, magnitude, seed, *, run=taylor_recurrence):
    """Queries and keys of any size; both forms divide sums of n positive terms, each of d^2 products."""
    n, d = size
    q, k, v = np.random.default_rng(seed).standard_normal((3, n, d)) * np.array([10.0**magnitude, 1, 1])[:, None, None]
    numerators, denominators = run(q / d**0.25, k / d**0.25, v)
    # T >= 1/2 is a sum of terms as large as (1 + |s|)^2, so that a weight loses this factor against its rounding.
    s = abs(q) @ abs(k).T / np.sqrt(d)
    budget = 8 * (n + d * d) * EPS * 2 * (1 + s.max()) ** 2 * abs(v).max()
    off = numerators / denominators - taylor(q, k, mask=causal(n)) @ v
    evidence.expect("distance between the two forms, in roundings", abs(off).max() / budget, at_most=1)


taylor_cache = Claim(
    paper=PAPER,
    slug="taylor-cache-size",
    where="Table 8, Equation 6",
    says="A layer of Approximate caches 6 B d + 4 B d^2 / h bytes while it decodes.",
    formula=r"6 B d + \frac{4 B d^2}{h}",
    repair="A layer of Approximate keeps (d_h + 1)(d_h + 2)/2 features per head, and their products with the values.",
    gap="For states that are sums over tokens of features of the key; the entry of Table 8 as our catalogue has it.",
)


@taylor_cache.refutation("exact", controls={"heads of width one": {"width": 1}})
def test_the_printed_bytes_pay_for_fewer_features_than_the_polynomial_has(evidence, rng, *, width=2):
    """Heads of width 2: the printed size holds the five features 1, k_a and k_a^2; T has rank six."""
    printed = CACHE["Approximate"](1, 1, width, 1)
    evidence.expect(
        "printed bytes less those of (1, k, k o k)", printed - cache_bytes("elementwise squares", 1, 1, width, 1),
        equals=0, error=0,
    )  # fmt: skip
    rank = kernel_rank(rng("points").integers(-9, 10, (12, width)))
    evidence.expect("rank of T above the features paid for", rank - (2 * width + 1), at_least=1)
    evidence.counterexample(
        "One head of width 2",
        rank=rank,
        paid_for=2 * width + 1,
        printed_bytes=printed,
        needed_bytes=cache_bytes("Approximate", 1, 1, width, 1),
    )
    evidence.note(
        f"At the paper's width 896, 14 heads, the exact state has {cache_bytes('Approximate', 1, 1, 896, 14):,} bytes "
        f"a layer, the printed one {CACHE['Approximate'](1, 1, 896, 14):,}."
    )


@taylor_cache.check("exact", controls={"squares without cross terms": {"features": elementwise_order}})
def test_a_state_of_the_polynomials_rank_is_enough_and_necessary(evidence, rng, *, features=second_order):
    """Widths 1 to 6: the feature map has (d + 1)(d + 2)/2 entries, which is T's rank at integer points, exactly."""
    for d in range(1, 7):
        count = (d + 1) * (d + 2) // 2
        rank = kernel_rank(rng("points", d).integers(-9, 10, (count + 3, d)))
        evidence.expect("features less the rank of T", features(np.ones((1, d))).shape[1] - rank, equals=0, error=0)
        evidence.expect("rank less (d + 1)(d + 2)/2", rank - count, equals=0, error=0)


cache = Claim(
    paper=PAPER,
    slug="cache-sizes",
    where="Table 8",
    says="While it decodes, a layer caches 4 B L d bytes (standard), 2 B d + 4 B h (Non-approximate), none (MLP) and "
    "2 (B + 1) L d (RndEmbQK, FixedSeqQK): only the first and the last grow with the length.",
    formula=r"4 B L d, \quad 2 B d + 4 B h, \quad 0, \quad 2 (B + 1) L d",
    gap="2 bytes a number, 4 a denominator, and no queries for the fixed maps, as printed.",
)


@cache.check(
    "exact",
    controls={
        "denominators in two bytes": {"counted": lambda v, B, L, d, h: cache_bytes(v, B, L, d, h) - 2 * B * h},
        "fixed keys kept once per sequence": {
            "counted": lambda v, B, L, d, h: cache_bytes("standard" if "Rnd" in v else v, B, L, d, h)
        },
    },
)
@given(B=st.integers(1, 9), L=st.integers(1, 4096), d=st.integers(1, 64), h=st.integers(1, 16))
def test_the_printed_sizes_are_those_of_the_arrays(evidence, B, L, d, h, *, counted=cache_bytes):
    """The arrays that keys, values or our recurrences hold are counted; d is the width of a head here."""
    for variant in ("standard", "Non-approximate", "MLP", "RndEmbQK, FixedSeqQK"):
        printed = CACHE[variant](B, L, d * h, h)
        evidence.expect("counted less printed", counted(variant, B, L, d * h, h) - printed, equals=0, error=0)


class Counted:
    """1, counting the products, quotients and powers it takes part in."""

    taken = 0

    def __mul__(self, other):
        Counted.taken += 1
        return self

    def __add__(self, other):
        return self

    __rmul__ = __pow__ = __truediv__ = __mul__
    __radd__ = __add__


def products(run, n, d=3):
    """How many of them `run` takes for n tokens and one head of width d."""
    Counted.taken = 0
    run(*np.full((3, n, d), Counted(), object))
    return Counted.taken


def all_pairs(q, k, v):
    """The numerators by the matrix of all weights."""
    s = q @ k.T
    return (s + s**2) @ v


operations = Claim(
    paper=PAPER,
    slug="operation-counts",
    where="Sections 3.2 and 3.3, Tables 5 to 7",
    says="Non-approximate and Approximate take the same number of operations for each token, and all variants as many "
    "as Tables 5 to 7 print for training, reading a prompt and decoding.",
    formula=r"\mathrm{FLOP}_v(B, L, d, h)",
    gap="The printed counts are not compared. What is kept while decoding, Table 8, is in cache-sizes and "
    "taylor-cache-size.",
)


@operations.check("exact", controls={"the matrix of all weights": {"forms": (all_pairs,)}})
def test_recurrences_take_the_same_for_each_token_and_the_tables_are_out_of_reach(
    evidence, *, forms=(taylor_recurrence, lambda q, k, v: per_key_recurrence(q[:, 0], v))
):
    """Products counted on our recurrences: twice as many tokens, twice as many; then undecided."""
    for form in forms:
        excess = products(form, 8) - 2 * products(form, 4)
        evidence.expect("products of 8 tokens less twice those of 4", excess, equals=0, error=0)
    evidence.inconclusive(needs="the entries of Tables 5 to 7, which our catalogue does not have")

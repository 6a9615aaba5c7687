"""What random-feature attention can express, and at what norm (Fu, Guo, Bai, Mei 2023).

What the paper says. With enough heads the layer approximates every average over keys of a power series in query and
key; B(f) measures how hard f is (Theorem 1, Section 3). All this is from memory: the abstract was at hand,
the body not.

Notation. f = (1/N) sum_i sum_rs <f_rs, x_0^(r) x x_i^(s)>; C_k = max(1, k^4.5 4^k) and B(f) = sum_k C_k sum |f_rs|_F^2
over max(r, s - 1) = k; |f|_H is the norm of the infinite-head kernel.

Scope. Norms, by algebra; the example classes are in test_random_features_examples.py.
"""

import math
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators import random_features_norms as norms
from theory.operators.random_features import kappa

PAPER = "fu2023single"
EPS = np.finfo(float).eps

# -- Theorem 1: what is expressed -------------------------------------------------------------------------------------

expressed = Claim(
    paper=PAPER,
    slug="every-power-series-is-expressed",
    where="Theorem 1 and abstract: a broad class of targets that are invariant to the keys' order",
    says="Every average over keys of a polynomial in query and key lies in the RKHS of infinitely many heads: each "
    "monomial has a positive coefficient in the kernel.",
    formula=r"c_{rs} = \sum_{k \ge \max(r, s-1)} \frac{\kappa_k}{4^k} \binom{k}{r} \binom{k+1}{s} > 0",
    gap="Membership in the RKHS, so approximation by finitely many heads at a rate; targets with infinite B are not "
    "covered.",
)


@expressed.check(
    "proof",
    scope="coefficients of kappa",
    controls={
        "one factor 2j - 1 left out": {"even": lambda j: norms.kappa_even(j) * (2 * j - 1)},
        "arc-cosine kernel of order zero": {"even": lambda j: norms.kappa_even(j) * (2 * j - 1) ** 2 / (2 * j + 1)},
    },
)
def test_the_coefficients_solve_the_differential_equation_of_kappa(evidence, *, even=norms.kappa_even):
    """kappa'' = 1 / (2 pi sqrt(1 - rho^2)), symbolically; its series has no odd powers, nor has kappa beyond rho/4.

    The recurrence (2j + 2)(2j + 1) kappa_2j+2 = binom(2j, j) / (2 pi 4^j) settles all even ones; the first 40 exactly.
    """
    import sympy

    rho = sympy.Symbol("rho")
    closed = (sympy.sqrt(1 - rho**2) + rho * (sympy.pi - sympy.acos(rho))) / (2 * sympy.pi)
    ode = sympy.simplify(sympy.diff(closed, rho, 2) - 1 / (2 * sympy.pi * sympy.sqrt(1 - rho**2)))
    evidence.expect("kappa'' minus its closed form is not zero", int(ode != 0), equals=0, error=0)
    start = [2 * sympy.pi * closed.subs(rho, 0) - even(0), sympy.diff(closed, rho).subs(rho, 0) - sympy.Rational(1, 4)]
    evidence.expect("kappa_0 and kappa_1 are off", sum(sympy.simplify(one) != 0 for one in start), equals=0, error=0)
    j = sympy.Symbol("j", integer=True, nonnegative=True)
    binomial = sympy.binomial(2 * j, j)
    ratio = (2 * j + 2) * (2 * j + 1) * sympy.binomial(2 * j + 2, j + 1) / (4 ** (j + 1) * (2 * j + 1) ** 2)
    step = sympy.simplify(sympy.gammasimp((ratio - binomial / 4**j).rewrite(sympy.gamma)))
    evidence.expect("recurrence with symbolic j is not met", int(step != 0), equals=0, error=0)
    for i in range(40):
        central = Fraction(math.comb(2 * i, i), 4**i)
        evidence.expect("recurrence", (2 * i + 2) * (2 * i + 1) * even(i + 1) - central, equals=0, error=0)


def without_the_one(r, s, terms):
    """The same series for tokens without the appended 1: one term, present only for s = r + 1."""
    return (Fraction(0), norms.kappa_even(r // 2) if s == r + 1 and r % 2 == 0 else Fraction(0))


@expressed.check("exact", controls={"tokens without the appended 1": {"parts": without_the_one}})
def test_every_monomial_has_a_positive_coefficient(evidence, *, parts=norms.coefficient_parts):
    """Rational lower bounds of c_rs for r, s <= 40; beyond, the term of an even k >= max(r, s - 1) is positive."""
    for r in range(41):
        for s in range(41):
            evidence.true("c_rs > 0", sum(parts(r, s, 2)) > 0)


def with_odd_powers(k):
    """The series if kappa had a cubic term like its even neighbours."""
    return norms.kappa_coefficient(k) if k < 3 or k % 2 == 0 else norms.kappa_coefficient(k + 1)


@expressed.check(
    "exact",
    scope="expansion of the kernel",
    controls={"a positive cubic coefficient": {"series": with_odd_powers}},
)
@given(a=st.integers(-100, 100), b=st.integers(-100, 100))
def test_the_coefficients_add_up_to_the_kernel(evidence, a, b, *, series=norms.kappa_coefficient):
    """(1 + b) kappa((1 + a)(1 + b) / 4) against its series at hundredths from -1 to 1, the remainder included."""
    a, b = a / 100, b / 100
    rho = (1 + a) * (1 + b) / 4
    terms = 400
    total = (1 + b) * sum(series(k) * rho**k for k in range(terms))
    # What is left out: kappa_k <= k^-2.5 / (pi sqrt(pi / 2)) for even k, summed over even k >= terms.
    remainder = 2 * abs(rho) ** terms * (terms - 2) ** -1.5 / 3
    closed = float((1 + b) * kappa(np.float64(rho)))
    evidence.expect("kernel minus series", closed - total, within=(-64 * EPS, remainder + 64 * EPS))


# -- Section 3: the complexity B --------------------------------------------------------------------------------------

complexity = Claim(
    paper=PAPER,
    slug="norm-below-complexity",
    where="Section 3 and Theorem 1 (the constant is ours)",
    says="The squared norm of a target is at most 4.42 times the paper's complexity B, whatever the target.",
    formula=r"\|f\|_{\mathcal{H}}^2 \le \sum_{r,s} \frac{\|f_{rs}\|_F^2}{c_{rs}} \le 4.42\, B(f)",
    gap="The definition of B is from memory. B is far from tight: at degree 20 it exceeds the norm by a factor 10^12.",
)

WEIGHTS = {
    "constant 1": {"constant": Fraction(1)},
    "constant 4.41": {"constant": Fraction(441, 100)},
}


@complexity.check(
    "certified",
    controls=WEIGHTS
    | {"weights without the factor 4^k": {"weight": lambda k: norms.class_weight(k) / 4**k if k else Fraction(1)}},
)
def test_each_coefficient_is_covered_up_to_degree_sixty(
    evidence, *, constant=norms.NORM_CONSTANT, weight=norms.class_weight
):
    """Arb: 1 / c_rs from the first terms of its series, against 4.42 C_k, for all k = max(r, s - 1) <= 60."""
    from flint import arb, fmpq

    largest = []
    for r in range(61):
        for s in range(62):
            k = weight(max(r, s - 1, 0))
            ratio = norms.inverse_ball(r, s) / arb(fmpq(k.numerator, k.denominator))
            evidence.expect("1 / (c_rs C_k)", float(ratio.upper()), at_most=float(constant))
            largest.append((float(ratio.upper()), r, s))
    evidence.note("Largest ratios (r, s): " + ", ".join(f"{x:.3f} ({r}, {s})" for x, r, s in sorted(largest)[-3:]))
    loose = 1 / norms.coefficient(20, 21) / float(norms.class_weight(20))
    evidence.note(f"At (20, 21) the ratio is {loose:.0e}: B is exponentially loose there.")
    least = float((1 / (norms.inverse_ball(0, 0, 200) / float(norms.class_weight(0)))).lower())
    evidence.expect("ratio at (0, 0), where it is largest", 1 / least, within=(4.41, float(constant)))


@complexity.check("proof", scope="degrees from 5", controls={"constant 1": {"constant": Fraction(1)}})
def test_the_tail_follows_from_one_term_of_the_series(evidence, *, constant=norms.NORM_CONSTANT):
    """Three polynomial inequalities whose coefficients, expanded at k = 5 + t, are all positive."""
    for name, polynomial in norms.tail_polynomials(constant).items():
        negative = sum(bool(coefficient <= 0) for coefficient in polynomial.all_coeffs())
        evidence.expect(f"{name}: coefficients that are not positive", negative, equals=0, error=0)

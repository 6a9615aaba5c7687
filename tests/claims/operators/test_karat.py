"""Attention with a learnable operator in place of softmax: Kolmogorov-Arnold attention (Maity et al., 2025).

What the paper says. Each row of attention scores goes through a layer of learnable one-dimensional functions, of any
basis, instead of softmax; because N x N of them per head are too many, a modular version has r x N of them and a matrix
W that brings the r values back to N (Fourier-KArAt, r = 12). This file has the operator itself: what it is, and what it
cannot do. test_karat_rank.py has its rank, test_karat_weights.py the values of its weights, test_karat_counts.py and
test_karat_tables.py the paper's tables, test_karat_cost.py memory and time, test_karat_trained.py what training on
digits shows.

Notation. N tokens, r hidden units, G frequencies; a row of scores is a; phi_pq(t) = sum_g a_pqg cos(gt) + b_pqg sin(gt)
with base function 0 (the paper's best); W is N x r (the page also prints r x N).

Scope. One head. The paper's body was not at hand: definitions are those of its project page.
"""

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import kolmogorov_arnold, softmax_rows
from theory.operators.karat import ONE_COSINE, additive_layer, coefficients, fourier_unit

PAPER = "maity2025karat"
EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)


# -- The operator -----------------------------------------------------------------------------------------------------

definition = Claim(
    paper=PAPER,
    slug="operator",
    where="Abstract, project page (Design, Our Architecture)",
    says="Softmax of a row can be replaced by W Phi[row], with r N learnable functions of one score each; the full "
    "operator is the case r = N, W = I.",
    formula=r"\hat\sigma(a)^\top = W \hat\Phi[a^\top],\quad \hat\Phi[a^\top]_p = \sum_{q=1}^N \hat\phi_{pq}(a_q)",
    gap="A definition: checked is that one product of matrices with shared sines and cosines is that double sum.",
)


@definition.check(
    "property",
    controls={
        "frequencies start at 0": {"phi": lambda a, b: lambda t: fourier_unit(a, b)(t) - fourier_unit(a, b)(t * 0)},
        "coefficients of sine and cosine exchanged": {"phi": lambda a, b: fourier_unit(b, a)},
        "without W": {"project": lambda mix, hidden: hidden[: len(mix)]},
    },
)
@given(tokens=st.integers(1, 4), rank=st.integers(1, 4), grid=st.integers(1, 3), seed=seeds)
def test_the_operator_is_the_sum_over_its_units(
    evidence, tokens, rank, grid, seed, *, phi=fourier_unit, project=lambda mix, hidden: mix @ hidden
):
    """Each unit phi_pq is evaluated on its own; the vectorised operator must agree. Square sizes include W = I."""
    draw = np.random.default_rng(seed)
    cosine, sine, mix = coefficients(draw, rank, tokens, grid)
    mix = np.eye(tokens) if rank == tokens else mix
    a = 3 * draw.standard_normal(tokens)
    units = [[phi(cosine[p, q], sine[p, q]) for q in range(tokens)] for p in range(rank)]
    expected = np.resize(project(mix, np.array(additive_layer(a, units))), tokens)
    found = kolmogorov_arnold(a[None], cosine, sine, mix)[0]
    # Rounding of g t moves its cosine by |g t| eps; the sums have 2 N G r terms.
    size = abs(mix).sum(1).max() * (abs(cosine) + abs(sine)).sum() * (2 + grid * abs(a).max())
    evidence.expect("distance from the double sum", found - expected, equals=0, error=8 * tokens * rank * EPS * size)


general = Claim(
    paper=PAPER,
    slug="cannot-equal-softmax",
    where="ours, on the operator of the abstract; the paper does not say otherwise",
    says="One operator, of any basis and with any number of units, cannot equal softmax on rows of three or more "
    "scores.",
    formula=r"\sum_q \phi_{pq}(a_q) \not\equiv \frac{e^{a_p}}{\sum_q e^{a_q}}",
    gap="Exact equality is excluded on every open set around 0; how near a sum of units can come is not said.",
)


def softmax_of(a):
    """First entry of softmax, symbolic."""
    from sympy import exp

    return exp(a[0]) / sum(exp(x) for x in a)


def sum_of_units(a):
    """A general additive function of the row."""
    from sympy import Function

    return sum(Function(f"phi{q}")(x) for q, x in enumerate(a))


@general.check(
    "proof",
    controls={
        "any sum of functions of one score": {"entry": sum_of_units},
        "exponentials without the norm": {"entry": lambda a: additive_layer(a, [[lambda t: t.exp(), *[abs] * 2]])[0]
        if hasattr(a[0], "exp") else sum_of_units(a)},
    },
)  # fmt: skip
def test_softmax_is_no_sum_of_functions_of_one_score(evidence, *, entry=softmax_of):
    """The mixed derivative of softmax in two other scores is 2/27 at 0; of a sum of units, of any basis, it is 0."""
    from sympy import Rational, diff, symbols

    a = symbols("a0:3", real=True)
    mixed = diff(entry(a), a[1], a[2])
    value = mixed.subs(dict.fromkeys(a, 0))
    evidence.expect("mixed derivative of the first weight at 0", value, equals=Rational(2, 27), error=0)


symmetric = Claim(
    paper=PAPER,
    slug="breaks-softmax-symmetries",
    where="ours, on the operator of the abstract; the paper does not say otherwise",
    says="Unlike with softmax, permuting the keys need not permute the weights, and with the Fourier basis two scores "
    "that differ by 2 pi cannot be told apart.",
    formula=r"\exists\, a, P:\ \hat\sigma(P a) \ne P\,\hat\sigma(a), \quad \hat\sigma(a + 2\pi e_q) = \hat\sigma(a)",
    gap="An operator trained to be symmetric (equal phi_pq off the diagonal) would keep the first symmetry.",
)


@symmetric.check("exact", scope="permutation", controls={"softmax": {"operator": softmax_rows}})
def test_permuting_keys_does_not_permute_weights(evidence, *, operator=lambda a: kolmogorov_arnold(a, *ONE_COSINE)):
    """Two tokens, one unit: the scores (0, pi) and (pi, 0) get the weights (1, 0) and (-1, 0)."""
    weights = operator(np.array([[0, np.pi], [np.pi, 0]]))
    change = abs(weights[1] - weights[0][::-1]).max()
    evidence.expect("largest change of a weight under exchange of two keys", change, equals=1, error=4 * EPS)


@symmetric.check(
    "exact",
    scope="period",
    controls={
        "softmax": {"operator": lambda a, *_: softmax_rows(a)},
        "base function identity": {
            "operator": lambda a, cosine, sine, mix: (
                kolmogorov_arnold(a, cosine, sine, mix) + a.sum(axis=-1, keepdims=True) * mix.sum(axis=1)
            )
        },
    },
)
def test_scores_two_pi_apart_get_the_same_weights(evidence, rng, *, operator=kolmogorov_arnold):
    """The Fourier basis with base function 0 has period 2 pi in every score: raising one by 2 pi changes nothing."""
    tokens, rank, grid = 5, 3, 3
    parts = coefficients(rng("coefficients"), rank, tokens, grid)
    a = rng("scores").standard_normal((4, tokens))
    raised = a + 2 * np.pi * np.eye(tokens)[0]
    size = abs(parts[2]).sum(axis=1).max() * (abs(parts[0]) + abs(parts[1])).sum()
    # 2 pi is rounded by EPS 2 pi / 2, the sum once more; both are multiplied by up to G.
    budget = 4 * grid * (2 * np.pi + abs(a).max()) * EPS * size
    evidence.expect(
        "change of weights when a score rises by 2 pi", operator(raised, *parts) - operator(a, *parts),
        equals=0, error=budget,
    )  # fmt: skip

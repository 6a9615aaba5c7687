"""Attention with a learnable operator in place of softmax: Kolmogorov-Arnold attention (Maity et al., 2025).

What the paper says. Each row of attention scores goes through a layer of learnable one-dimensional functions, of any
basis, instead of softmax; because N x N of them per head are too many, a modular version has r x N of them and a matrix
W that brings the r values back to N (Fourier-KArAt, r = 12). This file has the operator itself: what it is, what it can
and cannot do, and its rank. test_karat_tables.py has the paper's tables, test_karat_cost.py memory and time,
test_karat_trained.py what training on digits shows.

Notation. N tokens, r hidden units, G frequencies; a row of scores is a; phi_pq(t) = sum_g a_pqg cos(gt) + b_pqg sin(gt)
with base function 0 (the paper's best); W is N x r (the page also prints r x N).

Scope. One head. The paper's body was not at hand: definitions are those of its project page.
"""

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import kolmogorov_arnold, scores, softmax_rows
from theory.operators.karat import (
    BASES,
    RANK,
    TOKENS,
    additive_layer,
    fourier_unit,
    numerical_rank,
    project_to_simplex,
)

PAPER = "maity2025karat"
EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)


def coefficients(draw, rank, tokens, grid):
    """cosine, sine (r, N, G) and mix (N, r), all N(0, 1) as the paper initialises them."""
    return (*draw.standard_normal((2, rank, tokens, grid)), draw.standard_normal((tokens, rank)))


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
    slug="contains-softmax",
    where="Title and abstract (our stronger reading: a learnable operator that can be any, softmax included)",
    says="With enough units of a suitable basis the full operator can equal softmax.",
    formula=r"\exists\, \phi_{pq}:\ \sum_q \phi_{pq}(a_q) = \frac{e^{a_p}}{\sum_q e^{a_q}}",
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


@general.refutation(
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
    evidence.counterexample("A second difference that no sum has", derivative="d^2/da_1 da_2", at="0", value="2/27")


symmetric = Claim(
    paper=PAPER,
    slug="keeps-softmax-symmetries",
    where="Abstract, Design (our reading of `replaces softmax`)",
    says="As with softmax, permuting the keys permutes the weights, and different scores can be told apart.",
    formula=r"\hat\sigma(P a) = P\,\hat\sigma(a)",
    gap="An operator trained to be symmetric (equal phi_pq off the diagonal) would keep the first one.",
)
SMALLEST = (np.array([[[1.0], [0.0]]]), np.zeros((1, 2, 1)), np.array([[1.0], [0.0]]))
"""N = 2, r = 1, G = 1: both weights are made of cos(a_0) alone."""


@symmetric.refutation("exact", controls={"softmax": {"operator": softmax_rows}})
def test_permuting_keys_does_not_permute_weights(evidence, *, operator=lambda a: kolmogorov_arnold(a, *SMALLEST)):
    """Two tokens, one unit: the scores (0, pi) and (pi, 0) get the weights (1, 0) and (-1, 0)."""
    weights = operator(np.array([[0, np.pi], [np.pi, 0]]))
    change = abs(weights[1] - weights[0][::-1]).max()
    evidence.expect("largest change of a weight under exchange of two keys", change, at_least=1 / 2)
    evidence.counterexample(
        "Exchange of two keys", scores=[["0", "pi"], ["pi", "0"]], weights=np.round(weights, 12).tolist()
    )


@symmetric.refutation(
    "exact",
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
    evidence.counterexample("Two scores that softmax tells apart by a factor of 535", scores=["0", "2 pi"])


# -- Rank -------------------------------------------------------------------------------------------------------------

rank_bound = Claim(
    paper=PAPER,
    slug="rank-at-most-r",
    where="Low Rank Structure Analysis of Attention; Modular KArAt",
    says="Whatever the basis, the coefficients and the input, the matrix of KArAt's weights has rank at most r, much "
    "lower than that of softmax attention.",
    formula=r"\operatorname{rank}\,\bigl(\hat\Phi[A^\top]^\top W^\top\bigr) \le r",
    gap="Does not hold once rows are projected onto the simplex. What a lower rank does to accuracy is left open.",
)


@rank_bound.check("proof", controls={"one unit more": {"extra": 1}})
def test_every_minor_of_order_r_plus_one_vanishes(evidence, *, extra=0):
    """det(W Z) = 0 for symbolic W (r + 1, r) and Z (r, r + 1): every minor of order r + 1 has this form.

    Z holds any values of any units. Machine-checked for r = 1, 2, 3; for larger r a column of zeros makes W and Z
    square without changing the product, and the determinant of a product is that of a matrix with a zero column.
    """
    from sympy import Matrix, expand, symbols

    for r in (1, 2, 3):
        W = Matrix(r + 1, r + extra, symbols(f"w:{(r + 1) * (r + extra)}"))
        Z = Matrix(r + extra, r + 1, symbols(f"z:{(r + 1) * (r + extra)}"))
        minor = expand((W * Z).det(method="berkowitz"))
        evidence.expect("terms of the minor", 0 if minor == 0 else len(minor.as_ordered_terms()), equals=0, error=0)


@rank_bound.check(
    "property",
    scope="float64, attained",
    controls={
        "softmax": {"weights": lambda hidden, mix, a: softmax_rows(a)},
        "projected onto the simplex": {"weights": lambda hidden, mix, a: project_to_simplex(hidden @ mix.T)},
    },
)
@given(basis=st.sampled_from(sorted(BASES)), rank=st.integers(1, 6), seed=seeds)
def test_the_rank_is_r_for_every_basis(evidence, basis, rank, seed, *, weights=lambda hidden, mix, a: hidden @ mix.T):
    """24 tokens and random coefficients of each family of the page: the bound holds and is attained."""
    draw, tokens = np.random.default_rng(seed), 24
    a = draw.standard_normal((tokens, tokens))
    scale, weight = draw.uniform(0.5, 2, (rank, tokens)), draw.standard_normal((rank, tokens))
    hidden = np.einsum("pq,npq->np", weight, BASES[basis](a[:, None] * scale))
    found = numerical_rank(weights(hidden, draw.standard_normal((tokens, rank)), a))
    evidence.expect("rank minus r", int(found) - rank, equals=0, error=0)


@rank_bound.check(
    "exact",
    scope="the paper's sizes",
    controls={
        "softmax": {"operator": lambda a, *_: softmax_rows(a)},
        "projected onto the simplex": {"operator": lambda a, *parts: project_to_simplex(kolmogorov_arnold(a, *parts))},
    },
)
def test_the_spectrum_ends_at_r(evidence, rng, *, operator=kolmogorov_arnold):
    """197 tokens, r = 12, G = 3, scores of rank 64 as in every ViT of the paper; the figure redraws its spectra."""
    draw = rng("paper's sizes")
    a = scores(*draw.standard_normal((2, TOKENS, 64)))
    spectra = {
        "scores": a,
        "softmax": softmax_rows(a),
        "KArAt": operator(a, *coefficients(draw, RANK, TOKENS, 3)),
    }
    values = {name: np.linalg.svd(matrix, compute_uv=False) for name, matrix in spectra.items()}
    evidence.figure(
        "Singular values before and after the activation",
        figure_of(values),
        "Random queries and keys of width 64, N = 197, r = 12. The drop of the scores is at the head's width.",
    )
    after = values["KArAt"]
    budget = TOKENS * EPS
    evidence.expect("singular value r + 1 over the first", after[RANK] / after[0], at_most=budget)
    evidence.expect("singular value r over the first", after[RANK - 1] / after[0], at_least=budget)
    evidence.expect("rank of softmax minus r", int(numerical_rank(spectra["softmax"])) - RANK, at_least=1)


def figure_of(values):
    """Singular values by index, logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for (name, one), line in zip(values.items(), (":", "--", "-"), strict=True):
        axes.semilogy(np.arange(1, len(one) + 1), one / one[0], line, label=name)
    axes.set_xlabel("index")
    axes.set_ylabel("singular value over the first")
    axes.legend(frameon=False)
    return figure


before = Claim(
    paper=PAPER,
    slug="scores-drop-between-50-and-75",
    where="Low Rank Structure Analysis of Attention",
    says="Before the activation both attentions have a similar spectrum, with a sharp drop between the 50th and the "
    "75th singular value.",
    formula=r"\operatorname{rank}\bigl(Q K^\top\bigr) \le d_h = 64",
    gap="Explains the drop for every ViT of the paper, whatever was learned; the decay before it was not measured.",
)


@before.check("exact", controls={"heads of width 96": {"width": 96}, "scores that are themselves free": {"width": 197}})
def test_scores_have_the_rank_of_the_head_width(evidence, rng, *, width=64):
    """The factors of Q K^T have 64 columns in ViT-T, S and B (192 / 3, 384 / 6, 768 / 12): at most 64 values are not 0.

    The bound is that of the claim rank-at-most-r, with Q in place of W. It is attained by integer matrices, whose rank
    is computed exactly.
    """
    from flint import fmpz_mat

    Q, K = (rng(name).integers(-9, 10, (TOKENS, width)).tolist() for name in ("queries", "keys"))
    rank = (fmpz_mat(Q) * fmpz_mat(K).transpose()).rank()
    evidence.expect("exact rank of 197 x 197 scores", rank, within=(50, 75))
    evidence.expect("exact rank minus the head's width", rank - 64, equals=0, error=0)


# -- Values of the weights --------------------------------------------------------------------------------------------

negative = Claim(
    paper=PAPER,
    slug="negative-weights",
    where="Attention Visualization",
    says="Unlike softmax, KArAt's weights are not restricted to [0, 1]: they can express negative interactions.",
    formula=r"\exists\, a, p:\ \hat\sigma(a)_p < 0,\quad \textstyle\sum_p \hat\sigma(a)_p \ne 1",
    gap="That negative weights are used to any good is not shown. With the simplex projection they are gone.",
)


@negative.check(
    "exact",
    controls={
        "softmax": {"operator": softmax_rows},
        "projected onto the simplex": {"operator": lambda a: project_to_simplex(kolmogorov_arnold(a, *SMALLEST))},
    },
)
def test_one_unit_gives_a_weight_of_minus_one(evidence, *, operator=lambda a: kolmogorov_arnold(a, *SMALLEST)):
    """Two tokens, one unit cos(a_0), score pi."""
    weights = operator(np.array([[np.pi, 0.0]]))[0]
    evidence.expect("least weight", weights.min(), equals=-1, error=EPS)
    evidence.expect("sum of the weights", weights.sum(), equals=-1, error=EPS)


@negative.check(
    "exact",
    scope="half of the weights are negative at the paper's initialisation",
    controls={"softmax": {"operator": lambda a, *_: softmax_rows(a)}},
)
def test_half_of_the_weights_are_negative_at_the_start(evidence, rng, *, operator=kolmogorov_arnold):
    """W is symmetric about 0 and independent of Phi, so that each weight is negative with probability 1/2.

    Given Phi, the rows of W are independent, and so are the 2000 weights of one row of scores; three sizes of scores.
    """
    tokens, rank, grid = 2000, 4, 3
    for scale in (0.1, 1.0, 10.0):
        draw = rng("start", scale)
        weights = operator(scale * draw.standard_normal((1, tokens)), *coefficients(draw, rank, tokens, grid))
        # Hoeffding: beyond sqrt(ln(2 / p) / (2 n)) with probability at most p = 1e-12.
        evidence.expect(
            "share of negative weights minus 1/2", (weights < 0).mean() - 0.5,
            equals=0, error=np.sqrt(np.log(2e12) / (2 * tokens)),
        )  # fmt: skip


simplex = Claim(
    paper=PAPER,
    slug="simplex-projection",
    where="Version 1 (option of the operator)",
    says="Rows can be projected onto the probability simplex: the nearest weights that are non-negative and sum to 1.",
    formula=r"P(a) = \arg\min_{w \ge 0,\ \sum_p w_p = 1} \|w - a\|",
    gap="The paper's text on this option was not at hand; what it does to training is not checked.",
)


@simplex.check(
    "property",
    controls={
        "softmax": {"project": softmax_rows},
        "clipped and divided by the sum": {
            "project": lambda a: (np.clip(a, 0, None) + EPS) / (np.clip(a, 0, None) + EPS).sum(-1, keepdims=True)
        },
    },
)
@given(size=st.integers(1, 8), scale=st.floats(0.01, 100), seed=seeds)
def test_the_projection_is_the_nearest_point(evidence, size, scale, seed, *, project=project_to_simplex):
    """Optimality of a projection: (a - P a).(w - P a) <= 0 for all w in the simplex, so for its corners; equality at
    the corners of the support."""
    a = scale * np.random.default_rng(seed).standard_normal((1, size))
    weights = project(a)
    budget = 16 * size * EPS * (1 + abs(a).max()) ** 2
    evidence.expect("least weight", weights.min(), at_least=0)
    evidence.expect("sum minus 1", weights.sum() - 1, equals=0, error=budget)
    slopes = (a - weights)[0] - ((a - weights) * weights).sum()
    evidence.expect("gain towards a corner", slopes, at_most=budget)
    evidence.expect("largest gain", slopes.max(), at_least=-budget)


@simplex.check(
    "property",
    scope="firm non-expansion",
    controls={"twice the projection": {"project": lambda a: 2 * project_to_simplex(a)}},
)
@given(size=st.integers(2, 8), scale=st.floats(0.01, 3), seed=seeds)
def test_projecting_twice_is_projecting_once_and_brings_rows_nearer(
    evidence, size, scale, seed, *, project=project_to_simplex
):
    """P(P a) = P a, and |P a - P b|^2 <= (P a - P b).(a - b)."""
    a, b = scale * np.random.default_rng(seed).standard_normal((2, size))
    P_a, P_b = project(a), project(b)
    budget = 16 * size * EPS * (1 + abs(a).max() + abs(b).max()) ** 2
    evidence.expect("change by a second projection", project(P_a) - P_a, equals=0, error=budget)
    evidence.expect("slack of firmness", (P_a - P_b) @ (a - b) - (P_a - P_b) @ (P_a - P_b), at_least=-budget)

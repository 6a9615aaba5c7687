"""Kolmogorov-Arnold attention: the rank of its weights, and of what goes into them (Maity et al., 2025).

What the paper says. Before the activation, scores have a similar low-rank spectrum in both attentions, with a sharp
drop between the 50th and the 75th singular value; after it KArAt's rank is much lower than softmax's, because of r.

Notation. As in test_karat.py: N tokens, r hidden units, weights W Phi[row]; Q and K have the width 64 of a head.

Scope. One head, any values of the units. Which singular values training leads to is in test_karat_trained.py.
"""

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import kolmogorov_arnold, scores, softmax_rows
from theory.operators.karat import BASES, RANK, TOKENS, coefficients, numerical_rank, project_to_simplex

PAPER = "maity2025karat"
EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)

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

"""Kolmogorov-Arnold attention: the values of its weights, and the simplex projection (Maity et al., 2025).

What the paper says. KArAt's weights are not restricted to [0, 1] as softmax's are, and can express negative
interactions; version 1 has the option to project rows onto the probability simplex.

Notation. As in test_karat.py: N tokens, r hidden units, G frequencies, weights W Phi[row].

Scope. One head, single rows. What negative weights are good for is not shown.
"""

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import kolmogorov_arnold, softmax_rows
from theory.operators.karat import ONE_COSINE, coefficients, project_to_simplex

PAPER = "maity2025karat"
EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)

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
        "projected onto the simplex": {"operator": lambda a: project_to_simplex(kolmogorov_arnold(a, *ONE_COSINE))},
    },
)
def test_one_unit_gives_a_weight_of_minus_one(evidence, *, operator=lambda a: kolmogorov_arnold(a, *ONE_COSINE)):
    """Two tokens, one unit cos(a_0), score pi."""
    weights = operator(np.array([[np.pi, 0.0]]))[0]
    evidence.expect("least weight", weights.min(), equals=-1, error=EPS)
    evidence.expect("sum of the weights", weights.sum(), equals=-1, error=EPS)


@negative.check(
    "statistical",
    scope="half of the weights are negative at the paper's initialisation",
    controls={"softmax": {"operator": lambda a, *_: softmax_rows(a)}},
)
def test_half_of_the_weights_are_negative_at_the_start(evidence, rng, *, operator=kolmogorov_arnold):
    """W is symmetric about 0 and independent of Phi, so that each weight is negative with probability 1/2.

    Given Phi, the rows of W are independent, and so are the 2000 weights of one row of scores; three sizes of scores.
    """
    tokens, rank, grid = 2000, 4, 3
    shares = []
    for scale in (0.1, 1.0, 10.0):
        draw = rng("start", scale)
        weights = operator(scale * draw.standard_normal((1, tokens)), *coefficients(draw, rank, tokens, grid))
        shares.append((weights < 0).mean())
    evidence.note(f"Shares of negative weights: {', '.join(f'{share:.3f}' for share in shares)}.")
    z = (np.array(shares) - 0.5) / np.sqrt(0.25 / tokens)
    evidence.z_scores("share of negative weights against 1/2, standard errors", z, alpha=1e-5)


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

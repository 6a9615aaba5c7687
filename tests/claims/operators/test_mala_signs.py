"""Magnitude-aware linear attention: scores below zero, and how far a row is from softmax's (Fan et al., ICCV 2025).

What the paper says. MALA keeps the form of softmax attention and its distribution of scores closely resembles
softmax's (abstract, section 4). Negative scores are possible in theory but were not observed (section 4, supplement).

Notation. As in test_mala.py: A_j(a) = S_j / z + a (S_j - z / N) for a row S of the kernel with sum z and N keys.

Scope. Exact arithmetic on single rows, the released scale on Gaussian inputs, and small vision transformers on
handwritten digits; the authors' trained networks are not at hand.
"""

from fractions import Fraction

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import elu_plus_one, linear, mala
from theory.operators.mala import identity, official, pole, released_scale, row_scores, scaled_score

PAPER = "fan2025mala"
SMALLEST = (Fraction(2, 3), Fraction(1, 3))


condition = Claim(
    paper=PAPER,
    slug="when-scores-are-negative",
    where="Section 4 ('possible in theory'; the condition is ours)",
    says="A score is negative exactly when its kernel value lies below the row's mean and the query's magnitude "
    "exceeds a threshold; so every row that is not constant has negative scores from some magnitude on.",
    formula=r"A_j(a) < 0 \iff S_j < \frac{z}{N} \text{ and } a > \frac{S_j / z}{z/N - S_j}",
    gap="Which magnitudes training reaches is another claim.",
)


@condition.check(
    "proof",
    controls={
        "linear attention": {"score": lambda s, z, N, a: s / z},
        "gamma without 1/N": {"score": lambda s, z, N, a: s / z + a * (s - z)},
    },
)
def test_the_score_changes_sign_at_the_threshold_and_nowhere_else(evidence, *, score=scaled_score):
    """A_j = (S_j - z/N) (a - threshold) identically below the mean; above it, with positive coefficients only."""
    import sympy as sp

    s, z, N, a, gap = sp.symbols("s z N a g", positive=True)
    threshold = (s / z) / (z / N - s)
    evidence.true("factorised", sp.simplify(score(s, z, N, a) - (s - z / N) * (a - threshold)) == 0)
    above = sp.Poly(sp.fraction(sp.together(score(z / N + gap, z, N, a)))[0], z, N, a, gap).coeffs()
    evidence.expect("least coefficient above the mean", min(above), at_least=1)


@condition.check("property", controls={"linear attention": {"operator": linear}})
@given(row=st.lists(st.integers(0, 20), min_size=2, max_size=8).map(lambda row: tuple(Fraction(s, 7) for s in row)))
def test_the_operator_turns_negative_at_the_pole_of_its_smallest_score(evidence, row, *, operator=mala):
    """Rational rows: the smallest score is 0 at its threshold and falls with the magnitude, as do the others."""
    assume(min(row) < sum(row) / len(row))
    j = row.index(min(row))
    a = pole(row, j)
    evidence.expect("score at twice the threshold, plus one", row_scores(row, 2 * a + 1, operator)[j], less_than=0)
    evidence.expect("score at the threshold", row_scores(row, a, operator)[j] if a else Fraction(0), equals=0, error=0)


@condition.check("exact", scope="at the released scale", controls={"linear attention": {"operator": linear}})
def test_the_released_scale_has_a_negative_score_for_two_keys(evidence, *, operator=mala):
    """ELU + 1, d = 1, scale 1 / (sqrt(d) N): q = 1/2 and keys 1 and 0 give the scores 25/24 and -1/24."""
    phi = elu_plus_one(np.array([0.5, 1.0, 0.0]))  # 3/2, 2, 1
    row = [Fraction(released_scale(1, 2)) * Fraction(phi[0]) * Fraction(one) for one in phi[1:]]
    scores = row_scores(row, 1, operator)
    evidence.expect("least score", min(scores), equals=Fraction(-1, 24), error=0)


@condition.check("exact", scope="Gaussian inputs", controls={"linear attention": {"operator": linear}})
def test_on_gaussian_inputs_at_the_released_scale_scores_are_negative(evidence, rng, *, operator=official):
    """N = 196, d = 32, ELU + 1, queries multiplied by 1/4 to 64: the share of negative scores, and rows' L1 norms."""
    q, k = rng("inputs").standard_normal((2, 196, 32))
    for a in (0.25, 1, 4, 64):
        A = operator(a * q, k)
        evidence.note(
            f"Queries times {a:g}: {(A < 0).mean():.1%} of the scores are negative, L1 norm "
            f"{abs(A).sum(-1).mean():.2f}."
        )
        evidence.expect("least score", A.min(), less_than=0)


observed = Claim(
    paper=PAPER,
    slug="negative-scores-do-not-occur",
    where="Section 4, supplement",
    says="Negative scores, though possible in theory, do not occur in trained networks.",
    formula=r"A_{ij} \ge 0",
    gap="Our networks are small and read digits; the authors' trained MAViT was not measured. Their code rotates "
    "queries and keys after z is computed, which makes more scores negative, not fewer (see "
    "normalised-in-the-released-code).",
)


@observed.refutation("experiment", controls={"linear attention": {"variant": "linear"}})
def test_trained_networks_have_negative_scores_in_every_run(evidence, paper_rng, scale, *, variant="mala"):
    """MALA at the released scale, trained on digits: share of negative scores on test images."""
    from empirical.operators.mala import trained_scores

    seed = paper_rng.seed("training")
    shares = np.array(trained_scores(variant, seed, scale))  # (seeds, layers)
    for layer, share in enumerate(shares.T, start=1):
        evidence.note(f"Layer {layer}: {share.min():.0%} to {share.max():.0%} of the scores are negative.")
    evidence.expect("least share of negative scores in a run's worst layer, times -1", -shares.max(1), less_than=0)


resembles = Claim(
    paper=PAPER,
    slug="scores-resemble-softmax",
    where="Abstract, Section 4",
    says="MALA's rows of scores closely resemble softmax's: non-negative entries, absolute values that sum to 1.",
    formula=r"\sum_j |A_j(a)| = 1",
    gap="What counts as close the paper does not say; our reading is that rows are distributions.",
    repair="They do while every score is positive; beyond that the L1 norm grows linearly in the magnitude of phi(q).",
)


def l1(row, a, operator=mala):
    """Sum of |A_j(a)|."""
    return sum(abs(row_scores(row, a, operator)))


@resembles.refutation("exact", controls={"linear attention": {"operator": linear}})
def test_absolute_scores_grow_with_the_magnitude_without_bound(evidence, *, operator=mala):
    """S = (2/3, 1/3), A = (2/3 + a/6, 1/3 - a/6): for a >= 2 the L1 norm is (1 + a) / 3, which is 4/3 at a = 3."""
    norms = {a: l1(SMALLEST, Fraction(a), operator) for a in (1, 3, 100)}
    evidence.expect("L1 norm at a = 1", norms[1], equals=1, error=0)
    evidence.expect("L1 norm at a = 100 over that at a = 3", norms[100] / norms[3], equals=Fraction(101, 4), error=0)
    evidence.counterexample("two keys, one feature", S=SMALLEST, at_3=[*row_scores(SMALLEST, Fraction(3), operator)])


@resembles.check("property", controls={"gamma doubled": {"operator": lambda q, k, feature_map: doubled(q, k)}})
@given(row=st.lists(st.integers(1, 20), min_size=2, max_size=8).map(lambda row: tuple(Fraction(s, 7) for s in row)))
def test_rows_are_distributions_up_to_the_first_pole_and_grow_linearly_beyond_the_last(evidence, row, *, operator=mala):
    """Rational rows: L1 norm 1 at the least threshold; beyond the largest, equal steps of a add equal amounts."""
    poles = [a for j in range(len(row)) if (a := pole(row, j)) is not None]
    assume(poles)
    evidence.expect("L1 norm at the first pole", l1(row, min(poles), operator), equals=1, error=0)
    last = max(poles)
    first, second, third = (l1(row, last * times, operator) for times in (1, 2, 3))
    evidence.expect("second difference of the L1 norm", third - 2 * second + first, equals=0, error=0)
    mean = sum(row) / len(row)
    evidence.expect("slope", (second - first) / last - sum(abs(s - mean) for s in row), equals=0, error=0)


def doubled(q, k):
    """MALA that subtracts 2 gamma."""
    return mala(q, k, feature_map=identity) - (q @ k.T).sum(-1)[:, None] / len(k)

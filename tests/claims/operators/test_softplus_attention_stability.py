"""Floating point and gradients of softplus attention with re-weighting (Gao and Spratling, 2025).

What the paper says. The two stages together "ensure numerical stability", and since ReLU cuts off weights, not scores,
every score keeps a path for its gradient: no dead neurons.

Notation. As in test_softplus_attention_reweighting.py: e_j = ReLU(N a_j - o), o = 1 for N > 3 and 0 for N <= 3; the
re-weighted row is e^p over its sum. A key is dropped if e_j = 0, otherwise kept. A *dead* row has gradient 0 in all its
scores.

Scope. Single rows and heads. The formula as printed, in the formats that models are trained in; bfloat16 has the
exponents of single precision and so its largest numbers. How often trained models meet these rows is not counted.
"""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import lssa, relu_map, reweight, reweight_printed, softplus
from theory.operators.positions import causal
from theory.operators.softplus_attention import dropped_sensitivity, largest_excess

PAPER = "gao2025softplus"
seeds = st.integers(0, 2**32 - 1)
FORMATS = {"half": np.float16, "single": np.float32}

stability = Claim(
    paper=PAPER,
    slug="formula-is-stable",
    where="Abstract (ensuring numerical stability), Section 2.3",
    says="Softplus attention with re-weighting by p = 15 is numerically stable.",
    formula=r"b = \frac{\operatorname{ReLU}(N a - o)^{p}}{\|\operatorname{ReLU}(N a - o)^{p}\|_1}",
    gap="The formula as printed. The authors' code was not to be had; two re-implementations by others add 1e-8 to the "
    "sum, which turns 0/0 into a row of zeros and leaves the overflow.",
    repair="The row is divided by its largest entry before the power, and is not uniform: a uniform row of more than "
    "three keys is 0/0 in the real numbers too.",
)


def not_numbers(weights):
    """Rows with an entry that is not finite."""
    return int((~np.isfinite(weights)).any(axis=-1).sum())


def one_hot(n, dtype):
    """(1, n): the whole weight on the first key."""
    return np.eye(1, n, dtype=dtype)


@stability.refutation(
    "exact",
    controls={
        "largest entry divided out before the power": {"operator": reweight},
        "p = 1": {"operator": lambda a, p: reweight_printed(a, 1)},
    },
)
def test_a_row_with_its_weight_on_one_key_overflows(evidence, *, operator=reweight_printed):
    """Half precision: three keys, 3^15 > 65504; single precision: 372 keys, 371^15 > 3.4e38. One key fewer is fine."""
    with np.errstate(all="ignore"):
        for name, dtype in FORMATS.items():
            limit = largest_excess(np.finfo(dtype).max, 15)
            smallest = next(n for n in range(1, 10**4) if n - (n > 3) > limit)
            broken = not_numbers(operator(one_hot(smallest, dtype), 15))
            evidence.expect(f"rows that are no numbers, {name} precision, smallest N", broken, at_least=1)
            fewer = not_numbers(operator(one_hot(smallest - 1, dtype), 15))
            evidence.expect(f"rows that are no numbers, {name} precision, one key fewer", fewer, equals=0, error=0)
            evidence.counterexample(
                "All weight on one key, p = 15", format=name, keys=smallest, largest_excess=f"{limit:.4g}"
            )
        keys = -np.ones((372, 64), np.float32)
        keys[0] = 1
        row = lssa(np.ones((1, 64), np.float32), keys)
        evidence.expect("LSSA row, one key aligned and 371 opposed, single", not_numbers(operator(row, 15)), at_least=1)


@stability.refutation("exact", controls={"three keys, where the offset is 0": {"n": 3}})
def test_identical_keys_give_zero_over_zero(evidence, *, n=4):
    """Four equal keys: LSSA's row is (1/4, 1/4, 1/4, 1/4) exactly, N a - 1 = 0, for every p and in every format."""
    with np.errstate(all="ignore"):
        for p in (1, 3, 15):
            for name, dtype in {**FORMATS, "double": np.float64}.items():
                row = lssa(np.ones((1, 4), dtype), np.ones((n, 4), dtype))
                evidence.expect(
                    f"rows that are no numbers, {name} precision", not_numbers(reweight_printed(row, p)), at_least=1
                )
    evidence.counterexample("n equal keys", keys=n, weights=[str(Fraction(1, n))] * n)


@stability.refutation(
    "exact",
    scope="half precision, random queries and keys",
    controls={"p = 3": {"power": 3}, "single precision": {"dtype": np.float32}},
)
def test_random_rows_overflow_half_precision(evidence, rng, *, power=15, dtype=np.float16):
    """256 causal rows over random queries and keys, d = 64, p = 15: weights in double, then rounded to the format."""
    draw, mask = rng("keys"), causal(256)
    row = lssa(draw.standard_normal((256, 64)), draw.standard_normal((256, 64)), mask=mask).astype(dtype)
    with np.errstate(all="ignore"):
        broken = ~np.isfinite(reweight_printed(row, power, mask=mask)).all(axis=-1)
    evidence.expect("rows that are no numbers, of 256", int(broken.sum()), at_least=1)
    evidence.note(f"{broken.sum()} of 256 rows, the first of {int(np.flatnonzero(broken)[0]) + 1} keys.")


@stability.check("property", controls={"the formula as printed": {"operator": reweight_printed}})
@given(n=st.integers(1, 500), sharpness=st.floats(0.1, 200), p=st.sampled_from([3, 15]), seed=seeds)
def test_with_the_largest_entry_divided_out_nothing_overflows(evidence, n, sharpness, p, seed, *, operator=reweight):
    """In half and single precision, against double precision on the same rounded weights."""
    draw = np.random.default_rng(seed).exponential(size=n) ** (sharpness / 10)
    for name, dtype in FORMATS.items():
        row = (draw / draw.sum())[None].astype(dtype)
        exact = reweight(row.astype(float), p)
        if not exact.sum() > 0.5:
            continue  # uniform
        with np.errstate(all="ignore"):
            found = operator(row, p)
        evidence.expect(
            f"weights that are not finite, {name} precision", (~np.isfinite(found)).sum(), equals=0, error=0
        )
        # N a is rounded to half an ulp; e over the largest e inherits 3 ulps of N max a / max e; power and sum follow.
        excess = n * float(row.max()) - (n > 3)
        unit = 3 * float(np.finfo(dtype).eps) * (1 + n * float(row.max()) / excess)
        evidence.expect(
            f"distance from exact over its bound, {name}", abs(found - exact).max() / (2 * n * p * unit), at_most=1
        )


no_dead = Claim(
    paper=PAPER,
    slug="no-dead-neurons",
    where="Section 2.3",
    says="Because the cut acts on weights that a positive map and a normalisation made, the score of a dropped key "
    "still receives a gradient.",
    formula=r"\frac{\partial b_i}{\partial s_j} = -p \, b_i \Bigl(r_i - \sum_k b_k r_k\Bigr)"
    r"\frac{\varphi'(s_j)}{\sum_l \varphi(s_l)}, \quad r_i = \frac{N a_i}{N a_i - 1}",
    gap="One row. A dropped key's value receives gradient exactly 0 from this row; other rows may still reach it. All "
    "dropped keys pull in one direction: they act through the sum alone, so none can be told from another.",
    repair="At least two kept weights of the row differ.",
)


def gradients(s, power, positive=softplus):
    """Jacobian of the re-weighted row in the scores, (n, n), by automatic differentiation; s (n,) float64."""
    import torch

    def row(scores):
        weights = positive(scores)
        return reweight((weights / weights.sum())[None], power)[0]

    return torch.autograd.functional.jacobian(row, torch.from_numpy(s)).numpy()


@no_dead.refutation("exact", controls={"two kept weights that differ": {"row": (8, 6, 3, 3)}})
def test_a_row_that_keeps_one_key_is_dead(evidence, *, row=(8, 4, 4, 4)):
    """Four keys with weights 2/5, 1/5, 1/5, 1/5: the output is one-hot around there, so all gradients are exactly 0.

    It is the smallest row: up to three keys nothing is cut. An open set of rows keeps one key, as with a dead ReLU.
    """
    weights = [Fraction(w, sum(row)) for w in row]
    kept = [a for a in weights if 4 * a > 1]
    sensitivity = dropped_sensitivity(np.array(kept, object), 4, 15)
    evidence.expect("derivative in a dropped key's score, exact", max(abs(x) for x in sensitivity), equals=0, error=0)
    jacobian = gradients(np.log(np.expm1(np.array(row, float))), 15)
    evidence.expect("derivatives in all scores, automatic", abs(jacobian).max(), equals=0, error=0)
    evidence.counterexample("A row that keeps one key", weights=[str(w) for w in weights], kept=len(kept))


def without_mean(kept, n, p):
    """-p b_i r_i: the normalisation of the second stage left out."""
    raised = (n * kept - 1) ** p
    return -p * raised / raised.sum() * n * kept / (n * kept - 1)


@no_dead.check(
    "proof",
    controls={
        "the mean of r left out": {"formula": without_mean},
        "the power left out": {"formula": lambda kept, n, p: dropped_sensitivity(kept, n, p) / p},
    },
)
def test_the_closed_form_is_the_derivative_and_vanishes_at_ties_only(evidence, *, formula=dropped_sensitivity):
    """Two and three kept keys, N and S symbols, p = 1, 3 and 15: derivative in the sum S of the positive maps.

    r falls in a, so that the largest kept weight has r below the mean and a positive derivative unless all are equal.
    """
    import sympy

    S, n, a = sympy.symbols("S N a", positive=True)
    for p in (1, 3, 15):
        for k in (2, 3):
            x = np.array(sympy.symbols(f"x:{k}", positive=True), object)
            raised = (n * x / S - 1) ** p
            direct = [sympy.diff(one / raised.sum(), S) * S for one in raised]
            closed = formula(x / S, n, p)
            point = {S: 7, n: 11, **dict(zip(x, (3, 2, 1), strict=False))}
            gaps = [(left - right).subs(point) for left, right in zip(direct, closed, strict=True)]
            evidence.expect("closed form minus derivative, at a rational point", gaps, equals=0, error=0)
            if p < 15:
                terms = [sympy.simplify(left - right) for left, right in zip(direct, closed, strict=True)]
                evidence.expect("closed form minus derivative, symbolic", terms, equals=0, error=0)
    slope = sympy.factor(sympy.diff(n * a / (n * a - 1), a) * (n * a - 1) ** 2)
    evidence.true("r falls in the weight", bool((-slope).is_positive))


@no_dead.check(
    "exact",
    scope="the operator itself",
    controls={"ReLU as the positive map": {"positive": relu_map}},
)
@given(seed=seeds)
def test_dropped_scores_receive_gradient(evidence, seed, *, positive=softplus):
    """16 keys, p = 15: automatic differentiation against the closed form; the values of dropped keys get 0."""
    s = 1.5 * np.random.default_rng(seed).standard_normal(16)
    weights = softplus(s) / softplus(s).sum()
    kept = 16 * weights > 1
    jacobian = gradients(s, 15, positive)
    evidence.expect(
        "least largest derivative of a dropped score",
        abs(jacobian[:, ~kept]).max(axis=0),
        at_least=np.finfo(float).tiny,
    )
    slope = 1 / (1 + np.exp(-s[~kept])) / softplus(s).sum()
    closed = dropped_sensitivity(weights[kept], 16, 15)[:, None] * slope
    # Each factor has an error of a few N ulps, times r for an excess N a - 1 near 0 and p for its power.
    ratio = 16 * weights[kept] / (16 * weights[kept] - 1)
    terms = 15 * (reweight(weights[None], 15)[0, kept] * ratio).max() * slope.max()
    budget = 4 * 16 * 15 * np.finfo(float).eps * ratio.max() * terms
    evidence.expect(
        "distance from the closed form over rounding", abs(jacobian[kept][:, ~kept] - closed).max() / budget, at_most=1
    )
    evidence.expect(
        "weight of a dropped key, so gradient of its value", reweight(weights[None], 15)[0, ~kept], equals=0, error=0
    )

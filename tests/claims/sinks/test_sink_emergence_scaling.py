"""When attention sink emerges: scales of attention's output and of its rows (Gu et al., 2024, appendix D.4).

What the paper says. Attention whose rows sum to alpha is attention with W_O times alpha, and this trains as ordinary
attention does with other learning rate, weight decay, epsilon and initial W_O (equations 29-42). Rows over their
p-norm are the p-th root of a softmax at temperature 1/p (equations 43 and 44).

Notation. f is their alpha (our alpha is the importance of a key); eta, gamma, eps are AdamW's rate, decay and epsilon;
W' = f W is the rescaled run's matrix, G the loss's gradient there, so that the scaled run's gradient is f G.

Scope. Identities. What the scales do to sinks is in test_sink_emergence_trained*.py.
"""

import numpy as np
import pytest
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.sinks.sink_emergence_identities import (
    Recipe,
    adamw_step,
    p_normalised,
    rescaled_adamw,
    rescaled_sgd,
    rooted,
    sgd_step,
)

PAPER = "gu2024attentionsink"
EPS = np.finfo(float).eps
FACTORS = (1 / 16, 1 / 4, 2.0)
"""Powers of two: rescaling by them is exact in floating point."""
RULES = {"SGD": rescaled_sgd, "AdamW": rescaled_adamw}
RECIPES = {"SGD": Recipe(0.1), "AdamW": Recipe(0.01, 0.1, 1e-8)}
BINDING, LOOSE = 0.1, 1e9
"""Limits of the gradient's length: one that is reached, one that is not."""


equivalent = Claim(
    paper=PAPER,
    slug="output-scale-is-learning-rate",
    where="Appendix D.4, equations 32-42",
    says="Training with attention's output times a factor is training without it, from W_O times the factor, with "
    "SGD's rate times its square; with AdamW's rate times the factor, weight decay and epsilon over it.",
    formula=r"W_O'^{(0)} = f W_O^{(0)}: \quad \eta'_{\mathrm{SGD}} = f^2 \eta; \qquad"
    r" \eta' = f \eta, \; \epsilon' = \epsilon / f, \; \gamma' = \gamma / f \quad (\mathrm{AdamW})",
    gap="Without clipping of gradients; the next claim is about the runs of the paper, which have it.",
)


@equivalent.check(
    "proof",
    controls={
        "weight decay as before": {"adamw": lambda r, f: Recipe(f * r.rate, r.decay, r.eps / f)},
        "epsilon as before": {"adamw": lambda r, f: Recipe(f * r.rate, r.decay / f, r.eps)},
        "AdamW's rate as before": {"adamw": lambda r, f: Recipe(r.rate, r.decay / f, r.eps / f)},
        "SGD's rate times the factor": {"sgd": lambda r, f: Recipe(f * r.rate)},
    },
)
def test_each_step_keeps_the_two_trainings_in_proportion(evidence, *, sgd=rescaled_sgd, adamw=rescaled_adamw):
    """Induction over steps with all quantities as symbols: W' = f W, m' = m / f, v' = v / f^2 stay true."""
    import sympy

    f, W, G, m = sympy.symbols("f W G m", real=True, positive=True)
    v, rate, decay, eps, first, odds = sympy.symbols("v eta gamma epsilon beta_1 c", positive=True)
    step = sympy.Symbol("s", positive=True, integer=True)
    recipe, betas = Recipe(rate, decay, eps), (first, 1 / (1 + odds))
    difference = sgd_step(f * W, G, sgd(recipe, f)) - f * sgd_step(W, f * G, recipe)
    evidence.true("SGD: W' = f W", sympy.simplify(difference) == 0)
    options = {"betas": betas, "step": step, "sqrt": sympy.sqrt}
    scaled = adamw_step(W, m, v, f * G, recipe, **options)
    rescaled = adamw_step(f * W, m / f, v / f**2, G, adamw(recipe, f), **options)
    for name, a, b in zip(("W' = f W", "m' = m / f", "v' = v / f^2"), scaled, rescaled, strict=True):
        power = {"W' = f W": f, "m' = m / f": 1 / f, "v' = v / f^2": f**-2}[name]
        evidence.true(f"AdamW: {name}", sympy.simplify(power * a - b) == 0)


@equivalent.check(
    "exact",
    scope="torch's SGD and AdamW on an attention layer",
    controls={
        "weight decay as before": {"rules": {"AdamW": lambda r, f: Recipe(f * r.rate, r.decay, r.eps / f)}},
        "epsilon as before": {"rules": {"AdamW": lambda r, f: Recipe(f * r.rate, r.decay / f, r.eps)}},
        "AdamW's rate as before": {"rules": {"AdamW": lambda r, f: Recipe(r.rate, r.decay / f, r.eps / f)}},
        "SGD's rate times the factor": {"rules": {"SGD": lambda r, f: Recipe(f * r.rate)}},
        "W_O as before at the start": {"start": lambda f: 1.0},
    },
)
def test_sixty_steps_agree_to_the_last_bit(evidence, rng, *, rules=RULES, start=lambda f: f):
    """Factors 1/16, 1/4 and 2, by which float64 numbers are scaled exactly: no difference at all."""
    for name, rule in rules.items():
        for f in FACTORS:
            evidence.expect("largest difference", gap(rng, name, f, rule, start=start(f)), equals=0, error=0)


def gap(rng, name, f, rule, *, start=None, clip=None):
    """Largest difference of what the two trained layers put out, over their largest output."""
    pytest.importorskip("torch", reason="needs torch's optimisers")
    from empirical.sinks.sink_emergence_optimisers import trained_output

    seed, recipe = rng.seed("training"), RECIPES[name]
    scaled = trained_output(seed, name, recipe, recipe, factor=f, clip=clip)
    rescaled = trained_output(seed, name, recipe, rule(recipe, f), start=f if start is None else start, clip=clip)
    return ((scaled - rescaled).abs().max() / scaled.abs().max()).item()


clipped = Claim(
    paper=PAPER,
    slug="output-scale-with-clipping",
    where="Appendix D.4, Table 14 (left); the released training code clips gradients at length 1",
    says="The runs with scaled rows are runs with another learning rate, weight decay, epsilon and initial W_O.",
    formula=r"W_O'^{(s)} = f \, W_O^{(s)} \quad \text{for every step } s",
    gap="A layer of width 16; how often the limit was reached in the paper's runs is not known.",
    repair="While no gradient reaches the limit: the length of all gradients together contains W_O's, which the factor "
    "changes.",
)


@clipped.refutation("exact", controls={"no clipping": {"clip": None}, "a limit that is not reached": {"clip": LOOSE}})
def test_clipped_gradients_train_two_different_layers(evidence, rng, *, clip=BINDING):
    """AdamW and the rules of the appendix, limit 0.1 in a small layer: outputs differ by more than a thousandth."""
    for f in FACTORS:
        difference = gap(rng, "AdamW", f, rescaled_adamw, clip=clip)
        evidence.expect("largest difference over the largest output", difference, at_least=0.001)
        evidence.counterexample("AdamW after 60 steps", factor=f, limit=clip, difference=round(difference, 3))


@clipped.check("exact", controls={"a limit that is reached": {"clip": BINDING}})
def test_a_limit_that_is_not_reached_leaves_the_last_bit(evidence, rng, *, clip=LOOSE):
    """The same runs with a limit beyond all gradients."""
    for f in FACTORS:
        evidence.expect("difference", gap(rng, "AdamW", f, rescaled_adamw, clip=clip), equals=0, error=0)


root = Claim(
    paper=PAPER,
    slug="p-normalised-is-a-root",
    where="Appendix D.4, equation 44",
    says="exp(s_j) over the p-norm of its row is the p-th root of softmax at temperature 1/p; its rows sum to between "
    "1 and t^(1 - 1/p).",
    formula=r"\frac{e^{s_j}}{\bigl( \sum_{j'} e^{p s_{j'}} \bigr)^{1/p}}"
    r" = \Bigl( \frac{e^{p s_j}}{\sum_{j'} e^{p s_{j'}}} \Bigr)^{1/p}",
    gap="The range of the sums is ours. That training diverges for p >= 2 is not checked; rows then exceed 1.",
)
POWERS = (0.25, 1 / 3, 0.5, 1.0, 2.0, 3.0, 4.0)
"""Those of the paper."""
rows = st.lists(st.floats(-10, 10), min_size=1, max_size=12).map(np.array)


@root.check(
    "proof",
    controls={
        "without the root": {"form": lambda e, norm, p: e**p / norm},
        "without the temperature": {"form": lambda e, norm, p: (e / norm) ** (1 / p)},
    },
)
def test_the_root_of_the_ratio_is_the_ratio(evidence, *, form=lambda e, norm, p: (e**p / norm) ** (1 / p)):
    """e_j > 0, sum_j e_j^p > 0 and p > 0 as symbols."""
    import sympy

    e, norm, p = sympy.symbols("e N p", positive=True)
    evidence.true("difference is zero", sympy.simplify(form(e, norm, p) - e / norm ** (1 / p)) == 0)


def relative_rounding(row, p):
    """Of a root of exponentials: errors of p s, taken to the power 1 / p."""
    return 4 * EPS * (1 + 2 * max(p, 1 / p) * (len(row) + abs(row).max()))


@root.check(
    "property",
    scope="the two operators in float64",
    controls={
        "without the root": {"form": lambda s, p: rooted(s, p) ** p},
        "temperature p": {"form": lambda s, p: rooted(s / p**2, p)},
    },
)
@given(row=rows, p=st.sampled_from(POWERS))
def test_p_normalised_rows_are_rooted_softmax(evidence, row, p, *, form=rooted):
    """Scores up to 10, up to 12 keys, the paper's values of p."""
    ratio = form(row, p) / p_normalised(row, p)
    evidence.expect("ratio of the two", ratio, equals=1, error=relative_rounding(row, p))


@root.check(
    "property",
    scope="sums of rows",
    controls={
        "p in place of 1 / p": {"extreme": lambda t, p: t ** (1 - p)},
        "1 whatever p": {"extreme": lambda t, p: 1.0},
    },
)
@given(row=rows, p=st.sampled_from(POWERS), equal=st.booleans())
def test_rows_sum_to_between_one_and_a_power_of_their_length(
    evidence, row, p, equal, *, extreme=lambda t, p: t ** (1 - 1 / p)
):
    """Below 1 for p < 1 and above for p > 1; equal scores attain the far end, a dominant one comes close to 1."""
    row = 0 * row if equal else row
    mass, ends = p_normalised(row, p).sum(), sorted((1.0, extreme(len(row), p)))
    error = len(row) * relative_rounding(row, p)
    evidence.expect("sum over its lower end", mass / ends[0], at_least=1 - error)
    evidence.expect("sum over its upper end", mass / ends[1], at_most=1 + error)
    if equal:
        evidence.expect("sum of equal scores over the far end", mass / extreme(len(row), p), equals=1, error=error)

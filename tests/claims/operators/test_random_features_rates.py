"""How fast random-feature attention improves with heads and samples (Fu, Guo, Bai, Mei 2023).

What the paper says. M heads approximate a target f to squared error O(B(f) d^2 log M / M) with values of small norm
(Theorem 1); training the values of M heads on n samples under norm constraints has excess risk
O(sqrt(B(f)) (n^-1/2 + d M^-1/2)) for a Lipschitz loss (Theorem 2). Both from memory; constants unknown.

Notation. As in test_random_features.py. v(W) = sum_j alpha_j phi_W(X_j) are the values that Theorem 1's construction
gives to a head W, for f = sum_j alpha_j K(., X_j); then v_m = v(W_m) / M.

Scope. Squared errors on uniform unit tokens. Upper bounds make slopes at most what they say: tests are one-sided where
the statement is. The bounds' numerical values are the subject of the last claim.
"""

import numpy as np

from reports.claim import Claim
from theory.operators.random_features import SPREAD, gaussian_heads, head_features, kernel, sphere
from theory.operators.random_features_norms import class_weight, risk_bound
from theory.operators.random_features_targets import average

PAPER = "fu2023single"
ALPHA = 2e-5
INVARIANT = ("average of <b,x>", "average of <b,x>²", "average of t<b,x>")
UNLEARNABLE = ("alternating sum", "random labels")

# -- Theorem 1 --------------------------------------------------------------------------------------------------------

approximation = Claim(
    paper=PAPER,
    slug="approximation-rate",
    where="Theorem 1",
    says="Giving each of M random heads the values v(W)/M approximates f with mean squared error in proportion to 1/M, "
    "and these values have M sum |v_m|^2 near |f|^2 and sum |v_m| at most |f| on average.",
    formula=r"\mathbb{E} (f_M - f)^2 = \frac{\mathrm{Var}\, \langle v(W), \varphi_W \rangle}{M}, \quad "
    r"\mathbb{E}\, M \sum_m |v_m|^2 = \|f\|_{\mathcal{H}}^2",
    gap="Interpolants of one target at 64 inputs, d = 3, 6, 12; the factor d^2 log M of the bound is not seen: M times "
    "the error over |f|^2 does not grow with d. Errors are averaged over inputs, not the worst.",
)
HEADS = tuple(2**k for k in range(5, 12))


def construction(draw, d, keys, spread):
    """Errors (len(HEADS),) of f_M on 64 new inputs, and M sum |v_m|^2, sum |v_m| over their bounds at the last M."""
    x, b = sphere(draw, 128, keys + 1, d), sphere(draw, d)
    y = average(2)(x[:64], b)
    K = kernel(x, x[:64])
    alpha = np.linalg.solve(K[:64], y)
    square = alpha @ y  # |f|^2
    errors = []
    for count in HEADS:
        phi = head_features(x, gaussian_heads(draw, count, d, spread=spread))
        values = np.einsum("n,nma->ma", alpha, phi[:64]) / count
        errors.append(((np.einsum("ma,nma->n", values, phi[64:]) - K[64:] @ alpha) ** 2).mean())
    lengths = np.linalg.norm(values, axis=1)
    return np.array(errors) / square, count * (lengths**2).sum() / square, lengths.sum() / np.sqrt(square)


@approximation.check("statistical", controls={"entries of variance 1": {"spread": 1.0}})
def test_the_construction_errs_by_one_over_heads(evidence, rng, *, spread=SPREAD):
    """Slopes of log error against log M = 32 to 2048 in d = 3, 6, 12, between -5/4 and -3/4: half-way to -1 +- 1/2.

    48 draws of inputs, direction and heads each. The mean of M sum |v_m|^2 / |f|^2 is 1 (t test), that of
    sum |v_m| / |f| at most 1 (Jensen).
    """
    from empirical.operators.random_features import slopes

    curves = {}
    for d in (3, 6, 12):
        draws = [construction(rng("heads", d, i), d, 4, spread) for i in range(48)]
        errors, square, length = (np.array(one) for one in zip(*draws, strict=True))
        curves[d] = errors
        evidence.note(f"d = {d}: M times the error over |f|^2 is {(errors * HEADS).mean():.3f} on average.")
        evidence.mean_within(f"slope in heads, d = {d}", slopes(HEADS, errors), -1.25, -0.75, alpha=ALPHA)
        evidence.mean_equals(f"M sum of |v|² over |f|², d = {d}", square, 1, alpha=ALPHA)
        evidence.mean_at_most(f"sum of |v| over |f|, d = {d}", length, 1, alpha=ALPHA)
    figure = rate_figure("heads M", "error over |f|²", HEADS, {f"d = {d}": c for d, c in curves.items()}, -1)
    evidence.figure("Error of Theorem 1's construction", figure, "Mean and quartiles of 48 draws; dashed: slope -1.")


def rate_figure(x_label, y_label, sizes, curves, slope):
    """Mean curves (repetitions, sizes) by name with their quartiles, and a dashed line of the given slope."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        (line,) = axes.loglog(sizes, curve.mean(axis=0), "o-", ms=3, label=name)
        axes.fill_between(sizes, *np.quantile(curve, (0.25, 0.75), axis=0), color=line.get_color(), alpha=0.2)
    top = max(curve.mean(axis=0)[0] for curve in curves.values())
    axes.loglog(sizes, top * (np.array(sizes) / sizes[0]) ** slope, "k--", lw=0.8)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(frameon=False, fontsize="small")
    return figure


# -- Theorem 2 --------------------------------------------------------------------------------------------------------

samples = Claim(
    paper=PAPER,
    slug="excess-risk-in-samples",
    where="Theorem 2 and abstract",
    says="With many heads, the excess risk of trained values falls with the number of samples at least like n^-1/2.",
    formula=r"\mathcal{E}(n) = O(n^{-1/2})",
    gap="Squared loss, ridge with a validated penalty in place of constraints, noise of half the target's deviation, "
    "d = 6, N = 4, M = 1000, n = 128 to 1024. A rate, not the constant.",
)
SIZES = (64, 128, 256, 512, 1024)


def sample_curves(rng):
    """Learning curves of 1000 heads on invariant and unlearnable targets, 36 repetitions."""
    from empirical.operators.random_features import Experiment

    names, noise = (*INVARIANT, *UNLEARNABLE), 0.5
    return Experiment(rng.seed("samples"), 36, 6, 4, SIZES, ("RFA, M heads",), names, noise=noise)


@samples.check(
    "experiment",
    controls={
        "a target that sees the keys' order": {"targets": UNLEARNABLE[:1]},
        "random labels": {"targets": UNLEARNABLE[1:]},
    },
)
def test_the_excess_risk_falls_at_least_like_the_root_of_samples(evidence, rng, *, targets=INVARIANT):
    """Slope of log excess risk against log n >= 128, one-sided t interval over 36 repetitions for each target."""
    from empirical.operators.random_features import slopes

    experiment = sample_curves(rng)
    curves = {name: experiment.of(experiment.curves(), "RFA, M heads", name) for name in targets}
    figure = rate_figure("samples n", "excess risk", SIZES, curves, -0.5)
    evidence.figure("Excess risk against samples", figure, "Mean and quartiles of 36 repetitions; dashed: slope -1/2.")
    for name, curve in curves.items():
        evidence.mean_at_most(f"slope in samples, {name}", slopes(SIZES[1:], curve[:, 1:]), -0.5, alpha=ALPHA)


heads = Claim(
    paper=PAPER,
    slug="excess-risk-in-heads",
    where="Theorem 2 and abstract",
    says="With many samples, the excess risk falls with the number of heads at least like M^-1/2.",
    formula=r"\mathcal{E}(M) = O(M^{-1/2})",
    gap="Squared loss, no noise, n = 512, d = 6, N = 4, M = 8 to 64, one target; a rate, not the constant.",
)
FEW = (8, 16, 32, 64)


@heads.check("experiment", controls={"a target that sees the keys' order": {"target": "alternating sum"}})
def test_the_excess_risk_falls_at_least_like_the_root_of_heads(evidence, rng, *, target="average of <b,x>²"):
    """Slope of log excess risk against log M, one-sided t interval over 16 repetitions."""
    from empirical.operators.random_features import Experiment, slopes

    curves = []
    for count in FEW:
        names = ("average of <b,x>²", "alternating sum")
        experiment = Experiment(rng.seed("heads"), 16, 6, 4, (512,), ("RFA, M heads",), names, count=count)
        curves.append(experiment.of(experiment.curves(), "RFA, M heads", target)[:, 0])
    curve = np.array(curves).T
    figure = rate_figure("heads M", "excess risk", FEW, {target: curve}, -0.5)
    evidence.figure("Excess risk against heads", figure, "Mean and quartiles of 16 repetitions; dashed: slope -1/2.")
    evidence.mean_at_most("slope in heads", slopes(FEW, curve), -0.5, alpha=ALPHA)


informative = Claim(
    paper=PAPER,
    slug="bound-explains-simulations",
    where="Theorem 2 (our stronger reading: its bound accounts for the simulations)",
    says="At the sizes of the paper's simulations the bound of Theorem 2 lies below the risk of a constant predictor.",
    formula=r"\sqrt{B(f)} \, \bigl(n^{-1/2} + d\, M^{-1/2}\bigr) < \mathrm{sd}(f)",
    gap="With constant 1 and without logarithms; the theorem's constant is not known to us. So the bound holds there "
    "but does not discriminate: constants and unlearnable targets meet it too. Its rates are other claims.",
)


@informative.refutation(
    "exact",
    controls={"a hundred million million heads and samples": {"sizes": {"samples": (10**14,), "count": 10**14}}},
)
def test_the_bound_exceeds_the_risk_of_a_constant(evidence, *, sizes=None):
    """Averages of <b, x>^p, p = 1 to 4, d = N = 16, M = 1000, n up to 10^6: 1-Lipschitz losses of a constant are <= sd.

    The deviation is exact: E <b, x>^2q = (2q - 1)!! / (d (d + 2) ... (d + 2q - 2)) on the sphere, over N keys.
    """
    sizes = sizes or {"samples": (64, 1024, 4096, 10**6), "count": 1000}
    d = keys = 16
    for power in range(1, 5):
        deviation = np.sqrt((sphere_moment(2 * power, d) - sphere_moment(power, d) ** 2) / keys)
        for count in sizes["samples"]:
            bound = risk_bound(float(class_weight(power - 1)), count, sizes["count"], d)
            evidence.expect("bound over the risk of a constant", bound / deviation, at_least=1)
        needed = float(class_weight(power - 1)) / deviation**2
        evidence.counterexample(
            f"Average of <b,x>^{power}",
            deviation=round(deviation, 5),
            bound=round(bound, 3),
            samples_needed_at_infinitely_many_heads=round(needed),
        )


def sphere_moment(power, d):
    """E <b, x>^power for uniform unit x in d dimensions."""
    moments = [(2 * i - 1) / (d + 2 * i - 2) for i in range(1, power // 2 + 1)]
    return float(np.prod(moments)) if power % 2 == 0 else 0.0

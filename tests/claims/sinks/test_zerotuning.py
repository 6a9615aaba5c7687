"""What scaling the first token's attention does to a row (ZeroTuning, Han et al., 2025): weights, gaps, leverage.

What the paper says. Scale the first token's attention by gamma and let the row sum to 1 again: the proportions of the
other tokens stay. Version 1 concludes that gamma > 1 flattens and gamma < 1 sharpens their distribution, version 3 that
attention is systematically shifted and reshaped; all say that a strong sink amplifies the effect.

Notation. a is a row, a0 the first token's weight, D = 1 + (gamma - 1) a0, p = gamma a0 / D its weight after tuning,
r_i = a_i / (1 - a0) what the others have among themselves. Our `gap_change` is their E_ij.

Scope. One row of one head. Proofs take three tokens, the last of which stands for all others: only their sum enters.
"""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import normalised, softmax_rows
from theory.sinks.zerotuning import best_sink, denominator, gap_change, leverage, logit_bias, mass, shift, tuned

PAPER = "han2025zerotuning"
EPS = np.finfo(float).eps

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(3, 40)
logarithms = st.floats(-3, 3)


def symbols():
    """Odds x against the first token, a share y of a second among the others, gamma; all positive."""
    import sympy

    return sympy.symbols("x y gamma", positive=True)


def symbolic_row(x, y):
    """(1, x y / (1 + y), x / (1 + y)) / (1 + x): any first token, any second one, and all the rest as the third."""
    return np.array([1 / (1 + x), x / (1 + x) * y / (1 + y), x / (1 + x) / (1 + y)], dtype=object)


def is_zero(expression):
    import sympy

    return sympy.simplify(expression) == 0


def sign(expression):
    """+1, -1 or 0 where a sum of terms of one sign shows it; None otherwise."""
    import sympy

    factored = sympy.factor(sympy.together(expression))
    if factored.is_zero:
        return 0
    return 1 if factored.is_positive else -1 if factored.is_negative else None


def not_normalised(A, gamma):
    return np.where(np.arange(A.shape[-1]) == 0, A * gamma, A)


def first_alone(A, gamma):
    """The first token gets gamma a0 itself, the others what is left: the row sums to 1 with the wrong D."""
    a0 = A[..., :1]
    return np.where(np.arange(A.shape[-1]) == 0, A * gamma, A * (1 - gamma * a0) / (1 - a0))


def temperature(A, gamma):
    """All logits times gamma: here the distribution of the others does change."""
    return normalised(A**gamma)


def second_token(A, gamma):
    return tuned(A, gamma, token=1)


def random_row(seed, n):
    """Softmax of Gaussian scores, the first raised by up to 8."""
    draw = np.random.default_rng(seed)
    s = draw.standard_normal(n)
    s[0] += draw.uniform(-2, 8)
    return s


identity = Claim(
    paper=PAPER,
    slug="scaling-identity",
    where="Method: attention scaling",
    says="Scaled by gamma and normalised again, the first token has gamma a0 / D and every other a_i / D, as a bias of "
    "ln gamma on the first logit gives.",
    formula=r"a_0' = \frac{\gamma a_0}{D}, \quad a_i' = \frac{a_i}{D}, \quad D = (\gamma - 1) a_0 + 1",
    gap="gamma > 0; gamma = 0 leaves nothing of a row that sees the first token alone.",
)
BROKEN = {
    "not normalised": {"tune": not_normalised},
    "gamma a0 itself, the others share the rest": {"tune": first_alone},
}


@identity.check("proof", controls=BROKEN)
def test_a_tuned_row_has_its_closed_form(evidence, *, tune=tuned):
    """The code's own lines run on symbols; each difference simplifies to 0."""
    x, y, gamma = symbols()
    row = symbolic_row(x, y)
    after, D = tune(row, gamma), denominator(row[0], gamma)
    evidence.true("the row sums to 1", is_zero(after.sum() - 1))
    evidence.true("the first token has gamma a0 / D", is_zero(after[0] - mass(row[0], gamma)))
    evidence.true("another has a_i / D", is_zero(after[1] - row[1] / D))


@identity.check("property", controls={**BROKEN, "ln gamma on the second logit": {"tune": second_token}})
@given(seed=seeds, n=sizes, log_gamma=logarithms)
def test_it_is_a_bias_of_the_first_logit(evidence, seed, n, log_gamma, *, tune=tuned):
    """Tuned softmax against softmax of scores with the bias; the search drives the difference up."""
    s, gamma = random_row(seed, n)[None], np.exp(log_gamma)
    # Scores of at most 16 carry a relative error of 16 ulps into the weights, sums another n.
    difference = tune(softmax_rows(s), gamma) - softmax_rows(s + logit_bias(gamma, n))
    evidence.expect("largest difference of weights", abs(difference).max(), at_most=4 * (n + 16) * EPS)


proportions = Claim(
    paper=PAPER,
    slug="proportions-are-kept",
    where="Method: key property",
    says="Tuning keeps the relative proportions of all tokens but the first, for every gamma.",
    formula=r"\frac{a_i'}{a_j'} = \frac{a_i}{a_j} \quad (i, j \ge 1)",
    gap="Within one row of one layer; later layers see other values.",
)


@proportions.check("proof", controls={"temperature": {"tune": temperature}, "another token": {"tune": second_token}})
def test_ratios_of_other_tokens_do_not_depend_on_gamma(evidence, *, tune=tuned):
    """With symbols for the row and gamma."""
    x, y, gamma = symbols()
    after = tune(symbolic_row(x, y), gamma)
    evidence.true("the ratio is the old one", is_zero(after[1] / after[2] - y))


flattens = Claim(
    paper=PAPER,
    slug="sharpens-or-flattens",
    where="Abstract (version 1)",
    says="gamma > 1 flattens and gamma < 1 sharpens the distribution of attention over the tokens after the first.",
    formula=r"\gamma > 1 \Rightarrow r' \text{ flatter}, \quad \gamma < 1 \Rightarrow r' \text{ sharper}",
    gap="The wording of the theorem in the paper's body was not available to us; this is the abstract's.",
    repair="What shrinks and grows are the absolute differences of weights, all by the factor 1 / D; the distribution "
    "of the other tokens is the same for every gamma.",
)


@flattens.refutation("exact", controls={"temperature": {"tune": temperature}})
def test_the_distribution_of_the_others_never_changes(evidence, *, tune=tuned):
    """Three tokens, 1/2, 1/3 and 1/6, as fractions: the others have 2/3 and 1/3 before and after."""
    row = np.array([[Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)]], dtype=object)
    for gamma in (Fraction(1, 4), Fraction(4)):
        after = tune(row, float(gamma) if tune is temperature else gamma)[0]
        share = after[1] / (after[1] + after[2])
        evidence.expect("change of the second token's share", share - Fraction(2, 3), equals=0, error=0)
        evidence.counterexample("distribution of the others after tuning", gamma=gamma, shares=(share, 1 - share))


@flattens.check(
    "proof",
    controls={
        "not normalised": {"tune": not_normalised},
        "1 / gamma for gamma": {"tune": lambda A, gamma: tuned(A, 1 / gamma)},
    },
)
def test_absolute_gaps_fall_as_gamma_rises(evidence, *, tune=tuned):
    """The gap between two of the others, its second token the larger: its derivative by gamma is negative."""
    import sympy

    x, y, gamma = symbols()
    after = tune(symbolic_row(x, 1 + y), gamma)
    slope = sympy.diff(after[1] - after[2], gamma)
    evidence.true("the slope is negative", sign(slope) == -1)


shifts = Claim(
    paper=PAPER,
    slug="systematic-shift",
    where="Abstract (version 3)",
    says="A bias on the first logit shifts attention systematically: the first token's weight rises with gamma from 0 "
    "to 1, all others fall in proportion, and the output moves on a line through the first token's value.",
    formula=r"\frac{\partial p}{\partial \gamma} = \frac{a_0 (1 - a_0)}{D^2} > 0, \quad o' - v_0 = \frac{o - v_0}{D}",
    gap="`Reshapes` holds of the whole row; among the other tokens nothing is reshaped (proportions-are-kept).",
)


@shifts.check("proof", controls={"another token": {"tune": second_token}, "not normalised": {"tune": not_normalised}})
def test_weight_and_output_move_one_way(evidence, *, tune=tuned):
    """Slope and limits of the weight, then the output with symbolic values; with v_0 = 0 it is scaled by 1 / D."""
    import sympy

    x, y, gamma = symbols()
    row = symbolic_row(x, y)
    after, D = tune(row, gamma), denominator(row[0], gamma)
    values = np.array(sympy.symbols("v0:3"), dtype=object)
    evidence.true("the first weight rises", sign(sympy.diff(after[0], gamma)) == 1)
    evidence.true("its slope is a0 (1 - a0) / D^2", is_zero(sympy.diff(after[0], gamma) - row[0] * (1 - row[0]) / D**2))
    evidence.true("it starts at 0", sympy.limit(after[0], gamma, 0) == 0)
    evidence.true("it tends to 1", sympy.limit(after[0], gamma, sympy.oo) == 1)
    moved = after @ values - values[0] - (row @ values - values[0]) / D
    evidence.true("the output moves on the line", is_zero(moved))


amplified = Claim(
    paper=PAPER,
    slug="sinks-amplify",
    where="Abstract; method: analysis of the effect",
    says="Tuning changes the gap of two other tokens by E = |a_i - a_j| |gamma - 1| a0 / D, which increases with a0: "
    "being a sink amplifies the effect.",
    formula=r"E_{ij} = |a_i - a_j| \frac{|\gamma - 1| a_0}{D}, \quad"
    r" \frac{\partial E_{ij}}{\partial a_0} = |a_i - a_j| \frac{|\gamma - 1|}{D^2} \ge 0",
    gap="One row. What matters to a model is more than gaps: the change of its output is |p - a0| times the distance "
    "between v_0 and the mean value of the others, and has the same peak.",
    repair="The change relative to the gap increases with a0; E itself, in a row that sums to 1, does so only up to "
    "a0 = 1 / (1 + sqrt(gamma)) and falls to 0 as the sink takes everything.",
)


def frozen(a0, share):
    """Two weights that stay where they are while a0 grows, as in the paper's derivative."""
    return Fraction(3, 8), Fraction(1, 8)


def on_the_simplex(a0, share):
    """The others share what the first token leaves."""
    return (1 - a0) * share, (1 - a0) * (1 - share)


@amplified.refutation("exact", controls={"the others' weights frozen": {"others": frozen}})
def test_a_stronger_sink_has_less_leverage(evidence, *, others=on_the_simplex):
    """gamma = 4, the others sharing 3 : 1, as fractions: the change at a0 = 9/10 is a quarter of that at 1/3."""
    change = {a0: gap_change(*others(a0, Fraction(3, 4)), a0, Fraction(4)) for a0 in (Fraction(1, 3), Fraction(9, 10))}
    weak, strong = change.values()
    evidence.expect("E at a0 = 9/10 over E at 1/3", strong / weak, less_than=1)
    evidence.counterexample("gamma = 4, r = (3/4, 1/4)", **{f"E at a0 = {a0}": value for a0, value in change.items()})
    for gamma in (0.6, 1.5, 3.0):
        share = shift(0.9, gamma) / shift(best_sink(np.sqrt(gamma)), gamma)
        evidence.note(f"gamma = {gamma:g}: a sink with 0.9 has {share:.0%} of the largest leverage.")


def gap_alone(first, second, a0, gamma):
    """Without the renormalisation."""
    return abs(first - second) * abs(gamma - 1) * a0


@amplified.check("proof", scope="the formula", controls={"without D": {"change": gap_alone}})
def test_the_formula_is_the_change_of_the_gap(evidence, *, change=gap_change):
    """Old gap minus new one is (gamma - 1) a0 / D times the gap; squared, to be rid of the absolute values."""
    x, y, gamma = symbols()
    row = symbolic_row(x, y)
    after = tuned(row, gamma)
    moved = (row[1] - row[2]) - (after[1] - after[2])
    evidence.true("E^2 is the square of the change", is_zero(moved**2 - change(row[1], row[2], row[0], gamma) ** 2))


@amplified.check("proof", scope="relative to the gap", controls={"on the simplex": {"per_gap": shift}})
def test_the_relative_change_increases_with_the_sink(evidence, *, per_gap=leverage):
    """a0 = 1 / (1 + x): the derivative by the odds x against the first token is negative for every gamma.

    For frozen weights this is the paper's own derivative.
    """
    import sympy

    x, _, gamma = symbols()
    per_unit = sympy.simplify(per_gap(1 / (1 + x), gamma) / abs(gamma - 1))
    evidence.true("falls with the odds against the sink", sign(sympy.diff(per_unit, x)) == -1)


@amplified.check(
    "proof",
    scope="its peak",
    controls={
        "the peak at one half": {"at": lambda root: 1 / (1 + root / root)},
        "gamma itself": {"at": lambda root: 1 / (1 + root**2)},
    },
)
def test_the_change_peaks_at_one_over_one_plus_root_gamma(evidence, *, at=best_sink):
    """In the odds x the slope of |p - a0| is a positive factor times (x* - x), x* = 1 / a0* - 1; equality at x*."""
    import sympy

    x, _, root = symbols()
    per_unit = sympy.simplify(shift(1 / (1 + x), root**2) / abs(root**2 - 1))
    peak = sympy.simplify(1 / at(root) - 1)
    slope = sympy.diff(per_unit, x)
    evidence.true("no slope at the peak", is_zero(slope.subs(x, peak)))
    evidence.true("rising on one side, falling on the other", sign(sympy.cancel(slope / (peak - x))) == 1)


@amplified.check(
    "exact", scope="its peak", controls={"the others' weights frozen": {"change": lambda a0, g: leverage(a0, g) / 4}}
)
def test_the_peak_is_where_a_grid_finds_it(evidence, *, change=shift):
    """Largest of 9999 values of a0 for five gammas: its place is a grid step from 1 / (1 + sqrt(gamma)) at most."""
    grid = np.arange(1, 10_000) / 10_000
    for gamma in (0.1, 0.6, 1.5, 3.0, 10.0):
        found = grid[np.argmax(change(grid, gamma))]
        evidence.expect("distance from the formula", abs(found - best_sink(np.sqrt(gamma))), at_most=1e-4)
    evidence.figure("Change of a gap on the simplex", leverage_figure(grid), "Dots: the peaks by the formula.")


def leverage_figure(grid):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    for gamma, style in ((0.25, ":"), (0.6, "-."), (1.5, "--"), (4.0, "-")):
        (line,) = axes.plot(grid, shift(grid, gamma), style, label=f"gamma = {gamma:g}")
        top = best_sink(np.sqrt(gamma))
        axes.plot(top, shift(top, gamma), "o", color=line.get_color())
    axes.set_xlabel("weight a0 of the first token before tuning")
    axes.set_ylabel("change over |r_i - r_j|")
    axes.legend()
    return figure

"""What the thresholds find, and what the figures print (An et al., ICLR 2025).

What the paper says. A weight or activation is an outlier above 1000 times the mean magnitude of its matrix; a key, in
the released code, if it collects a tenth of the attention. In LLaMA-2-7B half of all outlier tokens are initial ones,
and weight outliers are in layers 2, 31 and 32.

Notation. n elements or tokens; tau = 1000. The *ratio* of a row, column or matrix is its largest over its mean
magnitude. Numbers that the figures print are constants here.

Scope. Arithmetic. Figures were read from the released repository's copies, curves to within a few units.
"""

import math
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.sinks import measures
from theory.sinks import systematic_outliers as theory
from theory.sinks.sink_emergence_identities import possible

PAPER = "an2025systematic"
EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)
WEIGHTS = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
"""Of the blocks of LLaMA-2-7B."""

# -- thresholds --------------------------------------------------------------------------------------------------------

detector = Claim(
    paper=PAPER,
    slug="threshold-finds-outliers",
    where="Section 3 (definition of weight and activation outliers)",
    says="1000 times the mean of a matrix marks what stands out of it: of n - 1 elements of size 1 and one more, the "
    "one if and only if it exceeds 1000 (n - 1) / (n - 1000); in n <= 1000 elements nothing.",
    formula=r"x > \tau\,\overline{|X|} \iff x > \tau\, \frac{n - 1}{n - \tau}, \quad n > \tau",
    gap="One outlier raises the mean that it is measured against, several more so.",
)


@detector.check(
    "property",
    controls={
        "median in place of mean": {"find": lambda x: abs(x) > measures.TAU * np.median(abs(x))},
        "mean of the row": {"find": lambda x: abs(x) > measures.TAU * abs(x).mean(axis=-1, keepdims=True)},
    },
)
@given(rows=st.integers(2, 8), columns=st.integers(600, 3000), seed=seeds, above=st.booleans())
def test_an_element_is_found_just_above_its_threshold(evidence, rows, columns, seed, above, *, find=measures.outliers):
    """One part in 10^9 above or below the closed form, at a random place, with random signs."""
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], (rows, columns))
    place = rng.integers(rows), rng.integers(columns)
    threshold = float(theory.smallest_outlier(x.size, Fraction(measures.TAU)))
    x[place] *= threshold * (1 + (1e-9 if above else -1e-9))
    found = find(x)
    evidence.expect("elements found", found.sum(), equals=int(above), error=0)
    evidence.expect("the planted one found", int(found[place]), equals=int(above), error=0)


@detector.check("exact", scope="n <= 1000", controls={"1001 elements": {"n": 1001}})
def test_a_thousand_elements_are_too_few(evidence, *, n=1000):
    """One element alone, the others 0, has the largest ratio, n."""
    x = np.zeros(n)
    x[0] = 1.0
    evidence.expect("largest over mean", measures.max_over_mean(x), equals=n, error=n * EPS)
    evidence.expect("outliers", int(measures.outliers(x).sum()), equals=0, error=0)


accident = Claim(
    paper=PAPER,
    slug="threshold-is-no-accident",
    where="Section 3 (threshold of 1000; ours)",
    says="Weights drawn from a Gaussian or a Laplace law have no outlier: in all 6.5 billion of LLaMA-2-7B's blocks "
    "less than one is expected, by hundreds of orders of magnitude.",
    formula=r"n\, P\bigl( |w| > \tau\, \mathrm{E} |w| \bigr) < 10^{-300}",
    gap="Light tails only: of Student's t with three degrees of freedom some ten would pass the threshold by chance.",
)
LAWS = {
    # name: (logarithm of the tail at t, mean magnitude)
    "Gaussian": lambda stats: (lambda t: math.log(2) + stats.norm.logsf(t), math.sqrt(2 / math.pi)),
    "Laplace": lambda stats: (lambda t: -t, 1.0),
    "Student t, 3": lambda stats: (lambda t: math.log(2) + stats.t(3).logsf(t), 2 * math.sqrt(3) / math.pi),
}


@accident.check("exact", controls={"Student's t, three degrees of freedom": {"laws": ("Student t, 3",)}})
def test_light_tails_do_not_reach_the_threshold(evidence, *, laws=("Gaussian", "Laplace")):
    """Expected number beyond tau times the mean, as a logarithm to base 10."""
    from scipy import stats

    for name in (*laws, "Student t, 3"):
        tail, mean = LAWS[name](stats)
        expected = (math.log(WEIGHTS) + tail(measures.TAU * mean)) / math.log(10)
        evidence.note(f"{name}: 10^{expected:.1f} expected.")
        if name in laws:
            evidence.expect("log10 of the expected number", expected, at_most=-300)


keys = Claim(
    paper=PAPER,
    slug="attention-threshold",
    where="Released code (a tenth of the attention, 1024 and 4096 tokens)",
    says="A key that collects a tenth of all attention stands out: uniform causal attention gives none so much, at "
    "1024 and at 4096 tokens. Keys of the last tenth are never found, whatever they get.",
    formula=r"\frac{H_n}{n} < \frac{1}{10} \iff n \ge 44, \qquad \sum_t A_{tk} \le n - k",
    gap="That outliers stand early is so in part by this construction.",
)


@keys.check("exact", controls={"43 tokens": {"sizes": (43,)}})
def test_uniform_attention_stays_below_a_tenth(evidence, *, sizes=(44, 1024, 4096)):
    """The first key's share is the largest: harmonic numbers as fractions up to 44, in floats beyond."""
    for n in sizes:
        share = theory.uniform_share(0, n) if n < 100 else (1 / np.arange(1, n + 1)).sum() / n
        evidence.expect(f"first key's share of {n} tokens", share, less_than=Fraction(1, 10))


@keys.check("exact", scope="late keys", controls={"a key at nine tenths": {"key": 90}})
def test_a_late_key_that_gets_everything_is_not_found(evidence, *, key=91):
    """100 tokens; all queries that see the key look at it alone, the others at themselves."""
    A = np.tril(np.ones((100, 100)))
    A = np.where(A > 0, np.eye(100), 0)
    A[key:] = np.arange(100) == key
    evidence.expect("importance of the key", measures.importance(A)[key], equals=1, error=0)
    evidence.expect("found", int(measures.attention_outliers(A[None])[key]), equals=0, error=0)


# -- figures -----------------------------------------------------------------------------------------------------------

by_row = Claim(
    paper=PAPER,
    slug="row-ratio-is-not-matrix-ratio",
    where="Section 3 (definition) against the figure on positions of weight outliers and its code",
    says="Ratios of rows and columns, which the figure shows, tell which matrices have outliers by the definition, "
    "which takes the mean of the matrix.",
    formula=r"\max_{r, c} \Bigl( \frac{\max |W_{r:}|}{\overline{|W_{r:}|}}, \frac{\max |W_{:c}|}{\overline{|W_{:c}|}} "
    r"\Bigr) > \tau \iff \max |W| > \tau\, \overline{|W|}",
    gap="So 565 and 585 in layers 31 and 32 neither show nor exclude outliers as defined. A checkpoint would tell.",
)


def figure_ratio(W):
    """The figure's: the largest ratio of any row or column."""
    return max(measures.max_over_mean(W, axis=axis).max() for axis in (0, 1))


@by_row.refutation("exact", controls={"a column of ones": {"column": lambda n: np.ones(n)}})
def test_an_outer_product_has_the_product_of_its_ratios(
    evidence, *, column=lambda n: np.where(np.arange(n) == 0, 1.0, 1e-4)
):
    """33 by 33: no row or column above 33, and 1000 times the matrix's mean is exceeded."""
    row = np.where(np.arange(33) == 0, 1.0, 1e-4)
    W = np.outer(column(33), row)
    evidence.counterexample("outer product", size=W.shape, figure=figure_ratio(W), matrix=measures.max_over_mean(W))
    evidence.expect("figure's ratio", figure_ratio(W), less_than=100)
    evidence.expect("matrix's ratio", measures.max_over_mean(W), at_least=measures.TAU)


@by_row.refutation("exact", scope="the other direction", controls={"the row repeated": {"others": 0.0}})
def test_a_quiet_row_has_a_large_ratio_and_no_outlier(evidence, *, others=1.0):
    """Two rows of 1100, the first with a single 1: its ratio is 1100, and the matrix's is 2."""
    W = np.stack([np.eye(1, 1100)[0], np.full(1100, others)])
    evidence.counterexample("two rows", figure=figure_ratio(W), matrix=measures.max_over_mean(W))
    evidence.expect("figure's ratio", figure_ratio(W), at_least=measures.TAU)
    evidence.expect("matrix's ratio", measures.max_over_mean(W), less_than=measures.TAU)


dotted = Claim(
    paper=PAPER,
    slug="reference-median",
    where="Figure on positions of weight outliers, left, legend",
    says="The dotted line is the median of the seven matrices' ratios, as its legend says.",
    formula=r"\mathrm{median}_7 \text{ at layer 2} \approx 240",
    gap="Read off the plot. The code takes the mean.",
)
LAYER_TWO = {"down": 1165, "largest of the other six": 200, "dotted": 240}
"""Read off the plot within 5 units; the six other matrices stay below 200 in all layers."""


@dotted.refutation("exact", controls={"a line below the six": {"line": 140}})
def test_the_line_lies_above_six_of_seven_points(evidence, *, line=LAYER_TWO["dotted"]):
    """A median has at most three of seven points strictly below it; the mean of 1165 and six of 0 to 200 can be 240."""
    below = LAYER_TWO["largest of the other six"]
    evidence.counterexample("layer 2", down_proj=LAYER_TWO["down"], others=f"six below {below}", line=line)
    evidence.expect("line", line, at_least=below)
    evidence.expect("line as a mean", line, within=(LAYER_TWO["down"] / 7, (LAYER_TWO["down"] + 6 * below) / 7))


shares = Claim(
    paper=PAPER,
    slug="printed-token-shares",
    where="Figures on positions of activation and of attention outliers, middle (LLaMA-2-7B)",
    says="50.0 % initial tokens, 40.5 % '.' and 9.5 % '_' are two outliers in each of 100 sequences: the first token, "
    "and one other, which is '.' in 81 of them.",
    formula=r"\frac{100}{200},\ \frac{81}{200},\ \frac{19}{200}",
    gap="That 100 sequences were read and each has outliers is assumed; the code counts a first token once a "
    "sequence and fails on a single outlier. The label '.' stands for some 30 delimiters, '_' for some 40 short words "
    "and digits.",
)
PRINTED = ("50.0", "40.5", "9.5")


def counts(printed, sequences):
    """All (first, second, third) that print so; each sequence has two outliers or more, one first token at most."""
    found = []
    for n in range(2 * sequences, 3 * sequences + 1):
        first = range(sequences + 1)
        fitting = [
            [m for m in span if printable(m, n, text)]
            for span, text in zip((first, range(n), range(n)), printed, strict=True)
        ]
        found += [(a, b, n - a - b) for a in fitting[0] for b in fitting[1] if n - a - b in fitting[2]]
    return found


def printable(count, n, text):
    return f"{100 * count / n:.1f}" == text


@shares.check(
    "exact",
    controls={"49.5 % initial tokens": {"printed": ("49.5", "41.0", "9.5")}, "64 sequences": {"sequences": 64}},
)
def test_the_shares_have_one_solution(evidence, *, printed=PRINTED, sequences=100):
    """All counts up to three outliers a sequence, enumerated."""
    found = counts(printed, sequences)
    evidence.expect("solutions", len(found), equals=1, error=0)
    evidence.true("it is 100, 81, 19", found[0] == (100, 81, 19))
    evidence.true("each is a share of 200", all(possible(one, 200) for one in printed))
    evidence.note(
        "Both figures print the same shares. If Table 1's 95 % is of such 200 tokens, 10 activation outliers are at "
        "other positions than attention's, and yet of the same kinds in the same numbers."
    )

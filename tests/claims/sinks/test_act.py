"""Attention Calibration, the rule itself (ACT; Yu et al., 2024): what it does to a row, and where it breaks.

What the paper says. Some tokens after the first receive much attention for no reason: later sinks. In chosen heads ACT
lowers their attention to beta = 0.4 of what it is and gives what is freed to the other tokens, on the fly, without
training. The paper's body was not at hand: its abstract and its released code, github.com/GATECH-EIC/ACT, were read.
test_act_code.py has its use while a model writes, and what the code does; test_act_detection.py the threshold,
test_act_search.py the choice of heads and the reported gains, test_act_trained.py small trained models,
test_act_checkpoint.py a model of yours.

Notation. A_tk is the weight of key k for query t, both from 1; a_k its mean over t >= k; S the later sinks, k >= 2 with
a_k > tau; m_t the mass of row t on S. tau is 5 / N in the paper and 0.1 in the code.

Scope. One head's map.
"""

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import softmax_rows
from theory.sinks.act import BETA, RELEASED_TAU, calibrate, lower, random_maps

PAPER = "yu2024unveiling"
EPS = np.finfo(float).eps

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(2, 40)
betas = st.floats(0, 1)


def symbols():
    """Weights of a row, two of them on sinks, and beta."""
    import sympy

    return sympy.symbols("a b c d", positive=True), sympy.symbols("beta", nonnegative=True)


CHOSEN = np.array([False, False, True, True])


def simplified(expression):
    import sympy

    return sympy.factor(sympy.together(expression))


def keep_nothing(A, chosen, beta=BETA):
    """What is freed is lost."""
    return np.where(chosen[..., None, :], beta * A, A)


def give_to_all(A, chosen, beta=BETA):
    """What is freed goes to the sinks as well."""
    kept = keep_nothing(A, chosen, beta)
    return kept + (1 - beta) * np.where(chosen[..., None, :], A, 0 * A).sum(axis=-1, keepdims=True) * A


def draw(seed, n, sharpness):
    """A random causal map, and keys at random, the first not among them."""
    rng = np.random.default_rng(seed)
    chosen = rng.random(n) < 0.4
    chosen[0] = False
    return random_maps(1, n, sharpness, rng)[0], chosen


# -- A6: a distribution remains a distribution -------------------------------------------------------------------------

valid = Claim(
    paper=PAPER,
    slug="valid-attention",
    where="implied by the rule; models/llama_modelling_aug.py",
    says="Calibration turns every causal attention map into another one: rows are non-negative and sum to 1.",
    formula=r"\sum_j A'_{tj} = \sum_j A_{tj} = 1, \quad A'_{tj} \ge 0",
    repair="Where no row lies wholly on later sinks.",
    gap="In exact and in double precision. In half precision a weight 17.3 nats below the largest is rounded to 0, so "
    "that a row can lie wholly on later sinks though its softmax does not.",
)


@valid.refutation("exact", controls={"the first token keeps a millionth": {"rest": 1e-6}})
def test_a_row_that_lies_on_a_sink_has_no_weights_left(evidence, *, rest=0.0):
    """Two tokens, the second sees itself alone: it is a sink at tau = 0.1, and its row becomes 0 / 0."""
    A = np.array([[1, 0], [rest, 1 - rest]])
    row = calibrate(A, tau=RELEASED_TAU)[1]
    evidence.true("a weight is not a number", bool(np.isnan(row).any()))
    evidence.counterexample("Two tokens", map=A.tolist(), row=row.tolist())
    gap = -np.log(np.nextafter(np.float16(0), np.float16(1), dtype=np.float16).astype(float) / 2)
    evidence.note(f"Half precision rounds a weight to 0 from {gap:.2f} nats below the largest on.")


@valid.check(
    "proof",
    controls={
        "what is freed is lost": {"rule": keep_nothing},
        "beta above 1": {"rule": lambda A, chosen, beta: lower(A, chosen, beta + 3)},
    },
)
def test_rows_keep_their_sum_and_their_signs(evidence, *, rule=lower):
    """Two sinks and two other tokens as symbols stand for any number of each: only their sums enter."""
    import sympy

    row, beta = symbols()
    new = rule(np.array([row], dtype=object), CHOSEN, 1 / (1 + beta))[0]  # any number in (0, 1]
    evidence.true("sum is unchanged", simplified(sum(new) - sum(row)) == sympy.Integer(0))
    for name, weight in zip("abcd", new, strict=True):
        evidence.true(f"weight {name} is positive", simplified(weight).is_positive is True)


@valid.check("property", controls={"what is freed is lost": {"rule": keep_nothing}})
@given(seed=seeds, n=sizes, sharpness=st.floats(0, 8), beta=betas)
def test_random_maps_stay_attention(evidence, seed, n, sharpness, beta, *, rule=lower):
    """Random maps, up to nearly one-hot ones, and any set of keys without the first."""
    A, chosen = draw(seed, n, sharpness)
    new = rule(A, chosen, beta)
    evidence.expect("sum of a row", new.sum(axis=-1), equals=1, error=8 * n * EPS)
    evidence.expect("smallest weight", new.min(), at_least=0)


lowers = Claim(
    paper=PAPER,
    slug="lowers-sinks",
    where="the rule; models/llama_modelling_aug.py",
    says="Each later sink keeps beta of its attention and all others grow by one factor, which is at least 1, grows "
    "with the mass on sinks and falls with beta: it is a shift of logits that depends on the row.",
    formula=r"A'_{tk} = \beta A_{tk}\ (k \in S), \quad A'_{tj} = A_{tj} \frac{1 - \beta m_t}{1 - m_t}",
    gap="What a lower weight does to a model's output is not part of it.",
)


@lowers.check("proof", controls={"sinks get a share too": {"rule": give_to_all}, "beta above 1": {"most": 3}})
def test_one_factor_for_sinks_and_one_for_the_rest(evidence, *, rule=lower, most=1):
    """With m the mass on sinks, 0 < m < 1, written as x / (1 + x), and beta = most / (1 + y), y >= 0."""
    import sympy

    x, share = sympy.symbols("x s", positive=True)
    other, y = sympy.Symbol("o", positive=True), sympy.Symbol("y", nonnegative=True)
    m, beta = x / (1 + x), most / (1 + y)
    row = [(1 - m) / (1 + other), (1 - m) * other / (1 + other), m / (1 + share), m * share / (1 + share)]
    new = rule(np.array([row], dtype=object), CHOSEN, beta)[0]
    ratios = [simplified(after / before) for after, before in zip(new, row, strict=True)]
    formula = simplified((1 - beta * m) / (1 - m))
    for name, ratio, expected in zip("abcd", ratios, (formula, formula, beta, beta), strict=True):
        evidence.true(f"factor of {name}", simplified(ratio - expected) == 0)
    evidence.true("the factor is at least 1", simplified(formula - 1).is_nonnegative is True)
    evidence.true("it grows with the mass", simplified(sympy.diff(formula, x)).is_nonnegative is True)
    evidence.true("it falls with beta", simplified(sympy.diff(formula, y)).is_positive is True)
    evidence.true("beta = 1 changes nothing", simplified(formula.subs(y, 0)) == 1)


def shifted(s, chosen, beta, m):
    return softmax_rows(s + np.where(chosen, np.log(beta), np.log1p(-beta * m) - np.log1p(-m)))


def shifted_on_sinks(s, chosen, beta, m):
    return softmax_rows(s + np.where(chosen, np.log(beta), 0))


@lowers.check("property", controls={"ln beta on the sinks alone": {"softmax": shifted_on_sinks}})
@given(seed=seeds, n=st.integers(3, 40), beta=st.floats(0.1, 0.9))
def test_it_is_softmax_of_shifted_logits(evidence, seed, n, beta, *, softmax=shifted):
    """The last row of a random map: ln beta on sinks, ln (1 - beta m) / (1 - m) elsewhere."""
    rng = np.random.default_rng(seed)
    s = rng.standard_normal((1, n))
    chosen = np.arange(n) % 2 == 1
    A = softmax_rows(s)
    expected = softmax(s, chosen, beta, A[:, chosen].sum())
    evidence.expect("largest difference of weights", lower(A, chosen, beta) - expected, equals=0, error=16 * n * EPS)


freed = Claim(
    paper=PAPER,
    slug="freed-mass",
    where="ours, on the rule; the paper does not say otherwise",
    says="Of the attention that is freed the first token, itself a sink, gets the share A_t1 / (1 - m_t): more than "
    "half wherever it holds more than half of what does not lie on later sinks.",
    formula=r"\frac{A'_{t1} - A_{t1}}{(1 - \beta)\, m_t} = \frac{A_{t1}}{1 - m_t}",
    gap="How large the share is in a large model; test_act_trained.py measures it in a small one.",
)


def to_words_only(A, chosen, beta=BETA):
    """The first token gets nothing."""
    first = np.arange(A.shape[-1]) == 0
    kept = np.where(chosen, beta, 1) * A
    words = np.where(chosen | first, 0 * A, A)
    lost = (1 - beta) * np.where(chosen, A, 0 * A).sum(axis=-1, keepdims=True)
    return kept + lost * words / words.sum(axis=-1, keepdims=True)


@freed.check("proof", controls={"the first token gets nothing": {"rule": to_words_only}})
def test_the_first_token_takes_its_share(evidence, *, rule=lower):
    """As symbols, then for a first token with 0.6 and a later sink with 0.2: three quarters go to the first."""
    row, beta = symbols()
    new = rule(np.array([row], dtype=object), CHOSEN, beta)[0]
    (a, b, c, d), gain = row, new[0] - row[0]
    evidence.true("its share", simplified(gain - (1 - beta) * (c + d) * a / (a + b)) == 0)
    example = rule(np.array([[0.6, 0.2, 0.2]]), np.array([False, False, True]))[0]
    evidence.expect("share at 0.6, 0.2, 0.2", (example[0] - 0.6) / ((1 - BETA) * 0.2), equals=3 / 4, error=32 * EPS)

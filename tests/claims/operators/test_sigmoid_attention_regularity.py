"""Is sigmoid attention more regular than softmax attention? (Ramapuram et al., 2024, abstract and section 3.2)

What the paper says. Its analysis "shows improved regularity compared to softmax": on a ball of radius R the constant of
sigmoid attention grows at most like R^2, while for softmax some tokens reach c R^2 exp(c R^2).

Notation. As in test_sigmoid_attention.py. L_sigmoid(n, R) and L_softmax(n, R) are the largest |J(X)| over tokens with
|x_i| <= R, in any dimension, for A = W = I and b = -ln n.

Scope. Like for like: the same n and the same ball for both. The paper's two statements are of different kinds: the
first holds with n fixed (or with bounded logits), the second needs n >= exp(c R^2) tokens.
"""

import math

import numpy as np
import pytest
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.sigmoid_attention import (
    bounded_logits_bound,
    certify_softmax_pair,
    crowd,
    identical_tokens_norm,
    largest_stretch,
    mean_square,
    sigmoid_jacobian,
    softmax_ball_bound,
    softmax_jacobian,
)

PAPER = "ramapuram2024theory"
EPS = np.finfo(float).eps
LN3 = math.log(3)


def logistic(s):
    return 1 / (1 + math.exp(-s))


def at_identical_tokens(n, square, jacobian=sigmoid_jacobian):
    """|J| at n equal tokens of squared length `square`, A = W = I, from the Jacobian itself."""
    return float(largest_stretch(jacobian(np.full((n, 1), math.sqrt(square)), np.eye(1), np.eye(1))))


def without_offset(X, A, W):
    return sigmoid_jacobian(X, A, W, 0.0)


regularity = Claim(
    paper=PAPER,
    slug="improved-regularity",
    where="Abstract, Section 3.2 (our like-for-like reading)",
    says="On the same ball of tokens, with the same A and W, the largest Jacobian of sigmoid attention with b = -ln n "
    "is no larger than that of softmax attention.",
    formula=r"\max_{\|x_i\| \le R} \|J_{\text{sigmoid}}(X)\|_2 \le \max_{\|x_i\| \le R} \|J_{\text{softmax}}(X)\|_2",
    gap="A = W = I; for n = 3 to 6 the comparison rests on search alone and is left out. At very small radius the "
    "statement holds for n = 1 and 2. Worst cases over a ball say little about typical tokens.",
    repair="Where no logit exceeds mu, the Jacobian of sigmoid attention with b = -ln n is at most "
    "|W| e^mu (1 + 2 |A| mean |x|^2) for every n; softmax attention has no such bound.",
)


@regularity.refutation("exact", controls={"a smaller ball, R^2 = 1/2": {"square": 0.5}})
def test_one_token_is_enough(evidence, *, square=LN3):
    """n = 1, R^2 = ln 3: softmax attention is the identity, |J| = 1 everywhere; sigmoid reaches (6 + 3 ln 3) / 8.

    Here sigma(ln 3) = 3/4 exactly, and |J| = sigma + 2 |x|^2 sigma (1 - sigma).
    """
    norm = at_identical_tokens(1, square)
    evidence.expect(
        "softmax's |J| for one token", at_identical_tokens(1, square, softmax_jacobian), equals=1, error=EPS
    )
    evidence.expect("sigmoid's |J| above softmax's largest", norm - 1, at_least=8 * EPS)
    evidence.expect("sigmoid's |J|", norm, equals=(6 + 3 * LN3) / 8, error=8 * EPS)
    evidence.counterexample(
        "The smallest n", n=1, R=f"sqrt(ln 3) = {math.sqrt(square):.4f}", sigmoid="(6 + 3 ln 3) / 8 = 1.162", softmax=1
    )


@regularity.refutation("certified", controls={"a smaller ball, R^2 = 1/2": {"square": 0.5}})
def test_two_tokens_in_any_dimension(evidence, *, square=None):
    """n = 2, R^2 = ln 2: sigmoid reaches 1 + ln 2 = 1.693 where softmax stays below on the whole ball, by intervals.

    A rotation leaves three coordinates; the interval proof covers them all.
    """
    pytest.importorskip("flint", reason="needs python-flint for interval arithmetic")
    from flint import arb

    exact = arb(2).log() if square is None else arb(square)
    value = identical_tokens_norm(2, exact, lambda s: 1 / (1 + (-s).exp()), lambda n: arb(n).log())
    # Across the plane of the two tokens softmax's Jacobian is its weights, whose norm is at most sqrt(2).
    evidence.true("sigmoid's |J| above sqrt(2)", bool(value > arb(2).sqrt()))
    found = certify_softmax_pair(exact, value)
    evidence.true("softmax's |J| below it on every box", found.proved)
    evidence.note(f"{found.boxes} boxes.")
    evidence.counterexample("Two equal tokens", n=2, R="sqrt(ln 2) = 0.8326", sigmoid="1 + ln 2 = 1.6931")


@regularity.refutation("exact", controls={"identical tokens under softmax": {"jacobian": softmax_jacobian}})
def test_seven_tokens_and_more_by_theory_alone(evidence, *, jacobian=sigmoid_jacobian):
    """R^2 = ln n: sigmoid reaches n (1 + ln n) / 2; softmax is at most sqrt(n) (1 + R^2) + R^2 anywhere in the ball.

    n / 2 - sqrt(n) exceeds 1 from n = 8 on, more than ln n / (1 + ln n); n = 7 is computed. No search is involved.
    """
    rows = []
    for n in (7, 8, 16, 64):
        square = math.log(n)
        value, limit = at_identical_tokens(n, square, jacobian), softmax_ball_bound(n, math.sqrt(square))
        rows.append((n, round(value, 3), round(limit, 3)))
        evidence.expect("sigmoid's |J| over softmax's bound", value / limit, at_least=1)
        closed = n * (1 + square) / 2
        evidence.expect("sigmoid's |J| over n (1 + ln n) / 2", value / closed, equals=1, error=32 * n * EPS)
    evidence.counterexample("n equal tokens of length sqrt(ln n): (n, sigmoid, bound on softmax)", values=rows)


@regularity.check(
    "property",
    scope="the bound on softmax that the refutation uses",
    controls={
        "without sqrt(n)": {"bound": lambda n, radius: softmax_ball_bound(1, radius) / 2 - 0.5},
        "its value without R^2": {"bound": lambda n, radius: math.sqrt(n)},
    },
)
@given(size=st.tuples(st.integers(1, 8), st.integers(1, 3)), seed=st.integers(0, 2**32 - 1), radius=st.floats(0.1, 5))
def test_softmax_stays_below_its_bound_on_the_ball(evidence, size, seed, radius, *, bound=softmax_ball_bound):
    """Random tokens in the ball, half of them on its surface."""
    n, d = size
    draw = np.random.default_rng(seed)
    X = draw.standard_normal(size)
    X *= radius * np.maximum(draw.random((n, 1)), draw.integers(2)) / np.linalg.norm(X, axis=1, keepdims=True)
    norm = largest_stretch(softmax_jacobian(X, np.eye(d), np.eye(d)))
    evidence.expect("norm over its bound", norm / bound(n, radius), at_most=1 + 16 * n * d * EPS)


@regularity.check(
    "exact",
    controls={"softmax attention": {"jacobian": softmax_jacobian}, "no offset, b = 0": {"jacobian": without_offset}},
)
def test_with_bounded_logits_sigmoid_keeps_a_bound_that_softmax_breaks(evidence, *, jacobian=sigmoid_jacobian):
    """Few large tokens among many small, no logit above 0: sigmoid stays below 1 + 2 mean |x|^2, softmax grows as R^2.

    The figure follows R^2 = n. The general bound is the claim bounded-logits.
    """
    rows = []
    for n in (25, 50, 100, 200):
        X, A = crowd(n, math.sqrt(n), 6 / math.sqrt(n))
        unit, mu = np.eye(2), (X @ A @ X.T).max()
        evidence.expect("largest logit", mu, at_most=0)
        bound = bounded_logits_bound(mu, mean_square(X))
        both = [largest_stretch(which(X, A, unit)) for which in (sigmoid_jacobian, softmax_jacobian)]
        rows.append((n, bound, *both))
        evidence.expect("norm over the bound", largest_stretch(jacobian(X, A, unit)) / bound, at_most=1)
        evidence.expect("softmax's norm over the bound", both[1] / bound, at_least=1)
    evidence.note("n, bound, sigmoid, softmax: " + "; ".join(f"{n}, {b:.2f}, {s:.2f}, {t:.1f}" for n, b, s, t in rows))
    evidence.figure(
        "Three large tokens among many", figure_of(rows), "No logit exceeds 0; the large tokens have R^2 = n."
    )


def figure_of(rows):
    """Norms and the bound against n, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes, (n, bound, of_sigmoid, of_softmax) = figure.subplots(), zip(*rows, strict=True)
    axes.loglog(n, of_softmax, "s-", label="softmax")
    axes.loglog(n, bound, "k--", label="bound for sigmoid")
    axes.loglog(n, of_sigmoid, "o-", label="sigmoid, b = −ln n")
    axes.set_xlabel("tokens n")
    axes.set_ylabel("norm of the Jacobian")
    axes.legend(frameon=False)
    return figure


growth = Claim(
    paper=PAPER,
    slug="quadratic-growth",
    where="Section 3.2",
    says="On a ball of radius R the Jacobian of sigmoid attention with b = -ln n is at most c (1 + R^2), with one c "
    "for all n.",
    formula=r"\max_{\|x_i\| \le R} \|J_{\text{sigmoid}}(X)\|_2 \le c \, (1 + R^2)",
    gap="A = W = I.",
    repair="For each n it holds with c = n: at most n (1 + R^2 / 2).",
)


@growth.refutation("exact", controls={"n held at 4": {"length": lambda square: 4}})
def test_over_all_lengths_it_grows_exponentially(evidence, *, length=lambda square: round(math.exp(square))):
    """n = e^(R^2) equal tokens: |J| = (1 + R^2) e^(R^2) / 2 exactly: no c serves all n.

    With R fixed and n growing the limit is e^(R^2) (1 + 2 R^2).
    """
    for n in (4, 16, 64, 256, 10**6):
        square = math.log(n)
        size = length(square)
        value = identical_tokens_norm(size, square, logistic, math.log)
        if size <= 64:
            direct = at_identical_tokens(size, square)
            evidence.expect("closed form over the Jacobian's norm", value / direct, equals=1, error=32 * size * EPS)
        ratio = value / (1 + square) / (n / 2)
        evidence.expect("|J| over (1 + R^2) e^(R^2) / 2", ratio, equals=1, error=32 * EPS * (1 + square))
    evidence.counterexample("n equal tokens with |x|^2 = ln n", norm="n (1 + ln n) / 2", at_most="c (1 + ln n)")


@growth.check("property", controls={"sqrt(n) (1 + R^2 / 2)": {"c": math.sqrt}, "n / 2": {"c": lambda n: n / 2}})
@given(n=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), radius=st.floats(0.1, 5), alike=st.booleans())
def test_for_each_length_it_grows_quadratically(evidence, n, seed, radius, alike, *, c=float):
    """Random tokens on the sphere of radius R, or all equal, against n (1 + R^2 / 2)."""
    X = np.random.default_rng(seed).standard_normal((n, 2))
    X = X[:1] + 0 * X if alike else X
    X *= radius / np.linalg.norm(X, axis=1, keepdims=True)
    norm = largest_stretch(sigmoid_jacobian(X, np.eye(2), np.eye(2)))
    evidence.expect("norm over c(n) (1 + R^2 / 2)", norm / c(n) / (1 + radius**2 / 2), at_most=1 + 32 * n * EPS)

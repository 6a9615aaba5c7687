"""Attention entropy grows with the number of tokens (Jin, Shen, Li, Xue, 2023).

What the paper says. In a denoiser the entropy of self-attention changes with the number N of tokens; a model trained on
T tokens shows incomplete objects on fewer and repeated ones on more. Scores multiplied by sqrt(ln N / ln T), without
training, "alleviate the change of attention entropy" (abstract).

Notation. `sigma` is the standard deviation of a row's scores, entropies are in nats; lambda / lambda_0 is `factor`.
Gaussian scores are the random energy model: they freeze beyond sigma^2 = 2 ln N.

Scope. The entropy itself, for repeated keys and for Gaussian scores. The factor is in
test_variable_sized_diffusion_factor.py, trained denoisers in test_variable_sized_diffusion_trained.py. The paper's
proofs were not available to us.
"""

import math

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import softmax_rows
from theory.vision.variable_sized_diffusion import (
    critical_sigma,
    entropy,
    gaussian_entropy,
    sampled_entropies,
    score_entropy,
    share_removed,
    size_factor,
    slope,
)

PAPER = "jin2023trainingfree"
EPS = np.finfo(float).eps
TRAINED = 4096  # tokens of Stable Diffusion's first self-attention layers at 512 x 512 pixels
SIZES = np.array([256, 1024, 4096, 16384])

seeds = st.integers(0, 2**32 - 1)
no_shrinking = settings(phases=(Phase.generate, Phase.target))  # a smaller seed is no simpler case

copies = Claim(
    paper=PAPER,
    slug="copies-add-their-logarithm",
    where="Abstract: 'attention entropy changes with token quantity'",
    says="If every key comes m times, as when an image is enlarged by repeating pixels, the entropy of attention rises "
    "by exactly ln m, whatever the scores.",
    formula=r"\mathrm{Ent}(\text{every key } m \text{ times}) = \mathrm{Ent} + \ln m",
    gap="Real enlargement repeats tokens only approximately.",
)


def all_keys(scores, m):
    """Scores (n,) of every key m times."""
    return np.repeat(scores, m)


@copies.check("proof", controls={"twice the copies": {"shares": lambda w, m: 2 * m * [w / (2 * m)]}})
def test_a_weight_in_equal_shares_adds_its_part_of_the_logarithm(evidence, *, shares=lambda w, m: m * [w / m]):
    """Term by term, w symbolic: m shares w/m have -w ln w + w ln m; summed over weights of total 1 that is ln m."""
    import sympy

    w = sympy.Symbol("w", positive=True)
    for m in range(2, 8):
        split = sum(-share * sympy.log(share) for share in shares(w, m))
        gap = sympy.expand(sympy.expand_log(split - (-w * sympy.log(w) + w * sympy.log(m)), force=True))
        evidence.true("an identity in the weight", gap == 0)


def every_second_key(scores, m):
    """Scores of every second key m times, of the others once."""
    return np.append(scores, np.repeat(scores[::2], m - 1))


@copies.check("property", controls={"every second key": {"enlarged": every_second_key}})
@no_shrinking
@given(n=st.integers(2, 30), m=st.integers(2, 9), spread=st.floats(0, 10), seed=seeds)
def test_the_entropy_of_repeated_keys(evidence, n, m, spread, seed, *, enlarged=all_keys):
    """Random scores of any spread, through the softmax that the models use."""
    scores = spread * np.random.default_rng(seed).standard_normal(n)
    gain = score_entropy(enlarged(scores, m)) - score_entropy(scores)
    budget = 8 * EPS * (1 + np.ptp(scores)) * math.log(n * m)
    evidence.expect("gain minus ln m", gain - math.log(m), equals=0, error=budget)


grows = Claim(
    paper=PAPER,
    slug="entropy-grows-with-tokens",
    where="Abstract, Section 3",
    says="For N independent N(0, sigma^2) scores with sigma^2 < 2 ln N the expected entropy is ln N - sigma^2 / 2 up "
    "to terms that vanish: its slope in ln N is 1.",
    formula=r"\mathbb{E}\,\mathrm{Ent} = \ln N - \frac{\sigma^2}{2} + o(1)",
    gap="Scores of real heads are neither independent nor Gaussian; the proof is of the limit at fixed sigma.",
)


def gaussian_mean(beta, sigma):
    """E e^{beta s} for s ~ N(0, sigma^2), symbolic."""
    import sympy

    return sympy.exp(sigma**2 * beta**2 / 2)


def laplace_mean(beta, sigma):
    """The same for Laplace scores of this variance."""
    return 1 / (1 - sigma**2 * beta**2 / 2)


@grows.check("proof", controls={"Laplace scores of this variance": {"mean": laplace_mean}})
def test_the_limit_is_that_of_the_law_of_large_numbers(evidence, *, mean=gaussian_mean):
    """At fixed sigma Ent - ln N tends to ln M - M'/M with M(beta) = E e^{beta s} at beta = 1, by means over the keys.

    For N(0, sigma^2) that is -sigma^2 / 2. Any independent scores with an M have a finite limit, and so slope 1.
    """
    import sympy

    s, beta = sympy.symbols("s beta", real=True)
    sigma = sympy.Symbol("sigma", positive=True)
    M = mean(beta, sigma)
    limit = (sympy.expand_log(sympy.log(M), force=True) - sympy.diff(M, beta) / M).subs(beta, 1)
    evidence.true("limit is -sigma^2 / 2", sympy.simplify(limit + sigma**2 / 2) == 0)
    law = sympy.exp(-(s**2) / (2 * sigma**2)) / (sigma * sympy.sqrt(2 * sympy.pi))
    integral = sympy.integrate(law * sympy.exp(beta * s), (s, -sympy.oo, sympy.oo))
    evidence.true("M is the Gaussian's", sympy.simplify(integral - M) == 0)


@grows.check(
    "statistical",
    controls={
        "the paper's factor": {"factor": size_factor},
        "frozen scores, sigma = 6": {"sigmas": (6.0,)},
    },
)
def test_gaussian_scores_have_slope_one(evidence, rng, *, sigmas=(0.5, 1.0, 2.0), factor=lambda N, T: 1):
    """N = 256 to 16384, sixteen batches: slope nearer to 1 than to the rival's 1 - sigma^2 / (2 ln T); level at T."""
    for sigma in sigmas:
        deviations = np.array([sigma * factor(int(N), TRAINED) for N in SIZES])
        found = sampled_entropies(rng("scores", sigma), SIZES, deviations)
        half = share_removed(sigma, TRAINED) / 2
        evidence.mean_within(f"slope, sigma = {sigma:g}", slope(SIZES, found), 1 - half, 1 + half, alpha=5e-6)
        level, rival = gaussian_entropy(TRAINED, sigma), math.log(TRAINED)
        low, high = level - (rival - level) / 2, level + (rival - level) / 2
        evidence.mean_within(f"entropy at N = {TRAINED}, sigma = {sigma:g}", found[:, 2], low, high, alpha=5e-6)
    evidence.note("; ".join(f"frozen beyond sigma = {critical_sigma(N):.2f} at N = {N}" for N in (256, 16384)))


effective = Claim(
    paper=PAPER,
    slug="entropy-counts-tokens",
    where="Abstract: 'models aggregate spatial information in proportion to image resolution'",
    says="exp(entropy) is a number of tokens: between 1 and N, m when m keys share the weight equally, and m times "
    "larger when every key comes m times.",
    formula=r"1 \le e^{\mathrm{Ent}} \le N",
    gap="That too little or too much of it is what makes objects incomplete or repeated is the paper's interpretation; "
    "nothing here tests it on images.",
)


@effective.check("property", controls={"2 to the power of the entropy in nats": {"count": lambda e: 2.0**e}})
@no_shrinking
@given(n=st.integers(1, 40), m=st.integers(1, 40), spread=st.floats(0, 30), seed=seeds)
def test_the_exponential_of_the_entropy_counts_keys(evidence, n, m, spread, seed, *, count=np.exp):
    """Random weights for the bounds; m of m + n keys with equal weight for the case of equality."""
    weights = softmax_rows(spread * np.random.default_rng(seed).standard_normal(n))
    found = count(entropy(weights))
    evidence.expect("effective tokens over N", found / n, at_most=1 + 8 * n * EPS)
    evidence.expect("effective tokens", found, at_least=1 - 8 * n * EPS)
    even = np.append(np.full(m, 1 / m), np.zeros(n))
    evidence.expect("m keys of equal weight, over m", count(entropy(even)) / m, equals=1, error=8 * m * EPS)

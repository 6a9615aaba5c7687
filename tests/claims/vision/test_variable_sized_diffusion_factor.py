"""The factor sqrt(ln N / ln T) on the scores, and what it removes (Jin, Shen, Li, Xue, 2023).

What the paper says. The factor "alleviates the change of attention entropy" when a denoiser trained on T tokens runs on
N, without training. It does, in the right direction for any scores; but it does not keep the entropy.

Notation. As in test_variable_sized_diffusion.py: `sigma` is the standard deviation of a row's scores, entropies are in
nats, `factor` is the paper's scale over the usual one.

Scope. Given scores, repeated keys, Gaussian scores, and queries and keys of random projections; nothing is trained.
"""

import math

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import softmax, softmax_rows
from theory.vision.variable_sized_diffusion import (
    entropy,
    entropy_slope,
    inverse_factor,
    keeping_factor,
    linear_factor,
    sampled_entropies,
    score_entropy,
    share_removed,
    size_factor,
    slope,
    tokens_of,
)

PAPER = "jin2023trainingfree"
EPS = np.finfo(float).eps
TRAINED = 4096  # tokens of Stable Diffusion's first self-attention layers at 512 x 512 pixels
SIZES = np.array([256, 1024, 4096, 16384])

sizes = st.integers(2, 10**5)
seeds = st.integers(0, 2**32 - 1)
no_shrinking = settings(phases=(Phase.generate, Phase.target))  # a smaller seed is no simpler case


direction = Claim(
    paper=PAPER,
    slug="factor-turns-the-right-way",
    where="Abstract",
    says="For any scores that are not all equal, the factor lowers the entropy if N > T, raises it if N < T, and "
    "changes nothing at N = T.",
    formula=r"\frac{d}{d\beta}\,\mathrm{Ent}(\operatorname{softmax}(\beta s)) = -\beta\, \mathrm{Var}_w(s) \le 0",
    gap="Given the scores; in a deep model the scores of later layers change as well.",
)


@direction.check("proof", controls={"variance under equal weights": {"weigh": lambda w: [1] * len(w)}})
def test_the_derivative_by_the_factor_is_minus_a_variance(evidence, *, weigh=lambda w: w):
    """Two, three and four symbolic scores; at the fourth the terms are those of any number of keys."""
    import sympy

    beta = sympy.Symbol("beta", positive=True)
    for n in (2, 3, 4):
        s = sympy.symbols(f"s:{n}", real=True)
        terms = [sympy.exp(beta * one) for one in s]
        total = sum(terms)
        # Ent = ln Z - beta E s, which saves the logarithms of the weights.
        mean = sum(t * one for t, one in zip(terms, s, strict=True)) / total
        derivative = sympy.diff(sympy.log(total) - beta * mean, beta)
        weights = weigh([t / total for t in terms])
        share = sum(weights)
        centre = sum(w * one for w, one in zip(weights, s, strict=True)) / share
        variance = sum(w * (one - centre) ** 2 for w, one in zip(weights, s, strict=True)) / share
        at = dict(zip(s, (0, sympy.log(2), sympy.log(3), -sympy.log(5)), strict=False)) | {beta: 2}
        gap = derivative + beta * variance
        exact = sympy.simplify(gap.subs(at)) == 0
        evidence.true("holds at a point with rational weights", exact)
        evidence.true("holds identically", sympy.cancel(sympy.together(gap)) == 0)


@direction.check("property", controls={"the inverse factor": {"factor": inverse_factor}})
@no_shrinking
@given(n=st.integers(2, 40), tokens=sizes, trained=sizes, spread=st.floats(0, 4), seed=seeds)
def test_entropy_moves_against_the_change_of_size(evidence, n, tokens, trained, spread, seed, *, factor=size_factor):
    """Sign of the change for random scores; equal scores (spread 0) are the case of equality."""
    scores = spread * np.random.default_rng(seed).standard_normal(n)
    r = factor(tokens, trained)
    change = score_entropy(r * scores) - score_entropy(scores)
    towards = -np.sign(tokens - trained) * change
    budget = 8 * EPS * (1 + (1 + r) * np.ptp(scores)) * math.log(n)
    evidence.expect("change towards the trained size", towards, at_least=-budget)
    if tokens == trained or spread == 0:
        evidence.expect("change where there is none to make", change, equals=0, error=budget)
    middle = entropy_slope(scores, (1 + r) / 2) * (r - 1)
    if abs(r - 1) < 0.1:  # the mean value theorem, to second order
        evidence.expect("sign of the derivative", middle * change, at_least=-(budget**2))


constant = Claim(
    paper=PAPER,
    slug="factor-keeps-the-entropy",
    where="Abstract, read strictly: the factor makes up for the change of entropy",
    says="With the factor the entropy is the same at every number of tokens.",
    formula=r"\mathrm{Ent}_N\Bigl(\sqrt{\tfrac{\ln N}{\ln T}}\; s\Bigr) = \mathrm{Ent}_T(s)",
    gap="The share is of independent Gaussian scores; repeated tokens need a much larger factor, see the figure.",
    repair="'Alleviates': for N(0, sigma^2) scores with sigma^2 < 2 ln T the factor removes the share "
    "sigma^2 / (2 ln T) of the growth with ln N, all of it only at the critical sigma.",
)


@constant.refutation("exact", controls={"no more tokens": {"now": 2}})
def test_equal_scores_keep_all_the_change(evidence, *, now=3):
    """Two tokens in training, three now, all scores equal: the entropy goes from ln 2 to ln 3 under any factor."""
    before = score_entropy(np.zeros(2))
    after = score_entropy(size_factor(now, 2) * np.zeros(now))
    evidence.counterexample("scores 0", trained=2, now=3, before="ln 2", after="ln 3", removed="0 %")
    evidence.expect("entropy gained", after - before, at_least=math.log(3 / 2) - 8 * EPS)


@constant.refutation("exact", scope="repeated tokens", controls={"the factor that keeps it": {"factor": None}})
def test_repeated_tokens_need_a_larger_factor(evidence, rng, *, factor=size_factor):
    """256 Gaussian scores, every key four times: the factor that keeps the entropy, and the paper's."""
    needed = {}
    for sigma in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0):
        rows = sigma * rng("repeated").standard_normal((16, 256))
        needed[sigma] = keeping_factor(rows, 4)
        used = needed[sigma] if factor is None else factor(4 * 256, 256)
        left = score_entropy(np.repeat(used * rows, 4, axis=-1)).mean() - score_entropy(rows).mean()
        evidence.note(f"sigma = {sigma:g}: {left / math.log(4):.0%} of ln 4 stays, needed is {needed[sigma]:.3f}.")
        evidence.expect("share of ln 4 that stays", left / math.log(4), at_least=0.5)
    evidence.figure(
        "Factor that keeps the entropy when every key comes four times",
        figure_of(needed, size_factor(1024, 256)),
        "Mean over 16 rows of 256 Gaussian scores; the paper's factor depends on the numbers of tokens alone.",
    )


def figure_of(needed, papers):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(list(needed), list(needed.values()), "o-", label="needed")
    axes.axhline(papers, color="C3", linestyle="--", label="the paper's")
    axes.set(xlabel="standard deviation of the scores", ylabel="factor", ylim=(1, None))
    axes.legend(frameon=False)
    return figure


@constant.check(
    "statistical",
    controls={
        "the inverse factor": {"factor": inverse_factor},
        "ln N / ln T, the factor of entropy-invariant softmax": {"factor": linear_factor},
    },
)
def test_the_factor_removes_its_share_of_the_slope(evidence, rng, *, factor=size_factor):
    """sigma = 1/2 to 3: slope nearer to 1 - sigma^2 / (2 ln T) than to 1, and than to the square factor's."""
    for sigma in (0.5, 1.0, 2.0, 3.0):
        deviations = np.array([sigma * factor(int(N), TRAINED) for N in SIZES])
        found = slope(SIZES, sampled_entropies(rng("scores", sigma), SIZES, deviations))
        share = share_removed(sigma, TRAINED)
        evidence.mean_within(f"slope, sigma = {sigma:g}", found, 1 - 1.5 * share, 1 - share / 2, alpha=5e-6)
        evidence.note(f"sigma = {sigma:g}: slope {found.mean():.3f}, predicted {1 - share:.3f}.")


@constant.check("statistical", scope="queries and keys", controls={"the inverse factor": {"factor": inverse_factor}})
def test_random_projections_of_gaussian_tokens(evidence, rng, scale, *, factor=size_factor):
    """d = 64, T = 4096, N from 8 x 8 to 128 x 128: at each N of four draws the entropy comes nearer to that at T."""
    draws = {"small": 4, "full": 16}[scale]
    tokens = (64, 256, 784, 1024, 9216, 16384)
    for draw in range(draws):
        generator = rng("projections", draw)
        W_q, W_k = generator.standard_normal((2, 64, 64)) / 8
        X = generator.standard_normal((max(tokens), 64))
        rows = X[:64] @ W_q

        def entropy_at(N, r, keys=X @ W_k, rows=rows):
            return entropy(softmax(rows, keys[:N], scale=r / 8)).mean()

        goal = entropy_at(TRAINED, 1)
        for N in tokens:
            left = abs(entropy_at(N, factor(N, TRAINED)) - goal) / abs(entropy_at(N, 1) - goal)
            evidence.expect("distance left, as a share of that without the factor", left, less_than=1)


training_free = Claim(
    paper=PAPER,
    slug="one-constant-changes",
    where="Abstract: 'without additional training or fine-tuning'",
    says="The method changes one constant of each self-attention layer: it is the same as scaling queries or keys, and "
    "at N = T it is the original model.",
    formula=r"\operatorname{softmax}(r \lambda_0\, q k^\top) = \operatorname{softmax}(\lambda_0\, (r q) k^\top),"
    r" \quad r = \sqrt{\ln N / \ln T}",
    gap="Where queries and keys are normalised, the factor must come after the norm (the control: before, it is lost).",
)


def scaled_queries(q, k, r):
    """Attention of r q and k."""
    return softmax(r * q, k)


def scaled_before_the_norm(q, k, r):
    """Keys scaled, then brought to unit root mean square, as one public implementation does."""
    keys = r * k
    return softmax(q, keys / np.sqrt((keys**2).mean(-1, keepdims=True)))


@training_free.check("property", controls={"keys scaled before their norm": {"attention": scaled_before_the_norm}})
@no_shrinking
@given(tokens=st.sampled_from([4, 9, 16, 36, 64]), seed=seeds)
def test_scaling_queries_is_scaling_the_constant(evidence, tokens, seed, *, attention=scaled_queries):
    """Keys of unit root mean square, T = 16; the identity, bit for bit, at N = T."""
    draw = np.random.default_rng(seed)
    q, k = draw.standard_normal((2, tokens, 8))
    k /= np.sqrt((k**2).mean(-1, keepdims=True))
    r = size_factor(tokens, 16)
    gap = attention(q, k, r) - softmax_rows(r * (q @ k.T) / math.sqrt(8))
    evidence.expect("difference of a weight", gap, equals=0, error=64 * EPS * (1 + abs(q @ k.T).max()))
    if tokens == 16:
        evidence.expect("change at N = T", abs(scaled_queries(q, k, r) - softmax(q, k)).max(), equals=0, error=0)


def trained_tokens(downsampling):
    """T of a level of Stable Diffusion, trained on 512 x 512 pixels."""
    return tokens_of(512, 512, downsampling)


@training_free.check("exact", scope="the constants", controls={"one T for all": {"trained_at": lambda level: TRAINED}})
def test_each_level_has_a_number_of_training_tokens_of_its_own(evidence, *, trained_at=trained_tokens):
    """Stable Diffusion from 512 x 512: at a fixed image size the deeper levels get the larger correction."""
    for pixels in (224, 256, 768, 1024):
        factors = [size_factor(tokens_of(pixels, pixels, down), trained_at(down)) for down in (8, 16, 32)]
        evidence.note(f"{pixels} x {pixels}: " + ", ".join(f"{one:.3f}" for one in factors) + " at levels 8, 16, 32.")
        corrections = np.abs(np.log(factors))
        evidence.expect("growth of the correction with depth", np.diff(corrections), at_least=0)

"""The scale of softplus attention, and the entropy of its rows (Gao and Spratling, 2025).

What the paper says. LSSA multiplies cosines by ln d ln N, a factor that "invariance entropy" is to justify: attention
should stay as focused in a long row as in a short one.

Notation. N is the number of keys that a row may attend to, d the width of a head, c_j the cosine of query and key j. A
row is phi(lambda c_j) over its sum: phi = softplus and lambda = ln d ln N for LSSA. Entropies are in nats.

Scope. Rows by themselves: cosines are given or random. What trained queries and keys do is not in this file.
"""

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import exp_map, softplus
from theory.operators.softplus_attention import (
    ball_softplus,
    dynamic_scale,
    entropy,
    entropy_floor,
    one_key_entropy,
    random_row_deficit,
    two_stages,
)

PAPER = "gao2025softplus"
EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)

invariance = Claim(
    paper=PAPER,
    slug="scale-keeps-entropy",
    where="Abstract, Section 2.2 (dynamic scale factor based on invariance entropy)",
    says="With the scale ln d ln N the entropy of an LSSA row does not depend on the number N of keys.",
    formula=r"H\Bigl(\frac{\operatorname{softplus}(\ln d \ln N \, c)}{\|\cdot\|_1}\Bigr) \approx \text{const. in } N",
    gap="Rows with given or independent random keys; in a trained model queries and keys may adapt to the length. The "
    "repair is measured for N from 64 to 4096; for longer rows the exponential falls to single keys.",
    repair="With the exponential in place of softplus the same scale keeps the entropy of a row over random keys of "
    "d = 64 from growing with N: its slope against ln N is nearer to 0 than to 1.",
)


@invariance.refutation(
    "certified",
    controls={"exp in place of softplus": {"positive": lambda s: s.exp()}},
)
def test_one_aligned_key_is_lost_in_a_longer_row(evidence, *, positive=ball_softplus):
    """Two keys, one aligned and one orthogonal, d = 64; a third orthogonal key; up to 200: the entropy only grows."""
    entropies = [one_key_entropy(n, 64, positive) for n in range(2, 201)]
    steps = [float((later - earlier).lower()) for earlier, later in pairwise(entropies)]
    evidence.expect("gain of entropy from 2 to 3 keys, lower end", steps[0], at_least=0, unit="nats")
    evidence.expect("least gain from N to N + 1 keys, N < 200, lower end", min(steps), at_least=0, unit="nats")
    # Invariance would leave the entropy of two keys, at most ln 2, at every length.
    evidence.expect(
        "entropy at 200 keys above the most that two keys have",
        float(entropies[-1].lower()) - np.log(2),
        at_least=0,
        unit="nats",
    )
    evidence.counterexample(
        "A query aligned with one key and orthogonal to the others, d = 64",
        entropy_of_2_keys=str(entropies[0]),
        entropy_of_3_keys=str(entropies[1]),
        entropy_of_200_keys=str(entropies[-1]),
    )


@invariance.refutation(
    "property",
    scope="every distribution of cosines",
    controls={"exp in place of softplus": {"positive": exp_map}},
)
@given(n=st.integers(2, 300), width=st.floats(0.05, 1), scale=st.floats(0.5, 60), seed=seeds)
def test_the_entropy_stays_within_a_constant_of_ln_n(evidence, n, width, scale, seed, *, positive=softplus):
    """H >= ln N - ln((c_max + ln 2 / lambda) / mean ReLU(c)), for any scale: no factor of N can hold softplus' entropy.

    Attained in the limit of large scales, where half of the keys are aligned and half opposed.
    """
    cosines = np.clip(width * np.random.default_rng(seed).standard_normal(n), -1, 1)
    cosines[0] = abs(cosines[0])
    row = two_stages(scale * cosines, positive)
    evidence.expect(
        "entropy above the floor", entropy(row) - entropy_floor(cosines, scale), at_least=-n * EPS * 8, unit="nats"
    )
    tight = np.resize([1.0, -1.0], 2 * n)
    attained = entropy(two_stages(1e9 * tight, softplus)) - entropy_floor(tight, 1e9)
    evidence.expect(
        "the same where the floor is attained", attained, within=(-8 * n * EPS, 1e-9 + 8 * n * EPS), unit="nats"
    )


LENGTHS = 2 ** np.arange(6, 13)
SCALES = {
    "LSSA": (softplus, lambda n: dynamic_scale(n, 64)),
    "softplus, scale frozen at N = 1024": (softplus, lambda n: dynamic_scale(1024, 64)),
    "softmax, scale sqrt(d)": (exp_map, lambda n: 8.0),
    "exp with LSSA's scale": (exp_map, lambda n: dynamic_scale(n, 64)),
}


def random_cosines(draw, rows=8):
    """Cosines of random directions in R^64 with a query, (16 groups, rows, N) for each N of LENGTHS."""
    for n in LENGTHS:
        z = draw.standard_normal((16, rows, n))
        yield z / np.sqrt(z**2 + 2 * draw.standard_gamma(31.5, z.shape))


def random_row_entropies(draw, kinds):
    """Of each of SCALES in `kinds`, (16, lengths): mean entropy of rows over random keys, in 16 independent groups."""
    found = {kind: [] for kind in kinds}
    for cosines in random_cosines(draw):
        for kind in kinds:
            positive, scale = SCALES[kind]
            rows = two_stages(scale(cosines.shape[-1]) * cosines, positive)
            found[kind].append(entropy(rows).mean(axis=-1))
    return {kind: np.stack(entropies, axis=1) for kind, entropies in found.items()}


def slopes(entropies):
    """(16,): least-squares slope of each group's entropy against ln N."""
    x = np.log(LENGTHS) - np.log(LENGTHS).mean()
    return entropies @ x / (x @ x)


@invariance.refutation(
    "statistical",
    scope="random keys, d = 64, N = 64 to 4096",
    controls={"exp with LSSA's scale": {"kind": "exp with LSSA's scale"}},
)
def test_over_random_keys_the_entropy_follows_ln_n(evidence, rng, *, kind="LSSA"):
    """The slope of the entropy against ln N is nearer to 1, that of uniform attention, than to 0, invariance.

    The figure has the rivals, and LSSA's limit ln N - E[w ln w] by quadrature.
    """
    found = random_row_entropies(rng("rows"), SCALES)
    for name, entropies in found.items():
        evidence.note(f"Slope of the entropy, {name}: {slopes(entropies).mean():.3f}.")
    evidence.figure(
        "Entropy of a row over N random keys, d = 64",
        entropy_figure(found),
        "Invariance would be a horizontal line. The dashed line is LSSA's limit by quadrature.",
    )
    evidence.mean_at_least("slope of the entropy against ln N", slopes(found[kind]), 0.5, alpha=1e-5)


@invariance.check(
    "statistical",
    scope="the repair, random keys, d = 64, N = 64 to 4096",
    controls={"softplus: LSSA": {"kind": "LSSA"}, "softmax, scale sqrt(d)": {"kind": "softmax, scale sqrt(d)"}},
)
def test_with_exp_the_same_scale_holds_the_entropy(evidence, rng, *, kind="exp with LSSA's scale"):
    """The slope is nearer to 0 than to 1; what an exponential may gain, the softplus' linear tail cannot."""
    entropies = random_row_entropies(rng("rows"), [kind])[kind]
    evidence.note(f"Mean entropy at N = {LENGTHS.tolist()}: {entropies.mean(axis=0).round(2).tolist()} nats.")
    evidence.mean_within("slope of the entropy against ln N", slopes(entropies), -0.5, 0.5, alpha=1e-5)


def entropy_figure(found):
    """Entropy against the number of keys, by operator."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, entropies in found.items():
        axes.semilogx(LENGTHS, entropies.mean(axis=0), "o-", base=2, label=name)
    limit = [np.log(n) - random_row_deficit(dynamic_scale(n, 64), 64) for n in LENGTHS]
    axes.semilogx(LENGTHS, limit, "k--", base=2, label="LSSA's limit")
    axes.set_xlabel("keys N")
    axes.set_ylabel("entropy, nats")
    axes.legend(frameon=False, fontsize="small")
    return figure

"""Who learns what from how many samples: attention with random heads and its rivals (Fu, Guo, Bai, Mei 2023).

What the paper says. (1) For targets that do not depend on the keys' order, random-feature attention RFA needs fewer
samples than the random-feature network RFMLP on the concatenated tokens. (3) Query-key matrices of non-zero mean, BRFA,
need fewer still where a target weighs keys by their correlation with the query (abstract; Examples; Theorems 3, 4).

Notation. As in test_random_features.py; t = <x_0, x>. Errors are test errors over the best constant's: 1 is nothing
learned. BRFA here has mean sqrt(d) I, so that the mean score has variance 1 like its noise.

Scope. Infinitely many heads on both sides, by their kernels; ridge with a penalty validated on 100 or 200 other
inputs; uniform unit tokens, no noise. Errors are compared over independent repetitions by t intervals and sign
tests. An alternating sum, which depends on the keys' order, is the master control: there the network must win.
"""

import numpy as np

from reports.claim import Claim

PAPER = "fu2023single"
ALPHA = 2e-5
ORDERED = "alternating sum"


def log_gain(experiment, target, worse, better):
    """log of error over error at the last sample size, one number a repetition."""
    curves = experiment.curves()
    return np.log(experiment.of(curves, worse, target)[:, -1] / experiment.of(curves, better, target)[:, -1])


def invariance(rng):
    """d = 8, N = 4, 512 samples, 12 repetitions: RFA, RFMLP and RFMLP averaged over all orders of the keys."""
    from empirical.operators.random_features import Experiment

    targets = ("average of <b,x>²", "<b,query>²", "average of relu(t)<b,x>", ORDERED)
    return Experiment(rng.seed("invariance"), 12, 8, 4, (512,), ("RFA", "RFMLP", "symmetrised RFMLP"), targets)


network = Claim(
    paper=PAPER,
    slug="fewer-samples-than-the-network",
    where="Abstract (1) and (2), Examples 1 to 3",
    says="On functions of the query, averages of functions of keys, and correlation-weighted averages, attention with "
    "random heads has a smaller test error than the random-feature network trained on the same samples.",
    formula=r"\mathcal{E}_{\mathrm{RFA}}(n) < \mathcal{E}_{\mathrm{RFMLP}}(n)",
    gap="The paper compares bounds of sample sizes; here test errors at d = 8, N = 4, n = 512, one target a class.",
)


@network.check("experiment", controls={"a target that sees the keys' order": {"targets": (ORDERED,)}})
def test_attention_beats_the_network_on_each_class(
    evidence, paper_rng, *, targets=("average of <b,x>²", "<b,query>²", "average of relu(t)<b,x>")
):
    """log of RFMLP's error over RFA's, one-sided t interval over 12 repetitions for each target."""
    experiment = invariance(paper_rng)
    for target in targets:
        gain = log_gain(experiment, target, "RFMLP", "RFA")
        evidence.note(f"{target}: RFMLP's error is {np.exp(gain.mean()):.2g} times RFA's.")
        evidence.mean_at_least(f"log error ratio, {target}", gain, 0, alpha=ALPHA)


form = Claim(
    paper=PAPER,
    slug="the-advantage-is-the-form-of-attention",
    where="Abstract (our stronger reading: what makes the difference is attention)",
    says="Attention's advantage comes from its form: no invariant version of the network learns these targets as well.",
    formula=r"\mathcal{E}_{\mathrm{RFA}}(n) \le \mathcal{E}_{\mathrm{sym\ RFMLP}}(n)",
    gap="The averaged network costs N! evaluations where attention costs N; that is attention's merit here. The paper "
    "compares with the standard network only.",
)


@form.refutation(
    "experiment",
    controls={"the network without averaging": {"rival": "RFMLP"}},
)
def test_the_network_averaged_over_orders_beats_attention(
    evidence, paper_rng, *, rival="symmetrised RFMLP", targets=("average of <b,x>²", "<b,query>²")
):
    """RFMLP's kernel averaged over all 24 orders of the keys errs less than RFA: t interval over 12 repetitions."""
    experiment = invariance(paper_rng)
    for target in targets:
        gain = log_gain(experiment, target, "RFA", rival)
        evidence.mean_at_least(f"log of RFA's error over the rival's, {target}", gain, 0, alpha=ALPHA)
        curves = experiment.curves()
        evidence.counterexample(
            f"{target}, d = 8, N = 4, 512 samples: mean test errors",
            **{name: round(float(experiment.of(curves, name, target).mean()), 4) for name in experiment.models},
        )


length = Claim(
    paper=PAPER,
    slug="samples-do-not-grow-with-keys",
    where="Example 2 and abstract (1)",
    says="The samples that attention needs for an average of squares do not grow with the number of keys, while the "
    "network's grow at least in proportion to it.",
    formula=r"n_{\mathrm{RFA}}(N) = \Theta(1), \qquad n_{\mathrm{RFMLP}}(N) = \Omega(N)",
    gap="Samples to halve the error of a constant, d = 4, N = 2, 4, 8; the exponents are local.",
)
KEYS = (2, 4, 8)


def halving(rng, keys, name):
    """Samples to a test error of 1/2 in each repetition: 16 for RFA, whose samples are few, and 8 for RFMLP."""
    from empirical.operators.random_features import Experiment, samples_for

    target, attention = "average of <b,x>²", name == "RFA"
    sizes = (8, 16, 32, 64, 128) if attention else tuple(2**k for k in range(5, 12) if 2**k <= 128 * keys)
    repetitions = 16 if attention else 8
    experiment = Experiment(rng.seed("length", keys), repetitions, 4, keys, sizes, (name,), (target,), test=400)
    return np.array([samples_for(0.5, sizes, curve) for curve in experiment.of(experiment.curves(), name, target)])


@length.check("experiment", controls={"the network in attention's place": {"models": ("RFMLP", "RFMLP")}})
def test_attention_halves_the_error_at_the_same_size_for_all_lengths(evidence, paper_rng, *, models=("RFA", "RFMLP")):
    """Exponent of N in the samples needed, t intervals over repetitions: at most 1/2 for RFA, at least 1 for RFMLP.

    1/2 is half-way between no growth and growth in proportion.
    """
    from empirical.operators.random_features import slopes

    needed = [np.array([halving(paper_rng, keys, name) for keys in KEYS]) for name in models]  # (lengths, repetitions)
    evidence.figure("Samples to halve the error of a constant", length_figure(needed), "Points are repetitions.")
    first, second = (slopes(KEYS, one.T) for one in needed)
    evidence.mean_at_most("exponent of N, attention", first, 0.5, alpha=ALPHA)
    evidence.mean_at_least("exponent of N, network", second, 1, alpha=ALPHA)


def length_figure(needed):
    """Samples against keys, both models."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for i, (name, mark) in enumerate((("RFA", "o"), ("RFMLP", "s"))):
        axes.loglog(KEYS, needed[i], mark, color=f"C{i}", alpha=0.6)
        axes.loglog(KEYS, np.exp(np.log(needed[i]).mean(axis=-1)), color=f"C{i}", label=name)
    axes.set_xlabel("keys N")
    axes.set_ylabel("samples n")
    axes.legend(frameon=False)
    return figure


# -- Theorems 3 and 4: the mean of the query-key matrix ---------------------------------------------------------------

CORRELATED = ("average of relu(t)<b,x>", "average of t<b,x>")


def means(rng):
    """d = 16, N = 2, 256 samples, 14 repetitions: heads of mean zero, sqrt(d) I, a rotation of it, and -sqrt(d) I."""
    from empirical.operators.random_features import Experiment

    names, targets = ("RFA", "BRFA", "mean rotated", "mean -I"), (*CORRELATED, "average of <b,x>²")
    return Experiment(rng.seed("means"), 14, 16, 2, (256,), names, targets, validation=100, test=300)


biased = Claim(
    paper=PAPER,
    slug="mean-helps-on-correlations",
    where="Abstract (3), Section 4",
    says="Where a target weighs keys by their correlation with the query, heads whose query-key matrices have a "
    "multiple of the identity as mean have a smaller test error than heads of mean zero.",
    formula=r"\mathcal{E}_{\mathrm{BRFA}}(n) < \mathcal{E}_{\mathrm{RFA}}(n) \quad\text{for } "
    r"f = \tfrac{1}{N} \textstyle\sum_i h(t_i) \langle b, x_i \rangle",
    gap="d = 16, N = 2, n = 256, h(t) = max(t, 0) and h(t) = t. In few dimensions the order reverses (d = 4, "
    "h(t) = t). For h(t) = t a mean of -sqrt(d) I helps as much.",
)


@biased.check(
    "experiment",
    controls={
        "a random rotation as mean": {"mean": "mean rotated"},
        "minus the identity as mean": {"mean": "mean -I"},
        "a target without the query": {"targets": ("average of <b,x>²",)},
    },
)
def test_biased_heads_err_less_on_correlation_weighted_averages(
    evidence, paper_rng, *, mean="BRFA", targets=CORRELATED
):
    """Sign test over 14 repetitions: those in which the heads with a mean err less on each of the targets."""
    gains = np.array([log_gain(means(paper_rng), target, "RFA", mean) for target in targets])
    for target, gain in zip(targets, gains, strict=True):
        evidence.note(f"{target}: RFA's error is {np.exp(gain.mean()):.2f} times that of the heads with a mean.")
    evidence.sign_test("repetitions won on every target", int((gains > 0).all(axis=0).sum()), 14, alpha=1e-4)

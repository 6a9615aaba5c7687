"""What training finds, for Gaussian adaptive attention (Ioannides, Chadha, Elkins, 2024).

What the paper says. GAAM beats dot-product attention by up to about 20 % in accuracy on speech, text and images, most
on non-stationary data; its Importance Factor (IF) explains which features matter (abstract). The README's mixture was,
in the release of 22-30 January 2024, a sum of Gaussians that all start at offset 0, width 2 and equal masses.

Notation. offset, width are delta, c. IF_j is the mean weight of feature j over samples, brought to [0, 1] by its least
and greatest value; we know this formula at second hand only. AUC: the chance that a relevant feature scores higher.

Scope. Small models, several seeds. The encoders of the paper (WavLM, BEiT, Llama 2) are out of reach here.
"""

import numpy as np

from reports.claim import Claim
from theory.operators.attention import gaussian_adaptive
from theory.operators.gaam import best_bell, importance_factor, ranking_quality, total_variation, two_bumps

PAPER = "ioannides2024gaam"
EPS = np.finfo(float).eps

released = Claim(
    paper=PAPER,
    slug="released-mixture-learns",
    where="README, released code of 22-30 January 2024",
    says="Trained from the released start, a sum of K Gaussians learns a distribution with several peaks.",
    formula=r"\delta_k(0) = 0, \; c_k(0) = 2, \; \pi_k = 1/K \;\Rightarrow\; w \to p",
    gap="One target, two bumps; Adam. What holds for it holds for any: equal Gaussians get equal gradients.",
    repair="From distinct offsets.",
)


def fit(rng, start):
    """Target, fitted weights and parameters of a sum of five Gaussians, trained on two bumps at +-1.5."""
    import torch

    from empirical.operators import gaam

    x, target = two_bumps()
    generator = torch.Generator().manual_seed(rng.seed("start"))
    fitted, parameters = gaam.approximate(x, target, gaam.summed, getattr(gaam, start)(5, generator), 300)
    return x, target, fitted, parameters


@released.refutation("experiment", controls={"distinct offsets": {"start": "random_start"}})
def test_equal_gaussians_never_separate(evidence, rng, *, start="released_start"):
    """Equal parameters get equal gradients for ever: after 300 steps five Gaussians are still one."""
    x, target, fitted, parameters = fit(rng, start)
    evidence.counterexample("K = 5, all Gaussians equal", offsets=parameters[1].tolist(), widths=parameters[2].tolist())
    evidence.expect(
        "greatest distance between two offsets", np.ptp(parameters[1]), less_than=("half of what the target asks", 1.5)
    )
    evidence.expect("distance from the target", total_variation(fitted, target), at_least=best_bell(x, target)[0] / 2)


@released.check("experiment", controls={"released start": {"start": "released_start"}})
def test_distinct_gaussians_find_both_peaks(evidence, rng, *, start="random_start"):
    """From offsets drawn over the data's range: less than half the best single Gaussian's distance."""
    x, target, fitted, _ = fit(rng, start)
    evidence.expect(
        "distance from the target",
        total_variation(fitted, target),
        less_than=("half the single Gaussian's", best_bell(x, target)[0] / 2),
    )


importance = Claim(
    paper=PAPER,
    slug="importance-factor",
    where="Abstract; the formula at second hand",
    says="The Importance Factor ranks the features that decide the label above those that do not.",
    formula=r"\mathrm{IF}_j = \frac{\bar w_j - \min_i \bar w_i}{\max_i \bar w_i - \min_i \bar w_i}",
    gap="Features of equal distribution, and one case of unequal ones; not the use for choosing layers of an encoder.",
)


@importance.refutation("exact", controls={"samples that tell the features apart": {"sample": ((0.0, 1.0), (0.2, 1.0))}})
def test_exchangeable_features_have_one_mean_weight(evidence, *, sample=((0.0, 1.0), (1.0, 0.0))):
    """Two features, two samples, the label is the first one: whatever the parameters, both mean weights are 1/2.

    A gate treats its features alike, so that exchangeable ones have one mean weight, whichever of them decides.
    """
    x = np.array(sample)
    for offset in (-1.0, 0.0, 0.7):
        for width in (0.5, 1.0, 3.0):
            mean = gaussian_adaptive(x, np.array([offset]), np.array([width])).mean(axis=0)
            evidence.expect("difference of the mean weights", mean[0] - mean[1], equals=0, error=4 * EPS)
    evidence.counterexample(
        "IF is 0 / 0, feature 1 decides", samples=sample, labels=[0, 1], mean_weights=["1/2", "1/2"]
    )


def factor_of(result):
    """IF (seeds, features)."""
    return np.stack([importance_factor(mean[None]) for mean in result.mean_weights])


def gradients_of(result):
    """Mean |d logit / d x|, (seeds, features)."""
    return result.gradients


@importance.refutation("experiment", controls={"input gradients in place of IF": {"score": gradients_of}})
def test_the_factor_is_no_better_than_chance_on_trained_models(evidence, rng, *, score=factor_of):
    """20 independent Gaussian features, 5 decide; 32 trained models: mean AUC nearer to chance than to 0 or 1."""
    from empirical.operators.gaam import FEATURES, RELEVANT, relevance

    relevant = np.arange(FEATURES) < RELEVANT
    result = relevance(rng.seed("relevance"))
    quality = ranking_quality(score(result), relevant)
    gradients = ranking_quality(gradients_of(result), relevant)
    evidence.note(f"Mean accuracy {result.accuracy.mean():.3f}; AUC of input gradients at least {gradients.min():.2f}.")
    spread = np.ptp(result.mean_weights, axis=1) / result.mean_weights.mean(axis=1)
    evidence.note(f"A model's mean weights differ by {spread.mean():.1%} of their mean, which is noise.")
    evidence.expect("accuracy of the worst model", result.accuracy, at_least=0.75)
    evidence.expect("mean AUC over the models", quality.mean(), within=(0.25, 0.75))
    evidence.mean_within("AUC of the Importance Factor", quality, 0.25, 0.75, alpha=2e-5)


@importance.refutation(
    "experiment", scope="relevant features with a mean of their own", controls={"gradients": {"score": gradients_of}}
)
def test_the_factor_ranks_shifted_features_last(evidence, rng, *, score=factor_of):
    """The same with the relevant features around 1.5: far from the mean they get the least weight."""
    from empirical.operators.gaam import FEATURES, RELEVANT, relevance

    result = relevance(rng.seed("shifted"), shift=1.5)
    quality = ranking_quality(score(result), np.arange(FEATURES) < RELEVANT)
    evidence.expect("mean AUC of the Importance Factor", quality.mean(), less_than=("chance", 0.5))
    evidence.note(f"IF ranks all relevant features last in {(quality == 0).sum()} of {len(quality)} models.")


beats = Claim(
    paper=PAPER,
    slug="beats-attention",
    where="Abstract",
    says="In place of dot-product attention, on features of speech, text and images, GAAM classifies more accurately, "
    "by up to about 20 %.",
    formula=r"\mathrm{acc}_{\mathrm{GAAM}} - \mathrm{acc}_{\mathrm{attention}} > 0, \text{ up to } 0.2",
    gap="Digits of 8 x 8 pixels, read as sequences of rows, with a linear classifier: one modality, no encoder, and "
    "little room above what no layer at all reaches.",
)


@beats.check("experiment", controls={"labels of other digits": {"shuffled": True}})
def test_gates_and_attention_on_digits(evidence, rng, scale, *, shuffled=False):
    """A gate along rows or features, attention, and no layer, eight seeds each; differences are reported, not gated."""
    from empirical.operators.gaam import MIXERS, digit_accuracy

    size = {"small": {"seeds": 8}, "full": {"seeds": 200, "steps": 1000}}[scale]
    names = MIXERS if not shuffled else MIXERS[:1]
    accuracy = {name: digit_accuracy(name, rng.seed("digits"), shuffled=shuffled, **size) for name in names}
    for name, of_seeds in accuracy.items():
        # Half-way between chance, 0.1, and no error.
        evidence.expect(f"accuracy of the worst seed, {name}", of_seeds, at_least=0.55)
    evidence.figure("Digits read by rows", figure_of(accuracy), "Points are seeds, bars their means.")
    gate = accuracy["gate along rows"]
    for name in ("nothing", "dot-product attention"):
        gain = gate - accuracy[name]
        error = 2 * np.hypot(gate.std(ddof=1), accuracy[name].std(ddof=1)) / np.sqrt(len(gate))
        evidence.note(f"Gate along rows minus {name}: {gain.mean():+.4f} (two standard errors {error:.4f}).")
    evidence.inconclusive(
        needs="features of WavLM, BEiT or Llama 2 on the paper's data sets, and its tables, to compare like with like"
    )


drifting = Claim(
    paper=PAPER,
    slug="most-gain-where-not-stationary",
    where="Abstract: 'particularly (...) data that is highly non-stationary'",
    says="What GAAM gains over dot-product attention is greatest on data whose mean and variance change on the way.",
    formula=r"\mathrm{acc}_{\mathrm{GAAM}} - \mathrm{acc}_{\mathrm{attention}} \;\text{ rises with the drift}",
    gap="Digits whose level and contrast walk at random from row to row, not speech; no encoder before the gate.",
)


@drifting.check("experiment", controls={"labels of other digits": {"shuffled": True}})
def test_gates_and_attention_on_drifting_digits(evidence, rng, *, shuffled=False):
    """Steps of 0, 0.2 and 0.4 from row to row, sixteen seeds each; what the gate gains is reported, not gated."""
    from empirical.operators.gaam import digit_accuracy

    for drift in (0.0, 0.2, 0.4):
        gate, rival = (
            digit_accuracy(name, rng.seed("digits"), seeds=16, shuffled=shuffled, drift=drift)
            for name in ("gate along rows", "dot-product attention")
        )
        for name, of_seeds in (("gate", gate), ("attention", rival)):
            # Half-way between chance, 0.1, and no error.
            evidence.expect(f"accuracy of the worst seed, {name}, drift {drift:g}", of_seeds, at_least=0.55)
        gain = gate - rival
        error = 2 * gain.std(ddof=1) / np.sqrt(len(gain))
        evidence.note(f"Drift {drift:g}: gate minus attention {gain.mean():+.4f} (two standard errors {error:.4f}).")
    evidence.inconclusive(needs="the paper's encoders on speech emotion data, and on data that is stationary")


def figure_of(accuracy):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.4), layout="constrained")
    axes = figure.subplots()
    for row, of_seeds in enumerate(accuracy.values()):
        axes.plot(of_seeds, np.full(len(of_seeds), row), "o", color="0.6", markersize=4)
        axes.plot([of_seeds.mean()], [row], "|", color="C3", markersize=18, markeredgewidth=2)
    axes.set(xlabel="test accuracy", yticks=range(len(accuracy)), yticklabels=list(accuracy))
    axes.margins(y=0.2)
    return figure

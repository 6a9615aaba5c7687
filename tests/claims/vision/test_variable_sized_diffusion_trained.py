"""A denoiser trained at one size and run at others: entropy, error, and the paper's factor (Jin, Shen, Li, Xue, 2023).

What the paper says. Text-to-image models trained on one size show incomplete objects on smaller images and repeated
ones on larger; multiplying the scores of self-attention by sqrt(ln N / ln T) alleviates the change of entropy and
improves visual quality (FID) and text alignment (CLIP score), without training (abstract).

Notation. T = 64 tokens, the pixels of a digit of 8 x 8; N = 16 and 256 are the same digits at 4 x 4 and 16 x 16. The
*drift* is the distance of the mean entropy at N from that at T.

Scope. Denoisers of a few thousand parameters, six seeds, one denoising step; no text, no sampling. `--scale full`
trains wider and deeper ones for longer, and goes to 24 x 24.
"""

import numpy as np

from reports.claim import Claim
from theory.vision.variable_sized_diffusion import inverse_factor, size_factor

PAPER = "jin2023trainingfree"
SIDES = {"small": (4, 16), "full": (4, 6, 12, 16, 24)}


def unchanged(tokens, trained):
    """The usual scale."""
    return 1.0


def trained(paper_rng, scale, steps=None):
    """A function (side, factor) -> entropies, errors of each seed, and one side -> the best linear error.

    All claims of this file share their denoisers.
    """
    from empirical.vision.variable_sized_diffusion import SIZES, linear_error, measure, train

    size = SIZES[scale]
    models = train(paper_rng.seed("denoiser"), size, steps)
    noise = paper_rng.seed("noise")

    def run(side, factor):
        return measure(models, side, factor, size.images, noise)

    return run, lambda side: linear_error(side, size.images, noise)


drift = Claim(
    paper=PAPER,
    slug="factor-reduces-the-drift-when-trained",
    where="Abstract: 'a scaling factor to alleviate the change of attention entropy'",
    says="In a trained denoiser the entropy rises with the number of tokens, and the factor brings it nearer to that "
    "of the trained size, for fewer tokens and for more.",
    formula=r"|\mathrm{Ent}_N(r) - \mathrm{Ent}_T| < |\mathrm{Ent}_N(1) - \mathrm{Ent}_T|",
    gap="Digits, pixels as tokens; not the layers of Stable Diffusion.",
)


@drift.check("experiment", controls={"the inverse factor": {"factor": inverse_factor}})
def test_every_trained_model_drifts_less(evidence, paper_rng, scale, *, factor=size_factor):
    """Mean over layers, heads and queries, for each seed; the share of the drift that is left."""
    run, _ = trained(paper_rng, scale)
    goal = run(8, unchanged)[0]
    found = {8: (goal, goal)}
    for side in SIDES[scale]:
        before, after = run(side, unchanged)[0], run(side, factor)[0]
        found[side] = before, after
        evidence.expect("rise of the entropy away from T, per ln N", (before - goal) * np.sign(side - 8), at_least=0)
        left = abs(after - goal) / abs(before - goal)
        evidence.expect(f"drift left at {side} x {side}", left, less_than=1)
        evidence.note(f"{side} x {side}: {left.mean():.0%} of the drift is left.")
    evidence.figure(
        "Entropy of a trained denoiser's attention",
        entropy_figure(dict(sorted(found.items()))),
        "Means over seeds; the dotted line has slope 1 and meets the trained size, 64 tokens.",
    )


def entropy_figure(found):
    from matplotlib.figure import Figure

    tokens = np.array(list(found)) ** 2
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    before, after = (np.array([pair[i].mean() for pair in found.values()]) for i in (0, 1))
    axes.plot(tokens, before, "o-", label="usual scale")
    axes.plot(tokens, after, "s--", label="with the factor")
    axes.plot(tokens, before[tokens == 64] + np.log(tokens / 64), ":", color="0.5", label="slope 1")
    axes.set(xscale="log", xlabel="tokens", ylabel="entropy in nats", xticks=tokens, xticklabels=tokens)
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure


defects = Claim(
    paper=PAPER,
    slug="other-sizes-are-worse",
    where="Abstract, Figure 1",
    says="A model trained at one size does worse at smaller and at larger ones.",
    formula=r"\frac{E_N}{E_N^{\text{linear}}} > \frac{E_T}{E_T^{\text{linear}}} \quad (N \ne T)",
    gap="Squared error of one denoising step on digits, not incomplete or repeated objects in samples.",
)


@defects.check(
    "experiment",
    controls={
        "models without training": {"steps": 0},
        "one yardstick for all sizes": {"yardstick": lambda linear_error, side: linear_error(8)},
    },
)
def test_the_error_grows_against_the_best_linear_denoiser(
    evidence, paper_rng, scale, *, steps=None, yardstick=lambda linear_error, side: linear_error(side)
):
    """Error over that of the best linear denoiser fitted to the size itself, which has the same noise to remove.

    The error alone would not tell: larger images have more pixels of the same strokes, and are easier to denoise.
    """
    run, linear_error = trained(paper_rng, scale, steps)
    ratios = {side: run(side, unchanged)[1] / yardstick(linear_error, side) for side in (8, *SIDES[scale])}
    for side, ratio in sorted(ratios.items()):
        evidence.note(f"{side} x {side}: error {ratio.mean():.2f} times the best linear denoiser's.")
    # The images have variance near 1: a model that learned nothing is an order of magnitude worse.
    evidence.expect("error at the trained size, against the linear denoiser's", ratios[8], less_than=2)
    for side in SIDES[scale]:
        evidence.expect(f"ratio at {side} x {side} over that at 8 x 8", ratios[side] / ratios[8], at_least=1)


mechanism = Claim(
    paper=PAPER,
    slug="drift-explains-the-defects",
    where="Abstract: 'models aggregate spatial information in proportion to image resolution', read as the cause",
    says="Larger images suffer because attention aggregates too much: with the entropy of the trained size restored, "
    "the error falls.",
    formula=r"\mathrm{Ent}_N(r) = \mathrm{Ent}_T \;\Rightarrow\; E_N(r) < E_N(1)",
    gap="Squared error on digits, one factor for all layers. At 4 x 4 no factor restores the entropy: ln N is too low.",
)


def restoring_factor(run, side, goal):
    """The factor of the scores at which the mean entropy at this size is the goal."""
    from scipy.optimize import brentq

    return brentq(lambda r: run(side, lambda N, T: r)[0].mean() - goal, 1, 30, xtol=0.01)


@mechanism.check(
    "experiment", controls={"the paper's factor": {"factor": lambda run, side, goal: size_factor(side**2, 64)}}
)
def test_the_error_where_the_entropy_is_restored(evidence, paper_rng, scale, *, factor=restoring_factor):
    """Images larger than the trained ones: a factor is found that undoes the drift; the errors are noted."""
    run, _ = trained(paper_rng, scale)
    goal = run(8, unchanged)[0].mean()
    for side in (side for side in SIDES[scale] if side > 8):
        r = factor(run, side, goal)
        (before, usual), (after, restored) = run(side, unchanged), run(side, lambda N, T, r=r: r)
        left = abs(after.mean() - goal) / abs(before.mean() - goal)
        evidence.expect(f"share of the drift left at {side} x {side}", left, less_than=("half", 0.5))
        evidence.note(
            f"{side} x {side}: with the scores times {r:.2f} the entropy is that of 8 x 8; error {restored.mean():.4f} "
            f"in place of {usual.mean():.4f}, lower in {(restored < usual).sum()} of {len(usual)} seeds."
        )
    evidence.inconclusive(
        needs="Stable Diffusion's layers at their own sizes, with a measure of incomplete and repeated objects"
    )


quality = Claim(
    paper=PAPER,
    slug="factor-improves-quality",
    where="Abstract; tables",
    says="At other sizes than the trained one the factor improves the quality of images and their alignment with text.",
    formula=r"\mathrm{FID}_N(r) < \mathrm{FID}_N(1)",
    gap="Neither FID nor CLIP score: the squared error of one denoising step on digits.",
)


@quality.check("experiment", controls={"the inverse factor": {"factor": inverse_factor}})
def test_the_error_with_the_factor_and_without(evidence, paper_rng, scale, *, factor=size_factor):
    """At 4 x 4 the factor does better than its inverse on the mean over seeds; all sizes are reported."""
    run, linear_error = trained(paper_rng, scale)
    for side in SIDES[scale]:
        usual, scaled = run(side, unchanged)[1], run(side, factor)[1]
        inverse = run(side, lambda N, T: 1 / factor(N, T))[1]
        share = (usual - scaled).mean() / (usual.mean() - linear_error(side))
        evidence.note(
            f"{side} x {side}: error {usual.mean():.4f}, with the factor {scaled.mean():.4f}, with its inverse "
            f"{inverse.mean():.4f}; better in {(scaled < usual).sum()} of {len(usual)} seeds; "
            f"{share:.1%} of the distance to the best linear denoiser."
        )
        if side == 4:
            evidence.expect(
                "error at 4 x 4, mean over seeds", scaled.mean(), less_than=("with the inverse", inverse.mean())
            )
    evidence.inconclusive(
        needs="Stable Diffusion at 224 to 1024 pixels, with FID and CLIP score on LAION; on digits the effect is a few "
        "per cent of what is missing"
    )

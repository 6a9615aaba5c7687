"""What training small vision transformers with Kolmogorov-Arnold attention shows (Maity et al., 2025).

What the paper says. ViT-T, S and B are trained for 100 epochs on CIFAR-10, CIFAR-100 and ImageNet-1K. The smallest
gains, thanks to its learnable activation, for which base function 0 is best. Trained KArAt has smaller singular values
than softmax attention, and a spikier loss landscape.

Notation. b is the base function of a unit. *Frozen*: the operator keeps its random start, only the rest of the network
learns. *Unmixed*: W = 0, so that tokens do not see each other.

Scope. Handwritten digits as 16 patches of 2 x 2 pixels; r = 6, G = 3, coefficients scaled at the start (the paper draws
N(0, 1)); two blocks of width 16, 160 steps, 16 seeds; at --scale full three blocks of width 32, 600 steps, 32 seeds.
Differences are paired by seed: same batches.
"""

from functools import cache

import numpy as np

from reports.claim import Claim

PAPER = "maity2025karat"


@cache
def accuracies(variant, seed, scale):
    """Test accuracy of each seed."""
    from empirical.operators.karat import accuracy, train

    return accuracy(train(variant, seed, scale))


gain = Claim(
    paper=PAPER,
    slug="small-models-gain",
    where="Abstract (in some cases, outperform), Image Recognition (ViT-Tiny)",
    says="A small vision transformer with KArAt is more accurate than one with softmax after the same training.",
    formula=r"\text{accuracy}(\text{KArAt}) > \text{accuracy}(\text{softmax})",
    gap="Digits, thousands of parameters, a short training at one learning rate at which softmax attention is not done "
    "learning; ViT-Tiny on CIFAR was not trained.",
)


@gain.check("experiment", controls={"W = 0, no attention": {"variant": "unmixed"}})
def test_more_digits_are_right_than_with_softmax(evidence, paper_rng, scale, *, variant="karat"):
    """Paired differences to softmax and to no attention, one-sided intervals; the figure has every seed."""
    seed = paper_rng.seed("training")
    found = {name: accuracies(name, seed, scale) for name in ("softmax", "unmixed", "frozen", "karat")}
    for name, one in found.items():
        evidence.note(f"Accuracy, {name}: mean {one.mean():.3f}, {one.min():.3f} to {one.max():.3f}.")
    evidence.figure("Test accuracy on digits", figure_of(found), "Points are seeds, lines their means.")
    for rival, name in (("softmax", "softmax attention"), ("unmixed", "no attention")):
        difference = found[variant] - found[rival]
        evidence.mean_at_least(f"accuracy above that of {name}", difference, 0, alpha=5e-5)


def figure_of(found):
    """Accuracy by variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for i, one in enumerate(found.values()):
        axes.plot([i] * len(one), one, "o", alpha=0.6, color="tab:blue")
        axes.hlines(one.mean(), i - 0.25, i + 0.25, color="black")
    axes.set_xticks(range(len(found)), list(found))
    axes.set_ylabel("test accuracy")
    return figure


learned = Claim(
    paper=PAPER,
    slug="learning-the-activation-helps",
    where="Title, Abstract (KArAt's learnable activation ... contributing to enhanced inference)",
    says="What KArAt gains over softmax, it gains because its activation is learned.",
    formula=r"\text{accuracy}(\text{learned}) - \text{accuracy}(\text{frozen}) "
    r"> \tfrac{1}{2}\bigl(\text{accuracy}(\text{learned}) - \text{accuracy}(\text{softmax})\bigr)",
    gap="Digits only; a small part of the gain may still be learning. A frozen operator mixes tokens by sines and "
    "cosines of their scores in r fixed patterns of positions.",
)


@learned.refutation(
    "experiment", controls={"W = 0, no attention": {"variant": "unmixed"}, "softmax": {"variant": "softmax"}}
)
def test_a_frozen_random_operator_has_most_of_the_gain(evidence, paper_rng, scale, *, variant="frozen"):
    """Random a, b and W that stay as they were drawn keep half of the gain over softmax, and over no attention.

    Paired by seed, one-sided intervals. That there is a gain is part of the check.
    """
    seed = paper_rng.seed("training")
    base, best, kept = (accuracies(name, seed, scale) for name in ("softmax", "karat", variant))
    for name in ("softmax", "unmixed"):
        half = (accuracies(name, seed, scale) + best) / 2
        evidence.mean_at_least(f"accuracy above half of the gain over {name}", kept - half, 0, alpha=5e-5)
    evidence.mean_at_least("gain over softmax", best - base, 0, alpha=5e-5)
    evidence.counterexample(
        "Mean test accuracy on digits", softmax=round(base.mean(), 3), frozen=round(kept.mean(), 3),
        learned=round(best.mean(), 3),
    )  # fmt: skip
    evidence.note(f"Learned minus frozen, seed by seed: {np.round(best - kept, 3).tolist()}.")


base_function = Claim(
    paper=PAPER,
    slug="zero-base-is-best",
    where="Choice of Basis and Base Activation",
    says="Base function 0 is more accurate than SiLU and than the identity.",
    formula=r"\hat\phi_{pq}(t) = b(t) + \textstyle\sum_g a_{pqg} \cos(g t) + b_{pqg} \sin(g t), \quad b = 0",
    gap="Digits only; the page has no accuracies of other base functions. b over sqrt(N), as our coefficients are.",
)


@base_function.check("experiment", controls={"W = 0, no attention": {"variant": "unmixed"}})
def test_other_base_functions_are_less_accurate(evidence, paper_rng, scale, *, variant="karat"):
    """Paired differences of test accuracy, one-sided intervals."""
    seed = paper_rng.seed("training")
    ours = accuracies(variant, seed, scale)
    for name in ("identity base", "SiLU base"):
        rival = accuracies(name, seed, scale)
        evidence.note(f"Accuracy, {name}: mean {rival.mean():.3f}; base 0: {ours.mean():.3f}.")
        evidence.mean_at_least(f"accuracy above that of {name}", ours - rival, 0, alpha=5e-5)


spectrum = Claim(
    paper=PAPER,
    slug="softmax-has-larger-singular-values",
    where="Low Rank Structure Analysis of Attention (our reading: a property of the function that was learned)",
    says="After the activation softmax attention has significantly larger singular values than KArAt, as a property of "
    "what was learned.",
    formula=r"\sigma_k(\text{softmax}) > \sigma_k(\text{KArAt})",
    gap="The paper's own spectra (ViT-Tiny, CIFAR-10) were not remeasured; beyond r KArAt's are 0 (rank-at-most-r).",
)


@spectrum.refutation("experiment", controls={"only W is scaled": {"compensate": False}})
def test_the_same_function_has_any_singular_values(evidence, paper_rng, scale, *, compensate=True):
    """W -> c W and W_out -> W_out / c leave every output as it is, bit by bit for c a power of two.

    So one trained network has singular values above softmax's, and its copy has them below.
    """
    from empirical.data import digits, patches
    from empirical.operators.karat import rescaled, train, weights
    from empirical.training import Models, device

    seed = paper_rng.seed("training")
    first = {
        name: np.linalg.svd(weights(train(name, seed, scale), 8), compute_uv=False)[..., 0].mean()
        for name in ("softmax", "karat")
    }
    models, tokens = train("karat", seed, scale), patches(digits("test")[0]).to(device())
    before = models(tokens)
    exponent = int(np.ceil(abs(np.log2(first["karat"] / first["softmax"])))) + 1
    for factor in (2.0**-exponent, 2.0**exponent):
        copy = rescaled(models, factor)
        if not compensate:
            kept = {key: t for key, t in models.tensors.items() if key.endswith("output.weight")}
            copy = Models(copy.skeleton, copy.tensors | kept)
        change = abs(copy(tokens) - before).max().item()
        evidence.expect("largest change of a logit", change, equals=0, error=0)
    ends = np.array([2.0**-exponent, 2.0**exponent]) * first["karat"]
    evidence.expect("least first singular value minus softmax's", ends[0] - first["softmax"], at_most=0)
    evidence.expect("largest first singular value minus softmax's", ends[1] - first["softmax"], at_least=0)
    evidence.counterexample(
        "Mean first singular value", softmax=round(first["softmax"], 2), trained=round(first["karat"], 2),
        same_function=np.round(ends, 2).tolist(),
    )  # fmt: skip


landscape = Claim(
    paper=PAPER,
    slug="spikier-landscape",
    where="Loss Landscapes",
    says="KArAt's loss landscape is significantly less smooth than that of softmax, and worse for larger models.",
    formula=r"\lambda_{\max}(\nabla^2 L_{\text{KArAt}}) > \lambda_{\max}(\nabla^2 L_{\text{softmax}})",
    gap="Largest Hessian eigenvalue at the end of training, which rescaling W changes without changing the function; "
    "the paper shows losses along principal directions of the training path.",
)


@cache
def top(variant, seed, scale, rounds=6):
    """Largest Hessian eigenvalue and training loss of each seed."""
    from empirical.operators.karat import sharpness, train

    return sharpness(train(variant, seed, scale), 1, rounds=rounds)


@landscape.check("experiment", controls={"curvature along a random direction": {"rounds": 1}})
def test_the_largest_curvatures_do_not_decide(evidence, paper_rng, scale, *, rounds=6):
    """Power iteration at the trained parameters, which have different training losses: no order of the two follows."""
    seed = paper_rng.seed("training")
    sharp = {name: top(name, seed, scale, rounds) for name in ("softmax", "karat")}
    for name, (values, _) in sharp.items():
        along = top(name, seed, scale, 1)[0]
        evidence.expect("curvature along a random direction over the largest", along / values, less_than=1)
    (plain, plain_loss), (learnt, learnt_loss) = sharp["softmax"], sharp["karat"]
    ahead = int((learnt > plain).sum())
    evidence.note(
        f"Largest eigenvalues: softmax {np.median(plain):.3g} at loss {np.median(plain_loss):.2g}, KArAt "
        f"{np.median(learnt):.3g} at loss {np.median(learnt_loss):.2g} (medians)."
    )
    evidence.inconclusive(
        needs="networks of the same training loss at the paper's size; "
        f"here KArAt is sharper in {ahead} of {len(plain)} pairs"
    )

"""L2ViT: the local concentration module and trained networks (Zheng, 2025).

What the paper says. Trained linear attention is less concentrated than softmax; a local concentration module (LCM, two
depthwise convolutions) enhances it.

Notation. The *gain* of the LCM is the difference of test accuracy with and without it, paired by seed. *Pointwise*: an
LCM with kernels of 1 x 1, which sees no neighbours.

Scope. Small networks on scikit-learn's digits for a fixed, short budget (--scale full: until they fit), with learned
positions and linear attention whose clamp is inactive, see empirical/operators/l2vit.py.
"""

import numpy as np

from reports.claim import Claim
from theory.operators.l2vit import assignment_mass, normalised_entropy

PAPER = "zheng2025l2vit"
GAP = "Digits of 8 x 8 pixels, 3 x 3 kernels on 4 x 4 tokens, two layers, 1600 images seen (full: three, 64 000)."
WITH, WITHOUT, POINTWISE = "linear + LCM", "linear", "linear + pointwise LCM"
EXCHANGED = {
    "the two exchanged": {"module": WITHOUT, "rivals": (WITH,)},
    "pointwise module": {"module": POINTWISE, "rivals": (WITH,)},
}


def networks(variants, seed, scale):
    from empirical.operators.l2vit import trained

    return [trained(variant, seed, scale) for variant in variants]


def accuracies(evidence, variants, seed, scale):
    """(seeds,) accuracy for each variant, noted as mean and standard deviation."""
    from empirical.operators.mala import accuracy

    found = [accuracy(models) for models in networks(variants, seed, scale)]
    parts = (f"{name} {one.mean():.3f} ({one.std(ddof=1):.3f})" for name, one in zip(variants, found, strict=True))
    evidence.note(f"Accuracy over {len(found[0])} seeds, mean (standard deviation): {', '.join(parts)}.")
    return found


# -- A4: the local concentration module --------------------------------------------------------------------------------

enhances = Claim(
    paper=PAPER,
    slug="lcm-enhances-linear-attention",
    where="Abstract, ablation",
    says="A network with linear attention is more accurate with a local concentration module in each block.",
    formula=r"\operatorname{acc}(\mathrm{linear} + \mathrm{LCM}) > \operatorname{acc}(\mathrm{linear})",
    gap=GAP + " On digits the module alone, without attention, is about as accurate (noted in "
    "lcm-repairs-a-deficit-of-linear-attention).",
)


@enhances.check("experiment", controls=EXCHANGED)
def test_the_module_raises_accuracy(evidence, paper_rng, scale, *, module=WITH, rivals=(WITHOUT, POINTWISE)):
    """Paired differences of test accuracy, one-sided intervals: to no module, and to one that sees no neighbours.

    The figure has all variants of this file.
    """
    seed = paper_rng.seed("training")
    better, *worse = accuracies(evidence, (module, *rivals), seed, scale)
    for rival, one in zip(rivals, worse, strict=True):
        evidence.mean_at_least(f"accuracy above that of {rival}", better - one, 0, alpha=5e-5)
    evidence.figure(*figure_of_variants(seed, scale))


def figure_of_variants(seed, scale):
    """Title, figure and caption: test accuracy of each run, by variant."""
    from matplotlib.figure import Figure

    from empirical.operators.l2vit import VARIANTS
    from empirical.operators.mala import accuracy

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for row, models in enumerate(networks(VARIANTS, seed, scale)):
        found = accuracy(models)
        axes.plot(found, row + np.linspace(-0.25, 0.25, len(found)), ".", color="tab:blue", ms=4)
        axes.plot([found.mean()] * 2, [row - 0.35, row + 0.35], color="black")
    axes.set_yticks(range(len(VARIANTS)), list(VARIANTS))
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy")
    return "Attention and the LCM on digits", figure, "A point is a seed; lines are means."


specific = Claim(
    paper=PAPER,
    slug="lcm-repairs-a-deficit-of-linear-attention",
    where="Abstract (our reading of 'to enhance linear attention')",
    says="The module makes up for what linear attention lacks: softmax attention, which concentrates by itself, gains "
    "at most half as much from it.",
    formula=r"\Delta_{\mathrm{softmax}} \le \tfrac{1}{2} \Delta_{\mathrm{linear}}",
    gap=GAP + " On ImageNet the balance may differ; the paper compares with linear attention only.",
)


@specific.refutation("experiment", controls={"a module that softmax does not get": {"rival": ("softmax", "softmax")}})
def test_softmax_gains_more_than_half_as_much(evidence, paper_rng, scale, *, rival=("softmax + LCM", "softmax")):
    """Gain of softmax minus half that of linear attention, one-sided interval; the LCM alone is noted."""
    seed = paper_rng.seed("training")
    better, worse = accuracies(evidence, (WITH, WITHOUT), seed, scale)
    theirs, without = accuracies(evidence, rival, seed, scale)
    accuracies(evidence, ("LCM alone", "neither"), seed, scale)
    evidence.mean_at_least(
        "gain of softmax minus half that of linear attention", theirs - without - (better - worse) / 2, 0, alpha=1e-4
    )
    evidence.counterexample(
        "digits", softmax=f"{(theirs - without).mean():.3f}", linear=f"{(better - worse).mean():.3f}"
    )


local = Claim(
    paper=PAPER,
    slug="lcm-concentrates-on-neighbours",
    where="Abstract ('local concentration')",
    says="With the module what a token makes of other tokens depends more on its neighbours on the grid.",
    formula=r"\frac{\sum_{j \in \mathcal{N}(i)} \lVert \partial y_i / \partial x_j \rVert}"
    r"{\sum_{j \ne i} \lVert \partial y_i / \partial x_j \rVert} \text{ grows}",
    gap=GAP + " It is the block's map of tokens that concentrates, not the attention matrix: its entropy is noted.",
)


@local.check("experiment", controls=EXCHANGED)
def test_derivatives_move_to_the_neighbours(evidence, paper_rng, scale, *, module=WITH, rivals=(WITHOUT, POINTWISE)):
    """Share of the up to eight neighbours in the derivatives of the first trained block, by automatic differentiation.

    On a 4 x 4 grid neighbours are 0.35 of the other tokens, the share of a map that does not know the grid.
    """
    from empirical.operators.l2vit import attention_weights, neighbour_share

    seed = paper_rng.seed("training")
    models = dict(zip((module, *rivals), networks((module, *rivals), seed, scale), strict=True))
    shares = {name: neighbour_share(one) for name, one in models.items()}
    for name, one in models.items():
        entropy = normalised_entropy(attention_weights(one, 32)).mean((0, 2, 3, 4))
        evidence.note(
            f"{name}: mean share {shares[name].mean():.3f}; entropy of the attention weights over ln 16, by layer: "
            f"{entropy.round(3).tolist()}."
        )
    for rival in rivals:
        gained = shares[module] - shares[rival]
        evidence.mean_at_least(f"share of the neighbours above that with {rival}", gained, 0, alpha=2.5e-5)


# -- A3, trained -------------------------------------------------------------------------------------------------------

sharper = Claim(
    paper=PAPER,
    slug="trained-softmax-is-more-concentrated",
    where="Abstract ('empirically')",
    says="In trained networks the weights of softmax attention are more concentrated than those of linear attention: "
    "the sharpest layer has the lower entropy.",
    formula=r"\min_l H_l^{\mathrm{softmax}} < \min_l H_l^{\mathrm{linear}}",
    gap=GAP + " What no training can change is the claim linear-attention-cannot-concentrate.",
)


@sharper.check(
    "experiment", controls={"weights of the identity": {"of_linear": lambda A: np.broadcast_to(np.eye(16), A.shape)}}
)
def test_the_sharpest_layers_are_compared(evidence, paper_rng, scale, *, of_linear=lambda A: A):
    """Entropies on test digits, paired by seed. Trained linear attention first has to keep the bound d on its mass."""
    from empirical.operators.l2vit import SIZES, attention_weights

    seed = paper_rng.seed("training")
    size = SIZES[scale]
    linear, softmax = (attention_weights(models, 32) for models in networks((WITHOUT, "softmax"), seed, scale))
    mass = assignment_mass(of_linear(linear[:, :, :4]))
    evidence.expect("assignment mass of linear attention", mass, at_most=size.width // size.heads * (1 + 1e-6))
    entropies = [normalised_entropy(A).mean((2, 3, 4)) for A in (linear, softmax)]
    for name, layers in zip(("linear", "softmax"), entropies, strict=True):
        evidence.note(f"{name}: entropy over ln 16, by layer: {layers.mean(0).round(3).tolist()}.")
    lower = entropies[0].min(1) - entropies[1].min(1)
    evidence.mean_at_least("entropy by which softmax's sharpest layer is lower", lower, 0, alpha=5e-5)

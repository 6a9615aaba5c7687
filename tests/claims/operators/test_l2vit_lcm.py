"""L2ViT: the local concentration module, trained networks, and the paper's tables (Zheng, 2025).

What the paper says. Trained linear attention is less concentrated than softmax; a local concentration module (LCM, two
depthwise convolutions) enhances it. L2ViT-T, S and B have 29, 50 and 89 M parameters, 4.7, 9.0 and 15.9 GFLOPs and
reach 83.1, 84.1 and 84.4 % on ImageNet-1K, 87.0 % with more data; they serve detection and segmentation.

Notation. The *gain* of the LCM is the difference of test accuracy with and without it, paired by seed.

Scope. Small networks on scikit-learn's digits for a fixed, short budget (--scale full: until they fit), with learned
positions and linear attention whose clamp is inactive, see empirical/operators/l2vit.py. Counts are integers, from the
released configuration read at commit 52f008c.
"""

from fractions import Fraction

import numpy as np

from reports.claim import Claim
from theory.operators.l2vit import BACKBONES, assignment_mass, normalised_entropy

PAPER = "zheng2025l2vit"
GAP = "Digits of 8 x 8 pixels, 3 x 3 kernels on 4 x 4 tokens, two layers, 2400 images seen (full: three, 64 000)."
WITH, WITHOUT = "linear + LCM", "linear"


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
    gap=GAP + " The module adds parameters; no variant of equal size without convolution was trained.",
)


@enhances.check("experiment", controls={"the two exchanged": {"variants": (WITHOUT, WITH)}})
def test_the_module_raises_accuracy(evidence, paper_rng, scale, *, variants=(WITH, WITHOUT)):
    """Paired difference of test accuracy, one-sided interval. The figure has all variants of this file."""
    seed = paper_rng.seed("training")
    better, worse = accuracies(evidence, variants, seed, scale)
    evidence.mean_at_least("accuracy gained", better - worse, 0, alpha=1e-4)
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


@local.check("experiment", controls={"the two exchanged": {"variants": (WITHOUT, WITH)}})
def test_derivatives_move_to_the_neighbours(evidence, paper_rng, scale, *, variants=(WITH, WITHOUT)):
    """Share of the up to eight neighbours in the derivatives of the first trained block, by automatic differentiation.

    On a 4 x 4 grid neighbours are 0.35 of the other tokens, the share of a map that does not know the grid.
    """
    from empirical.operators.l2vit import attention_weights, neighbour_share

    seed = paper_rng.seed("training")
    models = networks(variants, seed, scale)
    better, worse = (neighbour_share(one) for one in models)
    evidence.note(f"Mean shares {better.mean():.3f} and {worse.mean():.3f} ({' and '.join(variants)}).")
    for name, one in zip(variants, models, strict=True):
        entropy = normalised_entropy(attention_weights(one, 32)).mean((0, 2, 3, 4))
        evidence.note(f"{name}: entropy of the attention weights over ln 16, by layer: {entropy.round(3).tolist()}.")
    evidence.mean_at_least("share gained by the neighbours", better - worse, 0, alpha=5e-5)


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


# -- the tables --------------------------------------------------------------------------------------------------------

TABLE = {"L2ViT-T": (29, 4.7), "L2ViT-S": (50, 9.0), "L2ViT-B": (89, 15.9)}

sizes = Claim(
    paper=PAPER,
    slug="sizes-and-linear-cost",
    where="README, table of backbones",
    says="L2ViT-T, S and B have 29, 50 and 89 M parameters and 4.7, 9.0 and 15.9 GFLOPs at 224 x 224 pixels, and "
    "their cost is linear in the number of tokens.",
    formula=r"C(N) = c_1 N + c_0",
    gap="Counted from the released configuration by our formula. A multiply-add is one operation, as in the paper.",
)
BROKEN = {"global attention with an N x N matrix": {"build": lambda m: type(m)(m.dims, m.depths, linear=False)}}


@sizes.check("exact", controls=BROKEN)
def test_counts_meet_the_table_and_grow_linearly(evidence, *, build=lambda model: model):
    """Parameters within half a million and multiply-adds within 0.1 G of the table; equal growth per token from 224 to
    448 and from 448 to 896 pixels."""
    for name, (millions, giga) in TABLE.items():
        model = build(BACKBONES[name])
        counts = [model.multiplications(224 * times) for times in (1, 2, 4)]  # 1, 4 and 16 times the tokens
        evidence.expect(
            "parameters", Fraction(model.parameters(), 10**6), equals=millions, error=Fraction(1, 2), unit="M"
        )
        evidence.note(f"{name}: {model.parameters() / 1e6:.2f} M parameters, {counts[0] / 1e9:.2f} G multiply-adds.")
        evidence.expect("multiply-adds", counts[0] / 1e9, equals=giga, error=0.1, unit="G")
        growth = Fraction(counts[2] - counts[1], 12) - Fraction(counts[1] - counts[0], 3)
        evidence.expect("change of the cost per token", growth, equals=0, error=0)


imagenet = Claim(
    paper=PAPER,
    slug="imagenet-accuracy",
    where="Abstract, README",
    says="L2ViT-T, S and B reach 83.1, 84.1 and 84.4 % top-1 on ImageNet-1K; with ImageNet-22k, B reaches 86.0 % and "
    "at 384 x 384 pixels 87.0 %.",
    formula=r"83.1 < 84.1 < 84.4 < 86.0 < 87.0",
    gap="Only the order of the printed numbers is checked. The README's links lead to ConvNeXt's checkpoints: loading "
    "them would test another model.",
)


@imagenet.check("exact", controls={"rows exchanged": {"row": (84.1, 83.1, 84.4, 86.0, 87.0)}})
def test_the_printed_accuracies_rise_with_size_data_and_resolution(evidence, *, row=(83.1, 84.1, 84.4, 86.0, 87.0)):
    """Differences of neighbouring numbers, and the step from S to B over its binomial standard error, 50 000 images."""
    evidence.expect("least step", np.diff(row).min(), at_least=0, unit="points")
    error = sum(p / 100 * (1 - p / 100) / 50_000 for p in row[1:3]) ** 0.5
    evidence.note(f"S to B is {(row[2] - row[1]) / 100 / error:.1f} unpaired standard errors of the validation set.")
    evidence.inconclusive(needs="the authors' checkpoints, which are not published, or 300 epochs on ImageNet")


backbone = Claim(
    paper=PAPER,
    slug="backbone-for-detection-and-segmentation",
    where="Abstract",
    says="L2ViT compares favourably as a backbone for detection and segmentation.",
    formula=r"C(800 \times 1280) \approx \frac{800 \cdot 1280}{224^2} C(224 \times 224)",
    gap="Accuracy on COCO and ADE20K is not checked; only that cost at such resolutions is affordable.",
)


@backbone.check("exact", controls=BROKEN)
def test_at_a_detector_s_resolution_the_cost_stays_proportional(evidence, *, build=lambda model: model):
    """Multiply-adds at 896 x 896 pixels over those at 224 x 224, which has a sixteenth of the tokens: at most 16."""
    for model in map(build, BACKBONES.values()):
        evidence.expect("cost ratio", Fraction(model.multiplications(896), model.multiplications(224)), at_most=16)
    evidence.inconclusive(needs="detectors and segmenters trained on COCO and ADE20K with L2ViT and its rivals")

"""Sigmoid attention in small vision transformers (Ramapuram et al., 2024, section 5).

What the paper says. With its offset b = -ln n, and properly normalised, sigmoid attention matches softmax in vision as
in language and speech; earlier attempts, with sigmoid or ReLU and without such care, did not (abstract).

Notation. n = 16 patches of 2 x 2 pixels; *plain* is sigmoid attention with b = 0. Losses are nats an image on test
digits, paired by seed. What attention is worth here is the distance from no attention to softmax.

Scope. Two layers of width 16, no QK-norm, 600 steps, 32 seeds; with --scale full three layers of width 32 for 3000
steps. Text is in test_sigmoid_attention_trained.py. The paper has ViT-B and L on ImageNet.
"""

from functools import cache

from reports.claim import Claim

PAPER = "ramapuram2024theory"


@cache
def losses(name, scale, seed):
    """(seeds,) loss of a variant on the test digits."""
    from empirical.operators import sigmoid_vision

    return sigmoid_vision.losses(sigmoid_vision.trained(name, scale, seed))


parity = Claim(
    paper=PAPER,
    slug="parity-in-vision",
    where="Abstract, Section 5",
    says="In a vision transformer sigmoid attention with b = -ln n matches softmax: up to half of what attention is "
    "worth there.",
    formula=r"\bigl| L(b = -\ln n) - L(\text{softmax}) \bigr| \le"
    r" \tfrac{1}{2} \bigl( L(\text{no attention}) - L(\text{softmax}) \bigr)",
    gap="Digits of 8 x 8 pixels, not ImageNet, and classification alone; speech is not covered by any claim here.",
)


@parity.check("experiment", controls={"plain": {"variant": "plain"}, "no attention": {"variant": "no attention"}})
def test_with_its_offset_sigmoid_attention_equals_softmax_on_digits(evidence, paper_rng, scale, *, variant="b = -ln n"):
    """Nearer to softmax than to no attention on the mean, then equivalence of paired losses."""
    seed = paper_rng.seed("vision")
    soft, none, found = (losses(name, scale, seed) for name in ("softmax", "no attention", variant))
    half = (none - soft).mean() / 2
    evidence.expect("mean loss", found.mean(), less_than=("half-way to no attention", soft.mean() + half), unit="nats")
    evidence.mean_within("loss above softmax's", found - soft, -half, half, alpha=2e-5)


offset = Claim(
    paper=PAPER,
    slug="offset-in-vision",
    where="Section 5.1",
    says="In a vision transformer sigmoid attention learns more with b = -ln n than with b = 0, and more than no "
    "attention.",
    formula=r"L(b = -\ln n) < L(b = 0), \quad L(b = -\ln n) < L(\text{no attention})",
    gap="With 16 tokens b = 0 starts 8.5 times too large, not a thousand times: a mild form of the obstacle.",
)


@offset.check("experiment", controls={"plain": {"variant": "plain"}, "no attention": {"variant": "no attention"}})
def test_the_offset_makes_attention_useful_on_digits(evidence, paper_rng, scale, *, variant="b = -ln n"):
    """Below plain's mean on the mean, then paired losses, one-sided t intervals."""
    seed = paper_rng.seed("vision")
    plain, none, found = (losses(name, scale, seed) for name in ("plain", "no attention", variant))
    evidence.figure(
        "Test loss of each variant on digits", figure_of(scale, seed), "Points are seeds, bars their means."
    )
    evidence.expect("mean loss", found.mean(), less_than=("plain's", plain.mean()), unit="nats")
    evidence.mean_at_least("loss of plain above its own", plain - found, 0, alpha=2e-5)
    evidence.mean_at_least("loss without attention above its own", none - found, 0, alpha=2e-5)


def figure_of(scale, seed):
    from matplotlib.figure import Figure

    from empirical.operators.sigmoid_vision import VARIANTS

    figure = Figure(figsize=(6, 2.8), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(VARIANTS):
        found = losses(name, scale, seed)
        axes.plot(found, [row] * len(found), "o", color="0.6", markersize=4)
        axes.plot([found.mean()], [row], "|", color="C3", markersize=18, markeredgewidth=2)
    axes.set(xlabel="test loss, nats an image", yticks=range(len(VARIANTS)), yticklabels=list(VARIANTS))
    axes.invert_yaxis()
    return figure


relu = Claim(
    paper=PAPER,
    slug="relu-falls-short",
    where="Abstract: earlier attempts, of which ReLU attention was one",
    says="Attention with ReLU in place of softmax, with or without division by n, does not reach softmax.",
    formula=r"L(\mathrm{ReLU}) > L(\text{softmax})",
    gap="Early training on digits, where short sums of few weights are no obstacle.",
)


@relu.check("experiment", controls={"no attention": {"variants": ("no attention",)}})
def test_relu_attention_learns_and_is_compared(evidence, paper_rng, scale, *, variants=("ReLU", "ReLU / n")):
    """Both learn to attend; how far they are from softmax is noted."""
    seed = paper_rng.seed("vision")
    soft, none = (losses(name, scale, seed) for name in ("softmax", "no attention"))
    for name in variants:
        found = losses(name, scale, seed)
        evidence.expect(f"mean loss, {name}", found.mean(), less_than=("no attention's", none.mean()), unit="nats")
        gap = found - soft
        error = 2 * gap.std(ddof=1) / len(gap) ** 0.5
        evidence.note(f"{name}: {gap.mean():+.3f} nats from softmax (two standard errors {error:.3f}).")
    evidence.inconclusive(needs="ImageNet and long sequences, where the earlier attempts were made")

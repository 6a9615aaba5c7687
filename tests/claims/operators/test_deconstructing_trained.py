"""Attention taken apart: what trained models do (Xue, Moosavi, Aletras, 2025).

What the paper says. Of uniform models some variants come near standard attention, Non-approximate collapses; as
hybrids, with standard attention in every other layer, all work, also those that fail alone: a cooperative effect.
Skipping a hybrid's simple layers destroys it, and a quarter of standard layers is enough (Section 6). What logits of
Non-approximate do is in test_deconstructing_logits.py.

Notation. Hybrids have their simple layers at odd places, counted from 1. Losses are in nats per byte of held-out Python
source. *Recall* gives three pairs of key and value, then asks for each key's value: it takes a layer that looks at the
previous token and one that matches contents. Who knows the values but not whose they are answers 49.1 % correctly.

Scope. Two layers (once six) of width 24, three seeds, 300 steps; with --scale full six layers of width 192 and 256
bytes, 1000 steps. Of the paper's 500 million parameters, 15 billion tokens and benchmarks nothing is shown.
"""

import numpy as np

from reports.claim import Claim
from theory.operators.deconstructing import SIMPLE, unbound_accuracy

PAPER = "xue2025deconstructing"


def text_loss(kinds, size, seed, skip=()):
    """(seeds,): mean loss on held-out text of models with layers of these kinds."""
    from empirical.operators.deconstructing import held_out, language_models, losses

    return losses(language_models(kinds, size, seed), held_out(size, seed), skip).mean(axis=(1, 2))


def recall(kinds, seed, **recipe):
    """(seeds,): accuracy of models of recall."""
    from empirical.operators.deconstructing import recall_accuracy, recall_models

    return recall_accuracy(recall_models(kinds, seed, **recipe), seed)


def points(groups, ylabel, lines):
    """A figure: the seeds of each group of models as points above its name, and named horizontal lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for i, values in enumerate(groups.values()):
        axes.plot([i] * len(values), values, "o", color="tab:blue", alpha=0.7)
    for (name, level), style in zip(lines.items(), ("--", ":"), strict=False):
        axes.axhline(level, color="tab:gray", ls=style, label=name)
    axes.set_xticks(range(len(groups)), list(groups), rotation=30, ha="right", fontsize="small")
    axes.set_ylabel(ylabel)
    if lines:
        axes.legend(frameon=False, fontsize="small")
    return figure


# -- Recall -----------------------------------------------------------------------------------------------------------

cooperation = Claim(
    paper=PAPER,
    slug="cooperative-effect",
    where="Abstract, Table 1",
    says="Variants that fail alone work when they are interleaved with standard attention, better than either kind of "
    "layer would by itself: a cooperative effect.",
    formula=r"\mathrm{acc}(v + \mathrm{std}) > \max\{\mathrm{acc}(v + v), \mathrm{acc}(\mathrm{MLP} + \mathrm{std})\}",
    gap="On recall, 300 steps, for FixedSeqQK; RndEmbQK and Non-approximate, for which the paper stresses it, at full "
    "scale only, 1200 steps. StaticEmbQK cannot show it in two layers: its first layer is standard attention.",
)


@cooperation.check("experiment", controls={"MLP, which cannot cooperate": {"kinds": ("MLP",)}})
def test_a_hybrid_recalls_what_neither_kind_of_layer_recalls_alone(
    evidence, paper_rng, scale, *, kinds=("FixedSeqQK",)
):
    """The best start passes half-way from the best rival's accuracy to 1; rivals: two simple layers, or an MLP.

    Some starts stay on the plateau that the rivals never leave; they are counted in the notes.
    """
    seed = paper_rng.seed("training")
    recipe = {"small": {}, "full": {"steps": 1200, "batch": 64}}[scale]
    more = ("RndEmbQK", "Non-approximate") if scale == "full" and kinds != ("MLP",) else ()
    lone = recall(("MLP", "standard"), seed, **recipe)
    groups = {"MLP, standard": lone}
    for kind in (*kinds, *more):
        alone, both = recall((kind, kind), seed, **recipe), recall((kind, "standard"), seed, **recipe)
        groups |= {f"{kind}, twice": alone, f"{kind}, standard": both}
        rival = max(alone.max(), lone.max())
        border = (1 + rival) / 2
        evidence.expect("accuracy of the hybrid", both.max(), at_least=border)
        evidence.note(
            f"{kind}: {(both >= border).sum()} of {len(both)} starts of the hybrid pass; best accuracies: hybrid "
            f"{both.max():.3f}, alone {alone.max():.3f}, one standard layer {lone.max():.3f}."
        )
    lines = {"values known, keys not": float(unbound_accuracy(3, 6)), "guess": 1 / 6}
    evidence.figure(
        "Accuracy of recall by the two layers' kinds", points(groups, "accuracy", lines), "Points are seeds."
    )


fixed_recall = Claim(
    paper=PAPER,
    slug="fixed-maps-lose-recall",
    where="Table 1, LAMBADA",
    says="Where the answer stands in the context, uniform Approximate keeps most of standard attention's accuracy, and "
    "maps that ignore the sequence lose nearly all of it.",
    formula=r"18.5 / 22.9 = 0.81, \quad 1.4 / 22.9 = 0.06",
    gap="Recall in place of LAMBADA, FixedSeqQK in place of both variants with fixed maps.",
)


@fixed_recall.check(
    "experiment",
    controls={
        "fixed maps for Approximate": {"relaxed": "FixedSeqQK"},
        "standard for fixed maps": {"ignoring": "standard"},
    },
)
def test_the_polynomial_recalls_and_fixed_maps_do_not(
    evidence, paper_rng, *, relaxed="Approximate", ignoring="FixedSeqQK"
):
    """Two layers each; the border is half-way between full accuracy and knowing the values without their keys."""
    seed = paper_rng.seed("training")
    border = float(1 + unbound_accuracy(3, 6)) / 2
    evidence.expect("worst of the relaxed models", recall((relaxed, relaxed), seed).min(), at_least=border)
    evidence.expect("best of the fixed models", recall((ignoring, ignoring), seed).max(), at_most=border)


# -- Text -------------------------------------------------------------------------------------------------------------

collapses = Claim(
    paper=PAPER,
    slug="non-approximate-collapses-alone",
    where="Abstract, Table 1 (read as a property of the operator)",
    says="A language model whose layers are all Non-approximate collapses: it is worse than one that mixes no tokens.",
    formula=r"9 \times 10^4 > 993.5",
    gap="A small counterexample does not contradict Table 1 at 500 million parameters, where logits pass 1000; that it "
    "trains with QK norm (Appendix A) says the same: instability, not what the operator can express.",
)


@collapses.refutation("experiment", controls={"MLP in its place": {"kind": "MLP"}})
def test_small_uniform_models_beat_those_without_mixing(evidence, paper_rng, scale, *, kind="Non-approximate"):
    """Same size, data and initial seeds: its worst seed has a lower loss than the best MLP."""
    from empirical.operators.deconstructing import SIZES

    seed = paper_rng.seed("training")
    size = SIZES[scale]
    loss, without = (text_loss((one,) * size.layers, size, seed) for one in (kind, "MLP"))
    evidence.expect("worst seed", loss.max(), less_than=("best without mixing", without.min()), unit="nats")
    evidence.counterexample("Losses", uniform=loss.round(3).tolist(), MLP=without.round(3).tolist())


near_standard = Claim(
    paper=PAPER,
    slug="hybrids-match-standard",
    where="Abstract, Section 5",
    says="With standard attention in every other layer, models whose other layers do not mix, or are Non-approximate, "
    "come nearer to the standard model's loss than to that of their uniform model.",
    formula=r"L(v + \mathrm{std}) < \tfrac{1}{2} (L(v + v) + L(\mathrm{std} + \mathrm{std}))",
    gap="Means over three seeds. With two layers the variants with fixed maps match it alone: positions are enough.",
)


@near_standard.check("experiment", controls={"uniform models in the hybrids' place": {"mixed": lambda k, n: (k,) * n}})
def test_hybrids_pass_half_way_to_the_standard_model(evidence, paper_rng, scale, *, mixed=None):
    """MLP and Non-approximate; all hybrids, six at full scale, also pass half-way from MLP to the standard model."""
    from empirical.operators.deconstructing import SIZES, hybrid

    seed = paper_rng.seed("training")
    size, mixed = SIZES[scale], mixed or hybrid
    standard = text_loss(("standard",) * size.layers, size, seed)
    groups = {"standard": standard}
    for kind in SIMPLE if scale == "full" else ("MLP", "Non-approximate"):
        uniform, both = (text_loss(kinds, size, seed) for kinds in ((kind,) * size.layers, mixed(kind, size.layers)))
        groups |= {kind: uniform, f"{kind}, standard": both}
        if kind in ("MLP", "Non-approximate"):
            border = (standard.mean() + uniform.mean()) / 2
            evidence.expect("mean loss above half-way", both.mean() - border, at_most=0, unit="nats")
        border = (standard.mean() + groups["MLP"].mean()) / 2
        evidence.expect("mean loss above half-way from the MLP", both.mean() - border, at_most=0, unit="nats")
    caption = "Points are seeds; a hybrid has the named kind at odd places."
    evidence.figure("Held-out loss by kind of layer", points(groups, "nats per byte", {}), caption)


skipping = Claim(
    paper=PAPER,
    slug="skipping-shows-contribution",
    where="Table 1, rows with skipped layers",
    says="That a trained hybrid breaks down when its simple layers are skipped shows what they contribute beside "
    "standard ones.",
    formula=r"L^{\mathrm{skip}}(v + \mathrm{std}) \gg L(v + \mathrm{std})",
    gap="The paper has no such ablation of its standard model. Layers are left out with their feed-forward part.",
)


@skipping.refutation("experiment", controls={"nothing skipped in the standard model": {"every": None}})
def test_the_standard_model_breaks_down_just_as_much(evidence, paper_rng, scale, *, every=2):
    """The same odd layers skipped in a model of standard layers only: more than half of the hybrids' mean damage."""
    from empirical.operators.deconstructing import SIZES, hybrid

    seed = paper_rng.seed("training")
    size = SIZES[scale]

    def damage(kinds, skip):
        return text_loss(kinds, size, seed, skip) - text_loss(kinds, size, seed)

    odd = tuple(range(0, size.layers, 2))
    hybrids = {kind: damage(hybrid(kind, size.layers), odd) for kind in ("MLP", "Non-approximate")}
    standard = damage(("standard",) * size.layers, odd if every else ())
    half = np.mean(list(hybrids.values())) / 2
    evidence.expect("damage to the standard model", standard.min(), at_least=half, unit="nats")
    damaged = {kind: values.round(2).tolist() for kind, values in hybrids.items()}
    evidence.counterexample("Loss added by skipping", standard=standard.round(2).tolist(), **damaged)


few = Claim(
    paper=PAPER,
    slug="few-standard-layers",
    where="Section 6, Figure 3, Table 11",
    says="A standard layer at the end alone leaves Non-approximate far behind and RndEmbQK usable; a standard layer at "
    "every third or fourth place is enough: with it Non-approximate is nearer to its hybrid of every other layer.",
    formula=r"L(\mathrm{last}) > L(25\,\%) \approx L(50\,\%)",
    gap="Six layers, standard in the sixth against the third and sixth; the paper has 24 and every fourth. LAMBADA, "
    "which RndEmbQK loses with the last layer standard, is not measured.",
)


@few.check("experiment", controls={"two standard layers in the last one's place": {"last": (2, 5)}})
def test_one_standard_layer_at_the_end_is_worse_than_two(evidence, paper_rng, scale, *, last=(5,)):
    """Worst seeds against the best one of Non-approximate with the last layer standard; then means."""
    from dataclasses import replace

    from empirical.operators.deconstructing import SIZES

    seed = paper_rng.seed("training")
    size = replace(SIZES[scale], layers=6)

    def loss(kind, places):
        return text_loss(tuple("standard" if i in places else kind for i in range(size.layers)), size, seed)

    lone, two, every_other = (loss("Non-approximate", places) for places in (last, (2, 5), (1, 3, 5)))
    best = ("best seed of Non-approximate, sixth alone", lone.min())
    evidence.expect("worst seed of Non-approximate, third and sixth standard", two.max(), less_than=best, unit="nats")
    fixed = loss("RndEmbQK", (5,))
    evidence.expect("worst seed of RndEmbQK, sixth alone", fixed.max(), less_than=best, unit="nats")
    half_way = ("half-way from one in six to three in six", (lone.mean() + every_other.mean()) / 2)
    evidence.expect("mean of Non-approximate, two in six", two.mean(), less_than=half_way, unit="nats")
    evidence.note(
        f"Mean losses of Non-approximate with one, two and three of six layers standard: {lone.mean():.3f}, "
        f"{two.mean():.3f}, {every_other.mean():.3f} nats; of RndEmbQK with one, {fixed.mean():.3f}."
    )

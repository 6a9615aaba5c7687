"""Kolmogorov-Arnold attention: its tables of accuracy, read as they stand (Maity et al., 2025).

What the paper says. On its project page: top-1 accuracy of ViT-T, S and B on CIFAR-10, CIFAR-100 and ImageNet-1K, and
transfer to other data sets and to detection, with softmax, with one operator per block (GnB) and with operators shared
by all blocks (GnU).

Notation. n in GnB is the grid size G. Printed numbers are constants here; all else is computed.

Scope. Arithmetic: whether the printed numbers agree with each other and carry the words that the paper puts on them.
Nothing was retrained at this size. test_karat_counts.py has parameters, operations and memory.
"""

import numpy as np

from reports.claim import Claim
from theory.operators.karat import binomial_z, percent_range

PAPER = "maity2025karat"
DATA = ("CIFAR-10", "CIFAR-100", "ImageNet-1K")
IMAGES = (10_000, 10_000, 50_000)
"""Test images of the three."""
TOP_1 = {  # softmax, GnB, GnU on the three
    "Tiny": ((72.76, 43.53, 59.15), (76.69, 46.29, 59.11), (75.56, 46.75, 57.97)),
    "Small": ((81.08, 53.47, 70.50), (79.78, 54.11, 67.77), (79.52, 53.86, 67.76)),
    "Base": ((83.45, 58.07, 72.90), (81.81, 55.92, 68.03), (80.75, 57.36, 68.83)),
}
CHANGES = {  # printed relative change in percent: GnB, GnU
    "Tiny": ((5.40, 6.34, 0.07), (3.85, 7.40, 1.99)),
    "Small": ((1.60, 1.20, 3.87), (1.92, 0.73, 3.89)),
    "Base": ((1.97, 3.70, 6.68), (3.24, 1.22, 5.58)),
}
TRANSFER = {  # SVHN, Flowers 102, STL-10: softmax, GnB, GnU
    "Tiny": ((96.69, 84.21, 93.20), (96.37, 83.67, 93.09), (96.39, 83.70, 92.93)),
    "Small": ((97.48, 91.46, 96.09), (97.04, 89.67, 95.26), (97.11, 90.08, 95.45)),
    "Base": ((97.74, 92.24, 97.26), (96.83, 89.66, 95.30), (97.21, 89.43, 95.78)),
}
BOX_AP = {"pre-trained": (32.34, 22.48, 26.68), "random": (15.28, 10.32, 10.99)}


consistent = Claim(
    paper=PAPER,
    slug="accuracy-table",
    where="Image Recognition (table)",
    says="Top-1 accuracy of KArAt changes, relative to softmax, by the printed percentages; gains are those of "
    "ViT-Tiny and ViT-Small on CIFAR sets.",
    formula=r"\lvert a' / a - 1 \rvert",
    gap="The table agrees with itself; the accuracies were not reproduced.",
)


@consistent.check(
    "exact",
    controls={
        "differences in points": {"change": lambda a, b: (abs(b - a), abs(b - a))},
        "relative to the new accuracy": {"change": lambda a, b: percent_range(b, a)},
    },
)
def test_all_eighteen_percentages_follow_from_the_accuracies(evidence, *, change=percent_range):
    """Accuracies and percentages are rounded to two decimals: their ranges must meet."""
    for name, (plain, *variants) in TOP_1.items():
        for variant, printed in zip(variants, CHANGES[name], strict=True):
            for a, b, percent in zip(plain, variant, printed, strict=True):
                low, high = change(a, b)
                evidence.expect("printed percent beyond its range", max(low - percent, percent - high), at_most=0.005)


@consistent.check(
    "exact",
    scope="where the gains are",
    controls={"blockwise and softmax exchanged": {"table": {k: (b, a, u) for k, (a, b, u) in TOP_1.items()}}},
)
def test_the_gain_falls_with_the_size_of_the_model(evidence, *, table=TOP_1):
    """The best variant's gain is larger for Tiny than for Small than for Base, on each data set; 3 of 9 are gains."""
    gains = np.array([np.max(variants, axis=0) - plain for plain, *variants in table.values()])
    evidence.figure(
        "Top-1 accuracy of the better KArAt minus softmax, as printed",
        figure_of(gains),
        "Points; the bars are the paper's own numbers.",
    )
    evidence.expect("decrease of the gain from size to size, points", -np.diff(gains, axis=0), at_least=0)
    evidence.expect("cells with a gain, of 9", int((gains > 0).sum()), equals=3, error=0)


def figure_of(gains):
    """Bars by data set and model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for i, (name, row) in enumerate(zip(TOP_1, gains, strict=True)):
        axes.bar(np.arange(3) + 0.27 * (i - 1), row, 0.25, label=f"ViT-{name}", hatch=("", "//", "..")[i])
    axes.axhline(0, color="black", lw=0.8)
    axes.set_xticks(range(3), DATA)
    axes.set_ylabel("points")
    axes.legend(frameon=False)
    return figure


comparable = Claim(
    paper=PAPER,
    slug="outperforms-or-comparable",
    where="Abstract of version 1",
    says="Fourier-KArAt and its variants either outperform their ViT counterparts or show comparable performance on "
    "CIFAR-10, CIFAR-100 and ImageNet-1K.",
    formula=r"\text{Top-1}(\text{KArAt}) \gtrsim \text{Top-1}(\text{softmax})",
    gap="Read off the printed accuracies with binomial errors of the test sets; how training seeds spread is unknown.",
    repair="In some cases (the abstract of version 2): the better variant is ahead beyond the error of the test set "
    "for ViT-Tiny on both CIFAR sets.",
)


def critical():
    """|z| that one of 18 comparisons without any difference exceeds once in 1000 tables (Bonferroni, two-sided)."""
    from scipy.stats import norm

    return float(norm.isf(1e-3 / 2 / 18))


def scores_of(best):
    """(3, 3) standard score of `best` variant against softmax: models by data sets."""
    return np.array(
        [
            [binomial_z(a, best(b, u), n) for a, b, u, n in zip(plain, blockwise, universal, IMAGES, strict=True)]
            for plain, blockwise, universal in TOP_1.values()
        ]
    )


@comparable.refutation(
    "exact", controls={"ViT-Tiny in place of ViT-Base": {"score": lambda best: scores_of(best)[::-1]}}
)
def test_the_better_variant_is_far_behind_on_imagenet(evidence, *, score=scores_of):
    """Two variants of each model, the better one counts: Small loses 2.7 points and Base 4.1 on ImageNet-1K."""
    z = score(max)
    evidence.expect("largest score of Small and Base on ImageNet-1K", z[1:, 2].max(), at_most=-critical())
    evidence.counterexample("ViT-Base, ImageNet-1K, Top-1", softmax=72.90, KArAt=68.83, score=round(z[2, 2], 1))


@comparable.check("exact", controls={"ViT-Base in place of ViT-Tiny": {"score": lambda best: scores_of(best)[::-1]}})
def test_the_better_variant_is_ahead_for_the_smallest_model(evidence, *, score=scores_of):
    """ViT-Tiny on CIFAR-10 (+3.9 points) and CIFAR-100 (+3.2)."""
    evidence.expect("smaller of the two scores", score(max)[0, :2].min(), at_least=critical())


modes = Claim(
    paper=PAPER,
    slug="blockwise-over-universal",
    where="Key Takeaways",
    says="Blockwise operators are more accurate than shared ones in image classification.",
    formula=r"\text{Top-1}(G_n B) > \text{Top-1}(G_n U)",
    gap="One run a cell, in which the gap between the modes may be one of seeds.",
)


def undecided(cells):
    """p-value of the exact two-sided sign test that both of each pair are ahead equally often."""
    from scipy.stats import binomtest

    return float(binomtest(sum(a > b for a, b in cells), len(cells)).pvalue)


@modes.check("exact", controls={"softmax in place of blockwise": {"first": 0}})
def test_the_tables_do_not_decide_between_the_modes(evidence, *, first=1):
    """Blockwise against shared in nine cells, and in nine after transfer: neither count is unlikely for a fair coin."""
    for name, table in (("image recognition", TOP_1), ("transfer", TRANSFER)):
        cells = [(row[first][i], row[2][i]) for row in table.values() for i in range(3)]
        evidence.note(f"Table of {name}: ahead in {sum(a > b for a, b in cells)} of {len(cells)} cells.")
        evidence.expect(f"p-value of the sign test, {name}", undecided(cells), at_least=0.05)
    evidence.inconclusive(needs="several seeds for each cell of the tables")


transfer = Claim(
    paper=PAPER,
    slug="transfers-well",
    where="Transfer Learning; Object Detection (Key Takeaways)",
    says="KArAt transfers well in fine-tuning, and from random initialisation its gap in detection is small.",
    formula=r"\text{AP}(\text{KArAt}) \approx \text{AP}(\text{softmax})",
    gap="The words have no number; SVHN, Flowers 102, STL-10 and COCO were not run.",
)


@transfer.check("exact", controls={"table of image recognition": {"table": TOP_1}})
def test_the_tables_put_softmax_ahead_everywhere(evidence, *, table=TRANSFER):
    """All 18 fine-tuned accuracies and all four box APs lie below softmax; how much is `well` is not said."""
    losses = np.array([np.subtract(plain, one) for plain, *both in table.values() for one in both])
    evidence.expect("least loss of accuracy, points", losses.min(), at_least=0, unit="points")
    shares = {start: 1 - max(rest) / plain for start, (plain, *rest) in BOX_AP.items()}
    evidence.note(
        f"Losses of accuracy are {losses.min():.2f} to {losses.max():.2f} points; box AP of the better variant falls "
        f"by {shares['pre-trained']:.0%} when pre-trained and by {shares['random']:.0%} from random initialisation."
    )
    evidence.inconclusive(needs="fine-tuning on these data sets, and a number for `well` and `small`")

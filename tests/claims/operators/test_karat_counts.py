"""Kolmogorov-Arnold attention: printed parameters, operations and memory, recomputed (Maity et al., 2025).

What the paper says. On its project page: parameters, operations of the activation and GPU memory of ViT-T, S and B with
softmax, with one operator per block (GnB) and with operators shared by all blocks (GnU).

Notation. n in GnB is the grid size G; r = 12, N = 197. Printed numbers are constants here; all else is computed.

Scope. Arithmetic: whether the printed numbers follow from the architecture and carry the words that the paper puts on
them. test_karat_cost.py measures memory and time of our own operator.
"""

import numpy as np

from reports.claim import Claim
from theory.operators.karat import (
    VITS,
    activation_operations,
    extra_parameters,
    softmax_operations,
    unit_parameters,
)

PAPER = "maity2025karat"
MILLIONS = {"Tiny": (5.53, 6.29, 5.59), "Small": (22.05, 23.58, 22.18), "Base": (85.81, 87.51, 85.95)}
GFLOPS = {"Tiny": (0.005, 0.168), "Small": (0.008, 0.335), "Base": (0.016, 0.268)}
MEMORY = {"Tiny": (2.94, 7.48, 7.29), "Small": (4.15, 11.73, 11.21), "Base": (7.44, 17.36, 16.97)}


# -- Parameters and operations ----------------------------------------------------------------------------------------

parameters = Claim(
    paper=PAPER,
    slug="parameters-added",
    where="Compute Requirements (table)",
    says="With r = 12 the operators add 0.76 M, 1.53 M and 1.70 M parameters to ViT-T, S and B blockwise, and a "
    "twelfth of that when shared by all blocks.",
    formula=r"\Delta = h\,L\,N\,r\,(2G + 3)",
    gap="The formula was found by matching the table; two of the three in 2G + 3 are guessed to be KAN's scales. "
    "ViT-Small's total fits a head of 1000 classes, the others fit 10. 0.76 M (0.766 M) is from rounded totals.",
)


@parameters.check(
    "exact",
    controls={
        "coefficients and W only, 2 G + 1": {"unit": lambda grid: 2 * grid + 1},
        "2 G + 2": {"unit": lambda grid: 2 * grid + 2},
        "2 G + 4": {"unit": lambda grid: 2 * grid + 4},
        "r = 24": {"rank": 24},
    },
)
def test_the_formula_gives_all_nine_totals(evidence, *, unit=unit_parameters, rank=12):
    """Parameters of the plain model from its architecture, plus h L N r (2 G + 3), round to each printed total."""
    for vit in VITS:
        plain, blockwise, universal = MILLIONS[vit.name]
        evidence.expect("plain model, millions", vit.parameters() / 1e6, within=(plain - 0.005, plain + 0.005))
        for printed, shared in ((blockwise, False), (universal, True)):
            total = vit.parameters() + extra_parameters(vit, universal=shared, rank=rank, unit=unit)
            evidence.expect("total minus printed, millions", total / 1e6 - printed, equals=0, error=0.005)


operations = Claim(
    paper=PAPER,
    slug="activation-operations",
    where="Compute Requirements (table)",
    says="The learnable activation costs .168, .335 and .268 GFLOPs per image in ViT-T, S and B, the same blockwise "
    "and shared.",
    formula=r"h\,L\,N^2\,r\,(3G + 1)",
    gap="The formula was found by matching three numbers; products of matrices as in our operator need 2 (2G + 1) r "
    "N^2 operations per head, 1.4 (G = 3) and 1.5 (G = 1) times as many, without sines and cosines.",
)


@operations.check("exact", controls={"r = 24": {"rank": 24}, "r = 11": {"rank": 11}})
def test_the_formula_gives_the_printed_operations(evidence, *, rank=12):
    """To the three printed decimals."""
    for vit in VITS:
        count = activation_operations(vit, rank=rank) / 1e9
        evidence.expect("GFLOPs minus printed", count - GFLOPS[vit.name][1], equals=0, error=0.0005)


plain_operations = Claim(
    paper=PAPER,
    slug="softmax-operations",
    where="Compute Requirements (table)",
    says="Softmax costs .005, .008 and .016 GFLOPs per image in ViT-T, S and B.",
    formula=r"c\,h\,L\,N^2",
    gap="Which operations the authors' counter counts is not known.",
    repair="Each number holds to within one unit of its last decimal, with c = 3 operations per entry.",
)


@plain_operations.refutation("exact", controls={"Tiny printed as .004": {"tiny": 0.004}})
def test_no_cost_per_entry_gives_the_printed_numbers(evidence, *, tiny=GFLOPS["Tiny"][0]):
    """The cost is proportional to h, which doubles from Tiny to Small: .005 is at least .0045, .008 below .0085."""
    least = 2 * (tiny - 0.0005)
    evidence.expect("least cost of Small by that of Tiny, minus most printed", least - 0.0085, at_least=0)
    evidence.counterexample("Twice the heads, less than twice the cost", Tiny=".005", Small=".008")


@plain_operations.check(
    "exact", controls={"2 operations an entry": {"per_entry": 2}, "4 operations an entry": {"per_entry": 4}}
)
def test_three_operations_an_entry_are_within_one_unit(evidence, *, per_entry=3):
    """Rounding up, down or to nearest: each printed number is less than .001 away."""
    for vit in VITS:
        count = softmax_operations(vit, per_entry) / 1e9
        evidence.expect("GFLOPs minus printed", count - GFLOPS[vit.name][0], equals=0, error=0.001)


# -- Memory -----------------------------------------------------------------------------------------------------------

memory = Claim(
    paper=PAPER,
    slug="memory-growth",
    where="Compute Requirements (text)",
    says="In training KArAt's GPU memory is 2.5 to 3 times that of softmax.",
    formula=r"2.5 \le \frac{\text{memory}(\text{KArAt})}{\text{memory}(\text{softmax})} \le 3",
    gap="The authors' code is not public; what ours takes on a GPU is noted in the claim inference-is-comparable. "
    "The repair is read off the same table.",
    repair="So it is for ViT-Small, and blockwise for ViT-Tiny: three of the page's six rows.",
)


def growth(table):
    """(rows, 2): least and largest ratio that the printed numbers, rounded to two decimals, allow."""
    pairs = [(plain, one) for plain, *both in table.values() for one in both]
    return np.array([[(one - 0.005) / (plain + 0.005), (one + 0.005) / (plain - 0.005)] for plain, one in pairs])


@memory.refutation("exact", controls={"ViT-Small's row": {"table": {"Small": MEMORY["Small"]}}})
def test_three_of_the_six_rows_are_below_two_and_a_half(evidence, *, table=MEMORY):
    """Both rows of ViT-Base (2.28 and 2.33) and the shared operator of ViT-Tiny (2.48), rounding allowed for."""
    ratios = growth(table)
    evidence.expect("rows below 2.5 for certain", int((ratios[:, 1] < 2.5).sum()), at_least=1)
    evidence.counterexample("ViT-Base, gigabytes", softmax=7.44, G1B=17.36, ratio=round(17.36 / 7.44, 2))


WITHIN = {"Tiny": MEMORY["Tiny"][:2], "Small": MEMORY["Small"]}
"""The rows of the repair: softmax, and what is 2.5 to 3 times that."""


@memory.check("exact", controls={"ViT-Base, blockwise": {"table": WITHIN | {"Base": MEMORY["Base"][:2]}}})
def test_the_rows_of_the_repair_are_two_and_a_half_to_three_times_softmax(evidence, *, table=WITHIN):
    """Three printed ratios, 2.54, 2.70 and 2.83, for certain despite the rounding."""
    evidence.expect("ratio", growth(table), within=(2.5, 3))

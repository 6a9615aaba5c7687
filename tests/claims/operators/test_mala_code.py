"""Magnitude-aware linear attention: the released vision models (Fan, Huang, Ai, He, ICCV 2025).

What the paper says. MALA's scores sum to 1 (section 4). MAViT-S, B and L have 27, 50 and 98 M parameters and take 4.6,
9.9 and 16.1 GFLOPs.

Notation. As in test_mala.py; z is the row sum in beta and gamma. A multiply-add counts as one operation in GFLOPs.

Scope. Counts are integers, from the released configuration; the code was read at commit 1b62d46, not run.
"""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.mala import BACKBONES, released

PAPER = "fan2025mala"
EPS = np.finfo(float).eps

normalised = Claim(
    paper=PAPER,
    slug="normalised-in-the-released-code",
    where="Section 4; code, classfication_release/model.py",
    says="The scores of the released vision model's MALA sum to 1 over the keys.",
    formula=r"\sum_j A_{ij} = 1",
    gap="One-dimensional rotary angles here, two-dimensional in the code; the first axis of its grid is ours.",
    repair="They do without rotary positions, or when z is computed from the rotated features.",
)


@normalised.refutation("exact", controls={"z from the rotated features": {"rotated_norm": True}})
def test_rotary_positions_break_the_sum_for_two_tokens(evidence, rng, *, rotated_norm=False):
    """z comes from unrotated features: two tokens with q = k = 0, d = 2 have the row sum 0.445, not 1.

    By hand z = sqrt(2), and the kernel's row sums to sqrt(2) (1 + cos 1) / 2, so that the scores sum to
    (1 + sqrt(2)) (1 + cos 1) / 2 - sqrt(2).
    """
    zero = np.zeros((2, 2))
    found = released(zero, zero, rotated_norm=rotated_norm).sum(-1)
    by_hand = (1 + 2**0.5) * (1 + np.cos(1)) / 2 - 2**0.5
    evidence.expect("row sum", found, equals=by_hand, error=32 * EPS)
    evidence.counterexample("two tokens of width 2", q="0", k="0", row_sum=f"{found[0]:.6f}")
    q, k = rng("inputs").standard_normal((2, 196, 32))
    for name, power in (("released code", 1), ("a port with the scale squared", 2)):
        sums = released(q, k, scale_power=power).sum(-1)
        evidence.note(f"Gaussian inputs, N = 196, d = 32, {name}: row sums {sums.min():.2f} to {sums.max():.2f}.")


@normalised.check("property", controls={"released code": {"rotated_norm": False}, "scale squared": {"power": 2}})
@given(n=st.integers(2, 40), half=st.integers(1, 16), seed=st.integers(0, 2**32 - 1))
def test_z_from_the_rotated_features_restores_the_sum(evidence, n, half, seed, *, rotated_norm=True, power=1):
    """ELU + 1 of Gaussian queries and keys, rotary angles along the sequence."""
    q, k = np.random.default_rng(seed).standard_normal((2, n, 2 * half))
    A = released(q, k, scale_power=power, rotated_norm=rotated_norm)
    # Sums of terms of this size; a rotated kernel may nearly cancel in z, which then divides its own error.
    budget = n * (n + 2 * half + 8) * EPS * (abs(A).max() + 1) ** 2
    evidence.expect("largest |row sum - 1| over its rounding budget", abs(A.sum(-1) - 1).max() / budget, at_most=1)


backbone = Claim(
    paper=PAPER,
    slug="mavit-is-quadratic-in-tokens",
    where="ours, on the released code; the paper's linear cost is that of the operator, see output-in-linear-time",
    says="The released vision transformers do not cost a number of operations linear in the number of tokens: two of "
    "their four stages are softmax attention.",
    formula=r"C(16 N) - C(4 N) > 4 \left(C(4 N) - C(N)\right)",
    gap="Counted for the released configurations, without norms and activations.",
)


def all_mala(model):
    """The same backbone with MALA in all four stages."""
    return type(model)(model.dims, model.depths, model.projection, kinds=("mala",) * 4)


@backbone.check("exact", controls={"MALA in all stages": {"build": all_mala}})
def test_released_backbones_have_softmax_in_stages_three_and_four(evidence, *, build=lambda model: model):
    """Exact counts at 1, 4 and 16 times 224 x 224 pixels: their slope in the number of tokens grows."""
    for name, released_model in BACKBONES.items():
        model = build(released_model)
        counts = [sum(model.multiplications(224 * times).values()) for times in (1, 2, 4)]  # tokens 1, 4, 16
        curvature = Fraction(counts[2] - counts[1], 12) - Fraction(counts[1] - counts[0], 3)
        evidence.expect("slope at first minus slope later", -curvature, less_than=0, unit="multiply-adds per 224-image")
        parts, softmax_blocks = model.multiplications(224), sum(released_model.depths[2:])
        evidence.note(
            f"{name}: {softmax_blocks} of {sum(model.depths)} blocks are softmax; at 224 pixels softmax takes "
            f"{parts['softmax'] / 1e9:.2f} and MALA {parts['mala'] / 1e9:.2f} of {sum(parts.values()) / 1e9:.2f} G."
        )


TABLE = {"MAViT-S": (27, 4.6), "MAViT-B": (50, 9.9), "MAViT-L": (98, 16.1)}

sizes = Claim(
    paper=PAPER,
    slug="mavit-parameters",
    where="Table of backbones",
    says="MAViT-S, B and L have 27, 50 and 98 million parameters.",
    formula=r"P_S = 27\,\mathrm{M}, \quad P_B = 50\,\mathrm{M}, \quad P_L = 98\,\mathrm{M}",
    gap="Counted from the released configuration by our formula, not from its module.",
)


@sizes.check(
    "exact",
    controls={
        "feed-forward four times as wide": {"build": lambda m: type(m)(m.dims, m.depths, m.projection, hidden=4.0)}
    },
)
def test_parameters_of_the_released_configurations_round_to_the_table(evidence, *, build=lambda model: model):
    """Sums of integers; the table is printed to a million, so that the count may differ by half of one."""
    for name, (millions, _) in TABLE.items():
        model = build(BACKBONES[name])
        evidence.expect(
            "parameters", Fraction(model.parameters(), 10**6), equals=millions, error=Fraction(1, 2), unit="M"
        )


operations = Claim(
    paper=PAPER,
    slug="mavit-operations",
    where="Table of backbones",
    says="MAViT-S, B and L take 4.6, 9.9 and 16.1 GFLOPs (multiply-adds) for an image of 224 x 224 pixels.",
    formula=r"C_S = 4.6\,\mathrm{G}, \quad C_B = 9.9\,\mathrm{G}, \quad C_L = 16.1\,\mathrm{G}",
    gap="Our formula for the released configuration, without norms and activations, which would only add to it. Which "
    "operations the authors' counter sees is not known.",
    repair="Without the products inside attention, of queries with keys and weights with values, to within one unit of "
    "the last decimal.",
)


def everything(parts):
    return sum(parts.values())


def without_attention(parts):
    return parts["dense"]


@operations.refutation("exact", controls={"without the products inside attention": {"count": without_attention}})
def test_all_multiply_adds_are_more_than_the_table_says(evidence, *, count=everything):
    """Counted in integers against the largest number that rounds to the table's."""
    found = {name: count(model.multiplications(224)) / 1e9 for name, model in BACKBONES.items()}
    evidence.expect("multiply-adds beyond the table's", [found[name] - TABLE[name][1] for name in TABLE], at_least=0.05)
    evidence.counterexample("Multiply-adds, G", **{name: round(one, 2) for name, one in found.items()})


@operations.check("exact", controls={"all products": {"count": everything}})
def test_without_the_products_of_attention_the_count_is_the_table_s(evidence, *, count=without_attention):
    """Convolutions, projections, feed-forward layers and head."""
    for name, (_, giga) in TABLE.items():
        evidence.expect(
            "multiply-adds", count(BACKBONES[name].multiplications(224)) / 1e9, equals=giga, error=0.1, unit="G"
        )

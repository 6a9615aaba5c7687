"""Sparse-linear attention: operations, the states of its linear branch, and its printed speeds (Zhang et al., 2025).

What the paper says. At 5 % critical blocks attention needs 2.74 in place of 52.75 T operations, 95 % less (abstract,
tables 1 and 2). H_i is had from the total of all states by subtracting those of blocks that are not marginal (section
4). The kernel is 13.7x faster forward and 6.8x backward than FlashAttention-2, generation 2.2x (abstract, efficiency
figure).

Notation. N and d are tokens and head width, k_h the share of critical blocks, h_j = phi(K_j)^T V_j.

Scope. Arithmetic on printed numbers as our notes have them, not read again from the paper, and rounding of sums of
states. Our own timings are in test_sla_speed.py.
"""

from decimal import Decimal
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.sla import aggregate, dense_flops, linear_flops

PAPER = "zhang2025sla"
TOKENS, WIDTH, EVALUATIONS = 32_760, 128, 96
"""N and d of the video model, and evaluations of a head that the tables add up: 96 is what makes the first entry."""
PRINTED = {
    "full": ("52.75", 1, 0), "SLA, 5 %": ("2.74", Fraction(1, 20), 1), "10 % and linear": ("5.38", Fraction(1, 10), 1),
    "20 % and linear": ("10.65", Fraction(1, 5), 1), "sparse only, 15 %": ("7.91", Fraction(3, 20), 0),
    "linear only": ("0.10", 0, 1),
}  # fmt: skip
"""Printed T operations, share of critical blocks, and whether there is a linear branch."""


def operations(share, linear, products=1):
    """Of all evaluations: a share of full attention, and `products` of the linear branch's two, 2 N d^2 each."""
    return EVALUATIONS * (share * dense_flops(TOKENS, WIDTH) + linear * linear_flops(TOKENS, WIDTH, products))


def half_a_digit(printed):
    """Half a unit of the last printed place."""
    return Fraction(Decimal(1).scaleb(Decimal(printed).as_tuple().exponent)) / 2


table = Claim(
    paper=PAPER,
    slug="table-of-operations",
    where="Tables 1 and 2, column FLOPs",
    says="At N = 32760, d = 128 full attention takes 52.75 T operations, SLA at 5 % 2.74 T, four ablations as printed.",
    formula=r"96 \left( k_h \cdot 4 N^2 d + 2 N d^2 \right)",
    gap="The table counts one of the linear branch's two products, no pooled scores and no projection; where 96 comes "
    "from is not said. Entries are from our notes.",
)


@table.check(
    "exact",
    controls={
        "both products of the linear branch": {"count": lambda share, linear: operations(share, linear, products=2)},
        "one head fewer": {"count": lambda share, linear: operations(share, linear) * Fraction(95, 96)},
    },
)
def test_every_entry_is_the_closed_form_to_the_last_digit(evidence, *, count=operations):
    """Six entries, each within half a unit of its last digit."""
    for name, (printed, share, linear) in PRINTED.items():
        evidence.expect(name, Fraction(count(share, linear), 10**12), equals=Fraction(printed),
                        error=half_a_digit(printed), unit="T")  # fmt: skip


saved = Claim(
    paper=PAPER,
    slug="95-per-cent-fewer-operations",
    where="Abstract",
    says="SLA with 5 % critical blocks saves 95 % of full attention's operations, to the nearest per cent.",
    formula=r"1 - k_h - \frac{d}{2N} \approx 95\,\%",
    gap="The 20x of the abstract is 1 / k_h; by the table's own count it is 19.2x, with both products 18.6x, with "
    "pooled scores and projection 17.9x, which would be 94 %.",
)


@saved.check("exact", controls={"10 % critical": {"share": Fraction(1, 10)}})
def test_both_ways_to_count_round_to_95_per_cent(evidence, *, share=Fraction(1, 20)):
    """By the table's count and with both products of the linear branch: within half a per cent of 95 %."""
    for products in (1, 2):
        left = Fraction(operations(share, 1, products), operations(1, 0))
        evidence.expect(
            f"saved, {products} linear products", 100 * (1 - left), equals=95, error=Fraction(1, 2), unit="%"
        )
        evidence.note(f"With {products} of the linear products: {float(1 / left):.2f}x fewer operations.")


# -- states by subtraction ---------------------------------------------------------------------------------------------

subtraction = Claim(
    paper=PAPER,
    slug="states-by-subtraction",
    where="Section 4, efficient aggregation; released branch SLA-1",
    says="H_i is the total of all states less those of the blocks that are not marginal; in float32 it errs by no more "
    "than rounding of the two sums.",
    formula=r"H_i = \sum_j h_j - \sum_{j : M_{ij} \ne 0} h_j",
    gap="The bound is relative to the total: what is left loses digits as its share falls. Our kernels add instead.",
)


@subtraction.check(
    "property",
    scope="identity",
    controls={"critical blocks alone": {"taken": lambda kinds: kinds == 1}},
)
@given(
    kinds=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=9),
    entries=st.lists(st.integers(-9, 9), min_size=9, max_size=9),
)
def test_in_exact_arithmetic_nothing_is_lost(evidence, kinds, entries, *, taken=lambda kinds: kinds != 0):
    """Up to 9 states that are fractions: equal."""
    kinds, states = np.array(kinds), np.array([Fraction(x, 3) for x in entries[: len(kinds)]])
    off = aggregate(states, ~taken(kinds), subtract=True) - aggregate(states, kinds == 0)
    evidence.expect("difference", off, equals=0, error=0)


def stored_short(states):
    """float32 with the 8 bits of bfloat16, rounded to nearest."""
    bits = states.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@subtraction.check("property", scope="rounding", controls={"states stored in bfloat16": {"stored": stored_short}})
@given(seed=st.integers(0, 2**32 - 1), marginal=st.integers(1, 512))
def test_in_float32_it_errs_by_the_rounding_of_both_sums(evidence, seed, marginal, *, stored=lambda states: states):
    """512 blocks (N = 32768), states of 64 keys with softmax features: within gamma_513 times both sums of |h|."""
    rng = np.random.default_rng(seed)
    features = rng.dirichlet(np.ones(4), size=(512, 64))
    states = np.einsum("jnc,jnd->jcd", features, rng.standard_normal((512, 64, 2))).astype(np.float32)
    seen = rng.permutation(512) < marginal
    true = aggregate(states.astype(np.float64), seen)
    found = aggregate(stored(states), seen, subtract=True)
    unit = 513 * 2.0**-24
    bound = unit / (1 - unit) * (abs(states).sum(0) + abs(states[~seen]).sum(0))
    evidence.expect("error over its bound", abs(found - true) / bound, at_most=1)


# -- printed speeds ----------------------------------------------------------------------------------------------------

speeds = Claim(
    paper=PAPER,
    slug="printed-speeds-agree",
    where="Abstract; efficiency figure",
    says="The printed ratios 13.7x, 6.8x and 2.2x follow from the printed rates (2996 over 219, 1479 over 218) and "
    "times (62 s beside attention of 97 s, then 11 s).",
    formula=r"\frac{2996}{219},\quad \frac{1479}{218},\quad \frac{62 + 97}{62 + 11}",
    gap="Printed numbers alone. Within the pipeline attention is 97 / 11 = 8.8 times faster, not 13.7 times: the "
    "kernel's figure leaves out map, features and projection.",
)


@speeds.check("exact", controls={"attention 13.7x faster in the pipeline too": {"after": Fraction(97 * 219, 2996)}})
def test_the_ratios_are_those_of_the_printed_numbers(evidence, *, after=Fraction(11)):
    """Each within half a unit of its last digit."""
    found = {"13.7": Fraction(2996, 219), "6.8": Fraction(1479, 218), "2.2": (62 + 97) / (62 + after)}
    for printed, ratio in found.items():
        evidence.expect(f"{printed}x", ratio, equals=Fraction(printed), error=half_a_digit(printed))
    evidence.note(f"Attention within the pipeline: {97 / 11:.1f}x.")

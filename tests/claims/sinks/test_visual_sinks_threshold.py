"""What the sink-dimension value can tell (VAR, Kang et al., 2025, section 4): its range, its threshold, its dimensions.

What the paper says. Visual sink tokens have massive activation in the dimensions of the base language model's sinks,
{1415, 2533} in LLaMA-2-7B and {2100, 4743} in 13B. phi, the largest of these over the root mean square, tells them from
other visual tokens at the threshold 20: values lie below 10 or at 40 to 53.

Notation. D is the width of the hidden state x, rms its root mean square, phi our `sink_dimension_value`.

Scope. What follows from the definition, and what chance would give. LLaVA's hidden states are not measured here.
"""

import math

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.sinks.measures import sink_dimension_value
from theory.sinks.visual_sinks import share_above

PAPER = "kang2025visual"
EPS = np.finfo(float).eps
TAU = 20.0
WIDTHS = (3584, 4096, 5120)
"""Of the language models of Qwen2-VL-7B and InternVL2-8B at least, LLaVA-1.5-7B and 13B."""
TOKENS = 1e12
"""More visual tokens than anybody will read: 576 in each of 32 layers of 5e7 images."""

value = Claim(
    paper=PAPER,
    slug="massive-activation",
    where="Section 4, equation 3",
    says="A token with phi above 20 has a massive activation: more than 400 / D of its squared length, a tenth at D = "
    "4096, lies in one coordinate, which no ordinary token has.",
    formula=r"\phi(x) \ge \tau \Leftrightarrow \max_{d} x_d^2 \ge \tfrac{\tau^2}{D} \|x\|^2, \quad \phi \le \sqrt{D}",
    gap="`Ordinary` is a Gaussian here: what LLaVA's other tokens have is a matter of measurement. No token of width "
    "below 400 reaches 20: small models need 20 sqrt(D / 4096).",
)


def unscaled(x, dimensions):
    """Without the root mean square."""
    return abs(x[..., dimensions]).max(axis=-1)


@value.check("property", scope="range", controls={"without the root mean square": {"phi": unscaled}})
@given(width=st.integers(2, 64), seed=st.integers(0, 2**32 - 1), power=st.floats(1, 8), scale=st.integers(-3, 3))
def test_it_lies_below_the_root_of_the_width(evidence, width, seed, power, scale, *, phi=sink_dimension_value):
    """Heavy-tailed states: Gaussians raised to a power, so that the search can concentrate them in one coordinate."""
    x = np.random.default_rng(seed).standard_normal(width)
    x = 10.0**scale * np.sign(x) * abs(x) ** power
    evidence.expect("phi over sqrt(D)", phi(x, [0, 1]) / math.sqrt(width), at_most=1 + 4 * width * EPS)


@value.check("exact", scope="equality", controls={"two equal coordinates": {"spread": 2}})
def test_one_nonzero_coordinate_attains_the_root_of_the_width(evidence, *, spread=1):
    """A one-hot state has phi = sqrt(D), 20 at D = 400 and 64 at D = 4096."""
    for width in (64, 400, 4096):
        x = np.zeros(width)
        x[:spread] = -3.0
        evidence.expect("phi over sqrt(D)", sink_dimension_value(x, [0]) / math.sqrt(width), equals=1, error=4 * EPS)


@value.check("exact", controls={"a threshold of 5": {"tau": 5.0}})
def test_no_ordinary_token_is_flagged(evidence, *, tau=TAU):
    """Expected number of Gaussian tokens among 1e12 with either of two coordinates above the threshold: a beta tail."""
    for width in WIDTHS:
        evidence.expect("expected false alarms", 2 * TOKENS * share_above(tau, width), at_most=1e-4)
        evidence.note(f"D = {width}: {tau**2 / width:.1%} of the squared length; chance 1e{log_share(tau, width):.0f}.")


def log_share(tau, width):
    return math.log10(share_above(tau, width))


@value.check("statistical", scope="the tail", controls={"Gaussian tail for the beta's": {"tail": None}})
def test_the_tail_is_that_of_drawn_tokens(evidence, rng, *, tail=share_above):
    """Counts among 100 000 Gaussian states of width 8 above three thresholds, against the formula."""
    count, width = 100_000, 8
    x = rng("states").standard_normal((count, width))
    phi = sink_dimension_value(x, [0])
    z = []
    for tau in (1.0, 1.5, 2.0):
        p = tail(tau, width) if tail is not None else math.erfc(tau / math.sqrt(2))
        z.append(((phi > tau).sum() - count * p) / math.sqrt(count * p * (1 - p)))
    evidence.z_scores("counts against the beta tail", z, alpha=1e-4)


separates = Claim(
    paper=PAPER,
    slug="threshold-separates",
    where="Section 4, Figure 3a",
    says="In LLaVA-1.5-7B phi of visual tokens is bimodal, below 10 or from 40 to 53, so that 20 separates them.",
    formula=r"\phi \in [0, 10) \cup [40, 53]",
    gap="Read off a plot; only that the printed values are possible is checked.",
)


@separates.check("exact", controls={"of a model of width 2048": {"width": 2048}})
def test_the_printed_values_are_possible(evidence, *, width=4096):
    """53 is below sqrt(4096) = 64: such a token has two thirds of its squared length in one coordinate."""
    evidence.expect("largest printed value", 53.0, at_most=math.sqrt(width))
    evidence.note(
        f"A token with 40 has {40**2 / width:.0%} of its squared length there, one with 53 {53**2 / width:.0%}."
    )
    evidence.inconclusive(needs="hidden states of LLaVA-1.5-7B over images, and a dip test of phi")


shared = Claim(
    paper=PAPER,
    slug="sink-dimensions-of-the-base-model",
    where="Abstract; Section 4, Figure 2",
    says="Visual sink tokens are massive in the same two dimensions as the base language model's own sinks, which "
    "multimodal training has not moved.",
    formula=r"D_{\text{sink}}(\text{LLaVA-1.5-7B}) = \{1415, 2533\} = D_{\text{sink}}(\text{LLaMA-2-7B})",
    gap="Nothing is measured: the check says how much a coincidence would prove.",
)


@shared.check("exact", controls={"dimensions of the 7B model in ten": {"width": 10}})
def test_two_shared_dimensions_would_be_no_accident(evidence, *, width=4096):
    """The chance that the two largest of D exchangeable coordinates are two given ones is 2 / (D (D - 1))."""
    chance = 2 / (width * (width - 1))
    evidence.expect("chance of a coincidence", chance, at_most=1e-6)
    evidence.inconclusive(needs="LLaVA-1.5-7B and 13B with their base models, hidden states over images")


constant = Claim(
    paper=PAPER,
    slug="same-tokens-for-every-word",
    where="Abstract, Figure 1",
    says="Multimodal models give high attention to fixed visual tokens that are irrelevant, whatever the text token.",
    formula=r"\arg\max_{j \in \text{visual}} \alpha_{ij} \text{ the same for most } i",
    gap="`Irrelevant` is judged by eye in the paper. Nothing is measured.",
)


def agreement(queries, tokens):
    """P(the same of `tokens` is the largest for more than half of `queries`), rows independent and exchangeable."""
    from scipy.stats import binom

    return min(1.0, tokens * float(binom.sf(queries // 2, queries, 1 / tokens)))


@constant.check("exact", controls={"two tokens": {"tokens": 2}})
def test_a_majority_for_one_token_would_be_no_accident(evidence, *, tokens=576):
    """Among 576 visual tokens one that is the largest for more than half of ten queries: at most 1e-13 by chance."""
    evidence.expect("chance of such a majority", agreement(10, tokens), at_most=1e-6)
    evidence.inconclusive(needs="LLaVA-1.5-7B over images, its attention maps, and labels of what is relevant")

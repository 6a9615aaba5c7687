"""Magnitude-aware linear attention: its cost, the released code, and the paper's tables (Fan et al., ICCV 2025).

What the paper says. MALA is computed from phi(K)^T V and sum V in time linear in N (section 4). MAViT-S, B and L have
27, 50 and 98 M parameters, 4.6, 9.9 and 16.1 GFLOPs and 84.7, 85.7 and 86.0 % top-1 on ImageNet; as a drop-in MALA is
more accurate than other linear attentions; it carries over to detection, speech, image generation and language.

Notation. As in test_mala.py. z is beta's and gamma's row sum; a multiply-add counts as one operation in GFLOPs.

Scope. Counts are integers, from the operations that run; the released code was read at commit 1b62d46.
"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import mala, mala_output, softmax
from theory.operators.mala import BACKBONES, identity, released

PAPER = "fan2025mala"
EPS = np.finfo(float).eps


def quadratic(q, k, v, **given):
    """MALA with its N x N matrix written out."""
    return mala(q, k, **given) @ v


linear_cost = Claim(
    paper=PAPER,
    slug="output-in-linear-time",
    where="Abstract, Section 4",
    says="MALA's output equals beta phi(q) (phi(K)^T V) - gamma sum V, at a cost linear in the number N of tokens.",
    formula=r"Y = \beta\, \phi(q) \left(\sum_m \phi(k_m)^\top v_m\right) - \gamma \sum_m v_m",
    gap="Operations, not seconds; the timing is of our plain PyTorch lines, not of a fused kernel.",
)


@linear_cost.check(
    "property",
    scope="equality",
    controls={
        "mean of the values not subtracted": {"output": lambda q, k, v, **rest: mala_output(q, k, v, **rest) + v[0]}
    },
)
@given(
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)),
    entries=st.lists(st.integers(0, 9), min_size=9, max_size=9),
)
def test_both_orders_agree_in_exact_arithmetic(evidence, sizes, entries, *, output=mala_output):
    """Rational features of up to 6 queries, 6 keys and 3 channels: the linear form and the N x N matrix times V."""
    n, m, d = sizes
    numbers = np.resize(np.array([Fraction(x + 1, 3) for x in entries], dtype=object), (n + 2 * m) * d)
    q, k, v = np.split(numbers, [n * d, (n + m) * d])
    q, k, v = q.reshape(n, d), k.reshape(m, d), v.reshape(m, d)
    off = output(q, k, v, feature_map=identity) - quadratic(q, k, v, feature_map=identity)
    evidence.expect("difference of the two orders", off, equals=0, error=0)


@linear_cost.check("exact", scope="operations", controls={"N x N matrix first": {"output": quadratic}})
def test_doubling_the_tokens_doubles_the_operations(evidence, *, output=mala_output):
    """Operations of matrix products as PyTorch counts them: d = 64, N = 196 to 50176, twice N costs twice as much."""
    from empirical.operators.mala import operations

    for N in (196, 784, 3136, 50_176):
        once, twice = operations(output, N, 64), operations(output, 2 * N, 64)
        evidence.expect("operations of 2 N over N", Fraction(twice, once), equals=2, error=0)
        evidence.expect("operations over 2 N d (2 d + 1)", Fraction(once, 2 * N * 64 * (2 * 64 + 1)), equals=1, error=0)
    matrix, kernel = operations(lambda q, k, v: softmax(q, k) @ v, 3136, 64), operations(output, 3136, 64)
    evidence.note(f"N = 3136, d = 64: softmax needs {matrix / kernel:.1f} times the operations of MALA.")


@linear_cost.check("benchmark", scope="seconds", controls={"N x N matrix first": {"output": quadratic}})
def test_the_time_grows_with_a_power_nearer_to_one_than_to_two(evidence, *, output=mala_output):
    """Forward pass in float32 on a GPU, d = 64, 8 heads, N = 8k to 32k: slope of log time against log N below 3/2."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU: times of N = 8k to 32k tokens")
    from empirical.operators.mala import time_slope

    slope, seconds = time_slope(output, (8192, 16_384, 32_768), 64)
    evidence.note(f"Milliseconds at N = 8192, 16384, 32768: {', '.join(f'{1e3 * t:.3f}' for t in seconds)}.")
    evidence.expect("slope of log time against log N", slope, less_than=("half-way to quadratic", 1.5))


# -- the released code -------------------------------------------------------------------------------------------------

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
    slug="mavit-is-linear-in-tokens",
    where="Abstract, Section 4 (our reading for the released MAViT)",
    says="The vision transformer built on MALA costs a number of operations linear in the number of tokens.",
    formula=r"C(N) = c_1 N + c_0",
    gap="Counted for the released configurations; the operator itself is linear, see output-in-linear-time.",
)


def all_mala(model):
    """The same backbone with MALA in all four stages."""
    return type(model)(model.dims, model.depths, model.projection, kinds=("mala",) * 4)


@backbone.refutation("exact", controls={"MALA in all stages": {"build": all_mala}})
def test_released_backbones_have_softmax_in_stages_three_and_four(evidence, *, build=lambda model: model):
    """Exact counts at 1, 4 and 16 times 224 x 224 pixels: their slope in the number of tokens grows."""
    for name, released_model in BACKBONES.items():
        model = build(released_model)
        counts = [sum(model.multiplications(224 * times).values()) for times in (1, 2, 4)]  # tokens 1, 4, 16
        curvature = Fraction(counts[2] - counts[1], 12) - Fraction(counts[1] - counts[0], 3)
        evidence.expect("growth of the cost per token", -curvature, less_than=0, unit="multiply-adds per 224-image")
        parts, softmax_blocks = model.multiplications(224), sum(released_model.depths[2:])
        evidence.note(
            f"{name}: {softmax_blocks} of {sum(model.depths)} blocks are softmax; at 224 pixels softmax takes "
            f"{parts['softmax'] / 1e9:.2f} and MALA {parts['mala'] / 1e9:.2f} of {sum(parts.values()) / 1e9:.2f} G."
        )


# -- the tables --------------------------------------------------------------------------------------------------------

TABLE = {"MAViT-S": (27, 4.6), "MAViT-B": (50, 9.9), "MAViT-L": (98, 16.1)}

sizes = Claim(
    paper=PAPER,
    slug="mavit-parameters",
    where="Table of backbones",
    says="MAViT-S, B and L have 27, 50 and 98 million parameters.",
    formula=r"P_S = 27\,\mathrm{M}, \quad P_B = 50\,\mathrm{M}, \quad P_L = 98\,\mathrm{M}",
    gap="Counted from the released configuration by our formula, not from its module. Our count of multiply-adds, "
    "which includes the products inside attention, exceeds the table's GFLOPs by 7 % each; without them it is "
    "within 2 %.",
)


@sizes.check(
    "exact",
    controls={
        "feed-forward four times as wide": {"build": lambda m: type(m)(m.dims, m.depths, m.projection, hidden=4.0)}
    },
)
def test_parameters_of_the_released_configurations_round_to_the_table(evidence, *, build=lambda model: model):
    """Sums of integers; the table is printed to a million, so that the count may differ by half of one."""
    for name, (millions, giga) in TABLE.items():
        model = build(BACKBONES[name])
        evidence.expect(
            "parameters", Fraction(model.parameters(), 10**6), equals=millions, error=Fraction(1, 2), unit="M"
        )
        parts = model.multiplications(224)
        evidence.note(
            f"{name}: {model.parameters() / 1e6:.2f} M parameters; {sum(parts.values()) / 1e9:.2f} G multiply-adds, "
            f"{parts['dense'] / 1e9:.2f} without attention's own products; the table has {giga}."
        )


DROP_IN = {"DeiT-T": (75.1, 74.5), "Swin-T": (83.7, 82.4), "Swin-S": (85.3, 83.6)}

imagenet = Claim(
    paper=PAPER,
    slug="imagenet-accuracy",
    where="Tables: drop-in comparison, backbones",
    says="On ImageNet-1K MALA in DeiT-T, Swin-T and Swin-S reaches 75.1, 83.7 and 85.3 % top-1, more than InLine, the "
    "best other linear attention; MAViT-S, B and L reach 84.7, 85.7 and 86.0 %.",
    formula=r"75.1 > 74.5, \quad 83.7 > 82.4, \quad 85.3 > 83.6",
    gap="We only check that the printed gains exceed what 50 000 validation images leave to chance; one run each, and "
    "the spread between seeds is unknown.",
)


@imagenet.check("exact", controls={"a gain of a tenth of a point": {"table": {"DeiT-T": (74.6, 74.5)}}})
def test_the_printed_gains_exceed_the_sampling_error_of_the_validation_set(evidence, *, table=DROP_IN):
    """Difference over its binomial standard error at 50 000 images, unpaired, which is the larger one."""
    for ours, theirs in table.values():
        variance = sum(p / 100 * (1 - p / 100) / 50_000 for p in (ours, theirs))
        evidence.expect("standard errors of the gain", (ours - theirs) / 100 / variance**0.5, at_least=1.96)
    evidence.inconclusive(needs="training on ImageNet-1K for 300 epochs, several seeds, or the authors' checkpoints")


elsewhere = Claim(
    paper=PAPER,
    slug="gains-on-other-tasks",
    where="Abstract, tables on COCO, speech, image generation, language",
    says="MALA lowers the word error rate of speech recognition from 2.7 to 2.4 and from 6.3 to 5.3, the FID of a "
    "diffusion transformer from 68.40 to 49.62, and reaches 55.5 box AP on COCO.",
    formula=r"2.7 \to 2.4, \quad 6.3 \to 5.3, \quad 68.40 \to 49.62",
    gap="Nothing at our scale speaks to these tasks.",
)


@elsewhere.check("exact", controls={"rows exchanged": {"table": ((2.4, 2.7), (5.3, 6.3), (49.62, 68.40))}})
def test_the_printed_rows_are_improvements(evidence, *, table=((2.7, 2.4), (6.3, 5.3), (68.40, 49.62))):
    """Relative reductions computed from the printed numbers; lower is better in each."""
    for before, after in table:
        evidence.expect("relative reduction", 1 - after / before, at_least=0)
    evidence.inconclusive(needs="LibriSpeech, COCO and ImageNet training runs of the authors' size")

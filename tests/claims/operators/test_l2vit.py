"""Linear attention in vision transformers: cost, reach and the clamp (Zheng, L2ViT, 2025).

What the paper says. Softmax attention is quadratic in time and memory in the number N of tokens; linear attention is
global at linear cost. L2ViT alternates window attention with linear attention, keeps the weights non-negative (ReLU)
and the denominator at 100 or more, which stabilises training.

Notation. d is the width of a head; phi(q) phi(k)^T over its row sums is linear attention, tau its temperature.

Scope. The operators alone, counted and exact. test_l2vit_concentration.py has what they can concentrate on,
test_l2vit_lcm.py the local concentration module and training, test_l2vit_tables.py the paper's tables.
"""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import linear, linear_output, relu_map, softmax
from theory.operators.l2vit import FLOOR, reachable, tempered, windows

PAPER = "zheng2025l2vit"


def softmax_output(q, k, v, **_):
    return softmax(q, k) @ v


def quadratic(q, k, v, *, feature_map=relu_map, floor=FLOOR):
    """Linear attention with its N x N matrix written out."""
    return linear(q, k, feature_map=feature_map, floor=floor) @ v


def factor_of_cost(output, N, d=32):
    """Operations at 2 N tokens over those at N."""
    from empirical.operators.mala import operations

    return Fraction(operations(output, 2 * N, d), operations(output, N, d))


def beyond_linear(output, N, d=32):
    """What the backward pass of one head needs at 2 N tokens beyond twice that at N, in matrices of N x N numbers."""
    from empirical.operators.l2vit import kept_numbers

    return Fraction(kept_numbers(output, 2 * N, d) - 2 * kept_numbers(output, N, d), N * N)


# -- A1, A2: cost and reach --------------------------------------------------------------------------------------------

quadratic_cost = Claim(
    paper=PAPER,
    slug="softmax-is-quadratic",
    where="Abstract",
    says="The operations of softmax attention and its memory grow with the square of the number of tokens.",
    formula=r"C(2N) = 4\, C(N), \quad M(2N) - 2 M(N) \ge 2 N^2",
    gap="The plain formula: fused kernels keep its operations and save its memory.",
)


@quadratic_cost.check("exact", scope="time", controls={"linear attention": {"output": linear_output}})
def test_twice_the_tokens_cost_four_times_the_operations(evidence, *, output=softmax_output):
    """Operations of matrix products as PyTorch counts them, d = 32, at 196, 784 and 3136 tokens."""
    for N in (196, 784, 3136):
        evidence.expect("operations of 2 N over N", factor_of_cost(output, N), equals=4, error=0)


@quadratic_cost.check("exact", scope="memory", controls={"linear attention": {"output": linear_output}})
def test_the_backward_pass_needs_a_matrix_of_all_pairs(evidence, *, output=softmax_output):
    """Numbers that PyTorch keeps, d = 32: with c N^2 of them, 2 N tokens need 2 c N^2 more than twice N; c >= 1."""
    for N in (64, 128, 256):
        evidence.expect("matrices of N x N beyond linear growth", beyond_linear(output, N), at_least=2)


global_cost = Claim(
    paper=PAPER,
    slug="linear-attention-is-global-at-linear-cost",
    where="Abstract",
    says="With phi(k)^T v first, linear attention gives what the N x N matrix gives, at a cost linear in N, and token "
    "i depends on token j whenever phi(q_i).phi(k_j) > 0.",
    formula=r"\frac{(\phi(Q)\phi(K)^\top) V}{\max(\phi(Q)\phi(K)^\top 1, c)} "
    r"= \frac{\phi(Q) (\phi(K)^\top V)}{\max(\phi(Q) (\phi(K)^\top 1), c)}",
    gap="Operations and memory, not seconds. Under ReLU a pair whose positive channels do not meet has weight 0.",
)


@global_cost.check("exact", scope="operations", controls={"N x N matrix first": {"output": quadratic}})
def test_twice_the_tokens_cost_twice_the_operations(evidence, *, output=linear_output):
    """Operations of matrix products as PyTorch counts them, d = 32, at 196, 784 and 3136 tokens."""
    for N in (196, 784, 3136):
        evidence.expect("operations of 2 N over N", factor_of_cost(output, N), equals=2, error=0)


@global_cost.check("exact", scope="memory", controls={"N x N matrix first": {"output": quadratic}})
def test_the_backward_pass_needs_no_matrix_of_all_pairs(evidence, *, output=linear_output):
    """Numbers that PyTorch keeps, d = 32: 2 N tokens need at most twice those of N."""
    for N in (64, 128, 256):
        evidence.expect("matrices of N x N beyond linear growth", beyond_linear(output, N), at_most=0)


@global_cost.check(
    "property",
    scope="equality and reach",
    controls={
        "clamp at 1000 in one order only": {
            "output": lambda q, k, v, **rest: linear_output(q, k, v, **{**rest, "floor": 1000})
        },
        "attention within windows": {"mask": np.kron(np.eye(2), np.ones((2, 2))) > 0},
    },
)
@given(entries=st.lists(st.integers(-3, 9), min_size=12, max_size=12), floor=st.sampled_from((0, 1, FLOOR)))
def test_both_orders_agree_and_every_pair_with_common_features_interacts(
    evidence, entries, floor, *, output=linear_output, mask=None
):
    """Four rational tokens of width 3: exact equality, and A_ij > 0 where ReLU features meet."""
    q = np.array([Fraction(x) for x in entries], dtype=object).reshape(4, 3)
    k, v = np.roll(q, 1, axis=0) + Fraction(1, 2), np.roll(q, 2, axis=1)
    given_floor = {"feature_map": relu_map, "floor": floor}
    A = linear(q, k, mask=mask, **given_floor)
    meets = np.array(relu_map(q) @ relu_map(k).T > 0, dtype=bool)
    evidence.expect("pairs with common features that do not interact", int((meets & ~(A > 0)).sum()), equals=0, error=0)
    evidence.expect("difference of the two orders", output(q, k, v, **given_floor) - A @ v, equals=0, error=0)


# -- A5: alternation ---------------------------------------------------------------------------------------------------

alternates = Claim(
    paper=PAPER,
    slug="alternation-is-local-and-global",
    where="Abstract, architecture",
    says="In window attention a token depends on all tokens of its window and on no other; followed by linear "
    "attention it depends on every token.",
    formula=r"\mathrm{reach}(\mathrm{LWA}) = \text{window}, \quad "
    r"\mathrm{reach}(\mathrm{LGA} \circ \mathrm{LWA}) = \{1, \dots, N\}",
    gap="Reach by attention alone, for Gaussian queries and keys: the depthwise convolutions of the model cross "
    "windows too, three pixels at a time. That the cost is linear is the claim sizes-and-linear-cost.",
)


def window_attention(q, k):
    """Softmax within windows of 7 x 7."""
    return softmax(q, k, mask=windows(round(len(q) ** 0.5), 7))


@alternates.check(
    "exact",
    controls={
        "window attention twice": {"second": window_attention},
        "linear attention first": {"first": tempered},
        "linear attention with features of one channel each": {
            "second": lambda q, k: tempered(np.eye(len(q)), np.eye(len(k)))
        },
    },
)
def test_windows_are_filled_and_one_global_layer_connects_them(
    evidence, rng, *, first=window_attention, second=tempered
):
    """Grids of 14 x 14 and 28 x 28 tokens, heads of width 32: which weights are not 0, and what two layers reach."""
    for side in (14, 28):
        q, k = rng("features", side).standard_normal((2, side * side, 32))
        local, spread = (operator(q, k) > 0 for operator in (first, second))
        wrong = local != windows(side, 7)
        evidence.expect(
            "pairs within a window without, or across windows with a weight", int(wrong.sum()), equals=0, error=0
        )
        evidence.expect("pairs not reached", int((~reachable(local, spread)).sum()), equals=0, error=0)


# -- A9: the clamp -----------------------------------------------------------------------------------------------------

clamp = Claim(
    paper=PAPER,
    slug="clamped-rows-are-bounded",
    where="Released code ('makes training stable')",
    says="With ReLU features and a denominator of at least 100 the weights are non-negative, finite also for a dead "
    "query, and each row sums to tau min(1, s / 100), where s is the row sum of the kernel.",
    formula=r"\sum_j A_{ij} = \tau \min\left(1, \frac{s_i}{100}\right), \quad A_{ij} \ge 0",
    gap="What the clamp does to training is another claim. It ties the weights to N: below s = 100, as on our "
    "16 tokens, rows are not normalised at all; at N = 196, d = 32 Gaussian rows have s = 350 to 1800 and it is "
    "inactive.",
)


def unclamped(q, k, temperature=1):
    """Rows over their sum as the formula has it: 0 / 0 for a dead query, written here as -1."""
    S = relu_map(q) @ relu_map(k).T
    s = S.sum(-1)[:, None]
    return temperature * np.where(s == 0, Fraction(-1), S / np.where(s == 0, Fraction(1), s))


@clamp.check("property", controls={"no clamp": {"weights": unclamped}})
@given(entries=st.lists(st.integers(-4, 9), min_size=18, max_size=18), temperature=st.integers(1, 5))
def test_rows_sum_to_the_clamped_share_of_the_temperature(evidence, entries, temperature, *, weights=tempered):
    """Rational queries and keys, three tokens of width 3; a query without positive entries has weights 0."""
    q, k = np.array([Fraction(x) for x in entries], dtype=object).reshape(2, 3, 3)
    q, tau = q * temperature, Fraction(temperature, 3)
    A, s = weights(q, k, tau), (relu_map(q) @ relu_map(k).T).sum(-1)
    evidence.expect("least weight", A, at_least=0)
    evidence.expect("row sum", A.sum(-1) - [tau * min(Fraction(1), one / FLOOR) for one in s], equals=0, error=0)


stabilises = Claim(
    paper=PAPER,
    slug="clamp-stabilises-training",
    where="Released code ('makes training stable'), with higher accuracy",
    says="The clamp of the denominator at 100 stabilises training and improves accuracy.",
    formula=r"\frac{\partial A_{ij}}{\partial S_{ij}} \le \frac{\tau}{100}",
    gap="Only the mechanism is checked: without the clamp the weights jump at a dead query. Our small networks have 16 "
    "tokens, at which the clamp is always active, and train stably without it.",
)


@stabilises.check("exact", controls={"no clamp": {"weights": unclamped}})
def test_weights_vanish_with_the_features_of_the_query(evidence, *, weights=tempered):
    """q = (t, 0), three keys with first channel 1: the weights at t = 10^-3 .. 10^-9 are at most t / 100 each."""
    k = np.array([[Fraction(1), Fraction(x)] for x in (0, 1, 2)], dtype=object)
    for power in range(3, 10):
        t = Fraction(1, 10**power)
        A = weights(np.array([[t, Fraction(0)]], dtype=object), k)
        evidence.expect("weight over t / 100", A * FLOOR / t, at_most=1)
    evidence.inconclusive(needs="L2ViT trained on ImageNet with and without the clamp, several seeds")

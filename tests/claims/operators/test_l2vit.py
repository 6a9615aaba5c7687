"""Linear attention in vision transformers: what it can concentrate on, what it costs (Zheng, L2ViT, 2025).

What the paper says. Softmax attention is quadratic in the number N of tokens; linear attention is global at linear
cost, but empirically cannot concentrate its distribution as softmax does. L2ViT alternates window attention with linear
attention, keeps the weights non-negative (ReLU) and the denominator at 100 or more, which stabilises training.

Notation. d is the width of a head, n the number of tokens; phi(q) phi(k)^T over its row sums is linear attention. The
*assignment mass* of weights A is the largest sum of A_i,pi(i) over one-to-one pi: n for a permutation.

Scope. The empirical statement on concentration becomes a theorem here, which is ours: the mass is at most d, whatever
the feature map, as long as it is non-negative. test_l2vit_lcm.py has the local concentration module and training.
"""

from fractions import Fraction

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import elu_plus_one, linear, linear_output, relu_map, softmax
from theory.operators.l2vit import (
    FLOOR,
    assignment_mass,
    concentrating_features,
    factors,
    on_a_circle,
    reachable,
    tempered,
    windows,
)

PAPER = "zheng2025l2vit"
EPS = np.finfo(float).eps
unshrunk = settings(phases=(Phase.generate, Phase.target))  # a smaller seed is no simpler one
seeds = st.integers(0, 2**32 - 1)


def softmax_output(q, k, v, **_):
    return softmax(q, k) @ v


def quadratic(q, k, v, *, feature_map=relu_map, floor=FLOOR):
    """Linear attention with its N x N matrix written out."""
    return linear(q, k, feature_map=feature_map, floor=floor) @ v


def factor_of_cost(output, N, d=32):
    """Operations at 2 N tokens over those at N."""
    from empirical.operators.mala import operations

    return Fraction(operations(output, 2 * N, d), operations(output, N, d))


# -- A1, A2: cost and reach --------------------------------------------------------------------------------------------

quadratic_cost = Claim(
    paper=PAPER,
    slug="softmax-is-quadratic",
    where="Abstract",
    says="The operations of softmax attention grow with the square of the number of tokens.",
    formula=r"C(2N) = 4\, C(N)",
    gap="Matrix products of the plain formula; fused kernels save memory, not operations.",
)


@quadratic_cost.check("exact", controls={"linear attention": {"output": linear_output}})
def test_twice_the_tokens_cost_four_times_the_operations(evidence, *, output=softmax_output):
    """Operations of matrix products as PyTorch counts them, d = 32, at 196, 784 and 3136 tokens."""
    for N in (196, 784, 3136):
        evidence.expect("operations of 2 N over N", factor_of_cost(output, N), equals=4, error=0)


global_cost = Claim(
    paper=PAPER,
    slug="linear-attention-is-global-at-linear-cost",
    where="Abstract",
    says="With phi(k)^T v first, linear attention gives what the N x N matrix gives, at a cost linear in N, and token "
    "i depends on token j whenever phi(q_i).phi(k_j) > 0.",
    formula=r"\frac{(\phi(Q)\phi(K)^\top) V}{\max(\phi(Q)\phi(K)^\top 1, c)} "
    r"= \frac{\phi(Q) (\phi(K)^\top V)}{\max(\phi(Q) (\phi(K)^\top 1), c)}",
    gap="Operations, not seconds. Under ReLU a pair whose positive channels do not meet has weight exactly 0.",
)


@global_cost.check("exact", scope="operations", controls={"N x N matrix first": {"output": quadratic}})
def test_twice_the_tokens_cost_twice_the_operations(evidence, *, output=linear_output):
    """Operations of matrix products as PyTorch counts them, d = 32, at 196, 784 and 3136 tokens."""
    for N in (196, 784, 3136):
        evidence.expect("operations of 2 N over N", factor_of_cost(output, N), equals=2, error=0)


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


# -- A3: concentration -------------------------------------------------------------------------------------------------

concentrates = Claim(
    paper=PAPER,
    slug="linear-attention-cannot-concentrate",
    where="Abstract (there empirical; the theorem is ours)",
    says="For any non-negative feature map of width d, the weights that n tokens give to n different tokens add up to "
    "at most d, whatever the assignment, so that on average a token gives its own target at most d / n; softmax "
    "reaches n.",
    formula=r"\sum_{i=1}^{n} A_{i \pi(i)} \le d",
    gap="Different targets: all rows may still put mass 1 on one and the same token. Signed features are not covered.",
)


def assigned(u, v):
    """Sum of (U V)_ii."""
    return sum(u[i, r] * v[r, i] for i in range(len(u)) for r in range(len(v)))


@concentrates.check(
    "proof",
    controls={"one channel counted twice": {"mass": lambda u, v: assigned(u, v) + sum(u[:, 0] * v[0])}},
)
def test_the_gap_to_the_bound_is_a_sum_of_products_of_weights(evidence, *, mass=assigned):
    """d - sum A_ii = sum over i and r != s of U_is V_ri for row-stochastic U and V, a sum of non-negative terms.

    Each term has one token and two channels, so that n = d = 2 has every kind of term; 1 <= n, d <= 4 are expanded. A
    permutation renames the columns of V. That A = U V with such U and V is checked on symbolic features, n = 3, d = 2.
    """
    import sympy as sp

    for n in range(1, 5):
        for d in range(1, 5):
            u, v = (np.array(sp.symbols(f"{x}:{n * d}")).reshape(s) for x, s in (("u", (n, d)), ("v", (d, n))))
            for row in u:  # rows sum to 1
                row[-1] = 1 - sum(row[:-1])
            for row in v:
                row[-1] = 1 - sum(row[:-1])
            gap = sum(u[i, s] * v[r, i] for i in range(n) for r in range(d) for s in range(d) if r != s)
            evidence.true("the gap as stated", sp.expand(d - mass(u, v) - gap) == 0)
    q, k = (np.array(sp.symbols(f"{x}:6", positive=True)).reshape(3, 2) for x in "qk")
    U, V = factors(q, k)
    off = linear(q, k, feature_map=lambda x: x) - U @ V
    evidence.true("A = U V", all(sp.simplify(one) == 0 for one in off.ravel()))
    evidence.true("rows of U and V sum to 1", all(sp.simplify(sum(row) - 1) == 0 for row in [*U, *V]))


@concentrates.check("exact", scope="equality", controls={"one channel fewer": {"width": lambda d: d - 1}})
def test_integer_features_reach_the_bound(evidence, *, width=lambda d: d):
    """ReLU features with a channel of its own for each of d tokens: mass exactly d, in rationals, for n = 16 and 49."""
    for n in (16, 49):
        for d in (2, 4, 8):
            q, k = (
                np.array([[Fraction(x) for x in row] for row in one], object)
                for one in concentrating_features(n, width(d))
            )
            A = linear(q, k, feature_map=relu_map)
            evidence.expect("assignment mass minus d", A[np.arange(n), np.arange(n)].sum() - d, equals=0, error=0)


def kernels(q, k):
    """The non-negative feature maps in use."""
    return [linear(q, k, feature_map=phi) for phi in (relu_map, elu_plus_one)]


@concentrates.check(
    "property",
    controls={
        "softmax": {"weights": lambda q, k: [softmax(40 * q, q)]},
        "signed features": {"weights": lambda q, k: [linear(q, 1e-3 * k + q, feature_map=lambda x: x)]},
    },
)
@unshrunk
@given(n=st.integers(4, 24), d=st.integers(1, 3), seed=seeds, power=st.floats(-2, 2))
def test_no_assignment_has_more_mass_than_the_width(evidence, n, d, seed, power, *, weights=kernels):
    """Best assignment (Hungarian method) for ReLU and ELU + 1 of Gaussian features, of size 10^-2 to 10^2."""
    q, k = 10**power * np.random.default_rng(seed).standard_normal((2, n, d))
    for A in weights(q, k):
        # A sum of n weights, each with the relative error of d + n operations.
        evidence.expect("assignment mass over d", assignment_mass(A) / d, at_most=1 + (2 * n + d) * EPS)


@concentrates.check("exact", scope="softmax reaches n", controls={"ReLU linear attention": {"operator": kernels}})
def test_softmax_assigns_every_token_its_own_target_in_width_two(evidence, *, operator=lambda q, k: [softmax(q, k)]):
    """Keys on a circle, longer queries on the same one: mass 16 - 1e-9 for 16 tokens at d = 2."""
    n = 16
    mass = max(float(assignment_mass(A)) for A in operator(*on_a_circle(n, 500.0)))
    # The nearest other key is 1 - cos(2 pi / n) below in score, and there are n - 1 of them.
    short = n * (n - 1) * np.exp(-500 * (1 - np.cos(2 * np.pi / n)) / 2**0.5)
    evidence.expect("assignment mass", mass, at_least=n - short - n * n * EPS)
    evidence.figure(*figure_of_masses(n))


def figure_of_masses(n):
    """Title, figure and caption: assignment mass against the length of the queries, on the circle, d = 2."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    lengths = np.geomspace(0.1, 300, 40)
    for name, operator in (
        ("softmax", softmax),
        ("ReLU linear attention", lambda q, k: linear(q, k, feature_map=relu_map)),
        ("ELU + 1 linear attention", linear),
    ):
        axes.plot(lengths, [assignment_mass(operator(*on_a_circle(n, one))) for one in lengths], label=name)
    axes.axhline(2, color="black", ls=":", label="bound d = 2")
    axes.set_xscale("log")
    axes.set_xlabel("length of the queries")
    axes.set_ylabel("assignment mass of 16 tokens")
    axes.legend(frameon=False, fontsize="small")
    return "Softmax assigns, linear attention cannot", figure, "Keys on a circle, queries parallel to them, d = 2."


# -- A5: alternation ---------------------------------------------------------------------------------------------------

alternates = Claim(
    paper=PAPER,
    slug="alternation-is-local-and-global",
    where="Abstract, architecture",
    says="Alternating window attention and linear global attention lets every token reach every other, at a cost "
    "linear in the number of tokens; window attention without shift alone never leaves its windows.",
    formula=r"\mathrm{reach}(\mathrm{LWA}, \mathrm{LGA}) = \{1, \dots, N\}^2",
    gap="Reach by attention alone: the depthwise convolutions of the model cross windows too, three pixels at a time.",
)


@alternates.check("exact", scope="reach", controls={"window attention only": {"second": windows}})
def test_one_global_layer_connects_all_windows(evidence, *, second=lambda side, width: np.ones((side**2,) * 2, bool)):
    """Grids of 14 x 14 and 28 x 28 tokens in windows of 7 x 7: pairs not reached after a local and a second layer."""
    for side in (14, 28):
        local = windows(side, 7)
        missing = (~reachable(local, second(side, 7))).sum()
        evidence.expect("pairs not reached", int(missing), equals=0, error=0)


# -- A9: the clamp -----------------------------------------------------------------------------------------------------

clamp = Claim(
    paper=PAPER,
    slug="clamped-rows-are-bounded",
    where="Released code ('makes training stable')",
    says="With ReLU features and a denominator of at least 100 the weights are non-negative, finite also for a dead "
    "query, and each row sums to tau min(1, s / 100), where s is the row sum of the kernel.",
    formula=r"\sum_j A_{ij} = \tau \min\left(1, \frac{s_i}{100}\right), \quad A_{ij} \ge 0",
    gap="That the clamp improves ImageNet accuracy is not checked. It ties the weights to N: below s = 100, as on our "
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

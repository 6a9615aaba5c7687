"""Linear attention in vision transformers: what it can concentrate on (Zheng, L2ViT, 2025).

What the paper says. Empirically, linear attention cannot concentrate its distribution as softmax does.

Notation. d is the width of a head, n the number of tokens; phi(q) phi(k)^T over its row sums is linear attention. The
*assignment mass* of weights A is the largest sum of A_i,pi(i) over one-to-one pi: n for a permutation.

Scope. The empirical statement becomes a theorem here, which is ours: the mass is at most d, whatever the feature map,
as long as it is non-negative. What training does with it is in test_l2vit_lcm.py.
"""

from fractions import Fraction

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import elu_plus_one, linear, relu_map, softmax
from theory.operators.l2vit import assignment_mass, concentrating_features, factors, on_a_circle

PAPER = "zheng2025l2vit"
EPS = np.finfo(float).eps
unshrunk = settings(phases=(Phase.generate, Phase.target))  # a smaller seed is no simpler one
seeds = st.integers(0, 2**32 - 1)

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

"""What fixed wiring computes, and why it does not care about scale (Back de Luca et al., ICML 2025).

What the paper says. Parallel algorithms for prefix sums, minima, sorting and maximum subarray communicate by position;
a positional Transformer can express them in about log2 n layers (Sections 1 and 7), and generalises to larger values.

Notation as in test_positional_attention.py; c is the factor by which inputs are scaled.

Scope. Weights written by theory.operators.wired_programs, in float64; training is in the file on training.
"""

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators import wired_programs
from theory.operators.positional_attention import Layer, forward, relu_network, standard_forward

PAPER = "backdeluca2025positional"
EPS = np.finfo(float).eps

UNSHRUNK = (Phase.generate, Phase.target)  # shrinking broken scans takes longer than all else

seeds = st.integers(0, 2**32 - 1)

# -- Programs ----------------------------------------------------------------------------------------------------------


def best_runs(x):
    """Largest sum of a non-empty run inside each prefix, by trying all runs."""
    sums = np.concatenate([[0.0], x.cumsum()])
    by_end = [max(sums[end] - sums[start] for start in range(end)) for end in range(1, len(sums))]
    return np.maximum.accumulate(by_end)


PROGRAMS = {
    "cumulative sum": (wired_programs.running_sum, np.cumsum),
    "cumulative minimum": (wired_programs.running_minimum, np.minimum.accumulate),
    "maximum subarray": (wired_programs.running_maximum_subarray, best_runs),
}
magnitudes = st.sampled_from([1e-3, 1.0, 1e3])

programs = Claim(
    paper=PAPER,
    slug="algorithms-with-fixed-wiring",
    where="Section 1, Section 7 (tasks), figure of the binary tree",
    says="Positional Transformers compute cumulative sums, minima and maximum subarrays of n numbers in ceil(log2 n) "
    "layers, and sort 2^k numbers in k (k + 1) / 2.",
    formula=r"L = \lceil \log_2 n \rceil, \quad L_{\text{sort}} = \tfrac{1}{2} k (k + 1)",
    gap="No program for the running median. The sort is bitonic: at n = 8 it has 6 layers where the trained models "
    "have 4.",
)


@programs.check(
    "property",
    controls={
        "every step one too long": {"step": lambda step: step + 1},
        "every step doubled": {"step": lambda step: 2 * step},
    },
)
@settings(phases=UNSHRUNK)
@given(n=st.integers(2, 40), c=magnitudes, seed=seeds)
def test_scans_take_logarithmically_many_layers(evidence, n, c, seed, *, step=lambda step: step):
    """Hillis-Steele scans as attention weights and ReLU networks, against the plain definitions."""
    x = c * np.random.default_rng(seed).uniform(-2, 2, n)
    for name, (build, reference) in PROGRAMS.items():
        program = build(n, step)
        # Each of log2 n layers adds a few numbers of the size of a sum, with a dozen roundings.
        budget = 16 * len(program.layers) * EPS * abs(x).sum()
        evidence.expect(
            f"{name}: error over the sum of |x|",
            (program(x) - reference(x)) / abs(x).sum(),
            equals=0,
            error=budget / abs(x).sum(),
        )
        evidence.expect(
            f"{name}: layers minus ceil(log2 n)", len(program.layers) - int(np.ceil(np.log2(n))), equals=0, error=0
        )


@programs.check("property", scope="sorting", controls={"last comparators reversed": {"flip": True}})
@settings(phases=UNSHRUNK)
@given(k=st.integers(1, 5), c=magnitudes, seed=seeds)
def test_bitonic_sort_is_a_positional_transformer(evidence, k, c, seed, *, flip=False):
    """One word, four heads; a head of a node that does not use it points at the null node."""
    x = c * np.random.default_rng(seed).uniform(-2, 2, 2**k)
    program = wired_programs.sort(2**k, flip)
    budget = 8 * len(program.layers) * EPS * abs(x).max()
    evidence.expect(
        "error over the largest |x|", (program(x) - np.sort(x)) / abs(x).max(), equals=0, error=budget / abs(x).max()
    )
    evidence.expect("layers minus k (k + 1) / 2", len(program.layers) - k * (k + 1) // 2, equals=0, error=0)


# -- Scale -------------------------------------------------------------------------------------------------------------


def random_layers(draw, n, d, depth, bias):
    """Random layers of two heads, with norms near 1, so that nothing explodes; `bias` scales the biases of Phi."""
    layers = []
    for _ in range(depth):
        maps = [(draw.standard_normal((3 * d, 2 * d)) / np.sqrt(3 * d), bias * draw.standard_normal(2 * d)),
                (draw.standard_normal((2 * d, d)) / np.sqrt(2 * d), bias * draw.standard_normal(d))]  # fmt: skip
        width = max(n, d)
        queries, keys = draw.standard_normal((2, 2, width, width))
        layers.append(Layer(queries, keys, draw.standard_normal((2, d, d)) / np.sqrt(d), maps))
    return layers


def with_positions(layers, x):
    """P = I, cut or padded to the width of the queries."""
    return forward(layers, np.eye(len(x), layers[0].queries.shape[1]), x)


def with_tokens(layers, x):
    """Standard attention: tokens padded to the width of the queries ask and are asked."""
    for layer in layers:
        wide = np.pad(x, ((0, 0), (0, layer.queries.shape[1] - x.shape[1])))
        values = np.pad(layer.values, ((0, 0), (0, wide.shape[1] - x.shape[1]), (0, 0)))
        phi = layer.phi
        x = standard_forward(
            [
                Layer(
                    layer.queries,
                    layer.keys,
                    values,
                    lambda z, phi=phi, d=x.shape[1], w=wide.shape[1]: _drop(z, phi, d, w),
                )
            ],
            wide,
        )
    return x


def _drop(z, phi, d, width):
    return relu_network(phi, np.concatenate([z[..., :-width], z[..., -width:][..., :d]], axis=-1))


scale = Claim(
    paper=PAPER,
    slug="scale-free-without-biases",
    where="Section 7 (value generalisation; the mechanism is our reading)",
    says="A positional Transformer without biases is positively homogeneous, as are all five tasks: its error at "
    "inputs c x is c times that at x, so that its relative error is the same at every range of values.",
    formula=r"f(c x) = c f(x) \quad (c > 0)",
    gap="The trained models have biases; how little these matter out of distribution is measured, not proved.",
)


@scale.check("property", controls={"standard attention": {"network": with_tokens}, "biases in Phi": {"bias": 1.0}})
@settings(phases=UNSHRUNK)
@given(n=st.integers(2, 6), d=st.integers(1, 4), depth=st.integers(1, 4), exponent=st.floats(-3, 3), seed=seeds)
def test_outputs_scale_with_inputs(evidence, n, d, depth, exponent, seed, *, network=with_positions, bias=0.0):
    """Random positional Transformers, c between 1e-3 and 1e3."""
    draw = np.random.default_rng(seed)
    layers, x, c = random_layers(draw, n, d, depth, bias), draw.uniform(-2, 2, (n, d)), 10.0**exponent
    reach = 2.0
    for layer in layers:  # what the absolute values of all weights make of inputs of size 2
        (first, _), (second, _) = layer.phi
        mixed = abs(layer.values).sum(axis=1).max() * reach
        reach = abs(second).sum(axis=0).max() * abs(first).sum(axis=0).max() * max(mixed, reach)
    budget = 32 * depth * (n + d) * EPS * reach
    evidence.expect(
        "f(c x) / c minus f(x), over its reach",
        (network(layers, c * x) / c - network(layers, x)) / reach,
        equals=0,
        error=budget / reach,
    )


@scale.check(
    "property", scope="the tasks", controls={"sum of squares": {"more": {"squares": lambda x: (x**2).cumsum()}}}
)
@settings(phases=UNSHRUNK)
@given(n=st.integers(2, 16), exponent=st.integers(-8, 8), seed=seeds)
def test_the_tasks_and_their_programs_scale_with_the_input(evidence, n, exponent, seed, *, more=None):
    """Powers of two are exact factors in float64: the difference is zero, not small."""
    x, c = np.random.default_rng(seed).uniform(-2, 2, n), 2.0**exponent
    tasks = {name: reference for name, (_, reference) in PROGRAMS.items()} | {"sort": np.sort, **(more or {})}
    tasks["running median"] = lambda x: np.array([np.median(x[: i + 1]) for i in range(len(x))])
    for task in [*tasks.values(), *(build(n) for build, _ in PROGRAMS.values())]:
        evidence.expect("f(c x) - c f(x)", task(c * x) - c * task(x), equals=0, error=0)

"""Magnitude-aware linear attention: its cost (Fan, Huang, Ai, He, ICCV 2025).

What the paper says. Linear attention has the form of softmax attention at a cost linear in the number N of tokens
(abstract); MALA stays linear, as it is computed from phi(K)^T V and sum V (section 4).

Notation. As in test_mala.py; z is the row sum in beta and gamma.

Scope. Operations and memory of the operators themselves, counted, and seconds where there is a GPU: of plain PyTorch
and of our kernel, benchmarks/kernels/mala.py, forward, one sequence of 8 heads of 32, 64 and 128 in bfloat16. Slopes
are of medians, by least squares over the lengths from N = 8192 on that were timed. What the released backbones cost is
in test_mala_code.py.
"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import linear, linear_output, mala, mala_output, softmax
from theory.operators.mala import identity

PAPER = "fan2025mala"


def quadratic_linear(q, k, v, **given):
    """Linear attention with its N x N matrix written out."""
    return linear(q, k, **given) @ v


def quadratic(q, k, v, **given):
    """MALA with its N x N matrix written out."""
    return mala(q, k, **given) @ v


def rational(sizes, entries):
    """q (n, d), k (m, d) and v (m, d) of positive Fractions."""
    n, m, d = sizes
    numbers = np.resize(np.array([Fraction(x + 1, 3) for x in entries], dtype=object), (n + 2 * m) * d)
    q, k, v = np.split(numbers, [n * d, (n + m) * d])
    return q.reshape(n, d), k.reshape(m, d), v.reshape(m, d)


def growth(output, N):
    """Operations at 2 N tokens over those at N, d = 64, in matrix products as PyTorch counts them."""
    from empirical.operators.mala import operations

    return Fraction(operations(output, 2 * N, 64), operations(output, N, 64))


some_sizes = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
some_entries = st.lists(st.integers(0, 9), min_size=9, max_size=9)

linear_form = Claim(
    paper=PAPER,
    slug="linear-attention-in-linear-time",
    where="Abstract",
    says="Linear attention has the form of softmax attention, a positive similarity over its row sum, phi(q).phi(k) in "
    "place of the exponential; its output costs a number of operations linear in the number N of tokens.",
    formula=r"Y = \frac{\phi(q) \left(\sum_m \phi(k_m)^\top v_m\right)}{\phi(q) \sum_m \phi(k_m)^\top}",
    gap="Operations, not seconds or memory.",
)


@linear_form.check(
    "property",
    scope="equality",
    controls={"without the norm": {"output": lambda q, k, v, feature_map: q @ (k.T @ v)}},
)
@given(sizes=some_sizes, entries=some_entries)
def test_linear_attention_is_its_matrix_times_the_values(evidence, sizes, entries, *, output=linear_output):
    """Rational features of up to 6 queries, 6 keys and 3 channels: rows of the matrix sum to 1, both orders agree."""
    q, k, v = rational(sizes, entries)
    A = linear(q, k, feature_map=identity)
    evidence.expect("least weight", A, at_least=0)
    evidence.expect("row sum", A.sum(-1), equals=1, error=0)
    evidence.expect("difference of the two orders", output(q, k, v, feature_map=identity) - A @ v, equals=0, error=0)


@linear_form.check("exact", scope="operations", controls={"N x N matrix first": {"output": quadratic_linear}})
def test_linear_attention_doubles_its_operations_with_the_tokens(evidence, *, output=linear_output):
    """d = 64, N = 196 to 50176: twice N costs twice as much."""
    for N in (196, 784, 3136, 50_176):
        evidence.expect("operations of 2 N over N", growth(output, N), equals=2, error=0)


linear_cost = Claim(
    paper=PAPER,
    slug="output-in-linear-time",
    where="Abstract, Section 4",
    says="MALA's output equals beta phi(q) (phi(K)^T V) - gamma sum V, at a cost linear in the number N of tokens.",
    formula=r"Y = \beta\, \phi(q) \left(\sum_m \phi(k_m)^\top v_m\right) - \gamma \sum_m v_m",
    gap="Operations; seconds are the claim time-is-linear-in-tokens.",
)


@linear_cost.check(
    "property",
    scope="equality",
    controls={"first value added": {"output": lambda q, k, v, **rest: mala_output(q, k, v, **rest) + v[0]}},
)
@given(sizes=some_sizes, entries=some_entries)
def test_both_orders_agree_in_exact_arithmetic(evidence, sizes, entries, *, output=mala_output):
    """Rational features of up to 6 queries, 6 keys and 3 channels: the linear form and the N x N matrix times V."""
    q, k, v = rational(sizes, entries)
    off = output(q, k, v, feature_map=identity) - quadratic(q, k, v, feature_map=identity)
    evidence.expect("difference of the two orders", off, equals=0, error=0)


@linear_cost.check("exact", scope="operations", controls={"N x N matrix first": {"output": quadratic}})
def test_doubling_the_tokens_doubles_the_operations(evidence, *, output=mala_output):
    """d = 64, N = 196 to 50176: twice N costs twice as much, two operations for each of N d (2 d + 1) multiply-adds."""
    from empirical.operators.mala import operations

    for N in (196, 784, 3136, 50_176):
        evidence.expect("operations of 2 N over N", growth(output, N), equals=2, error=0)
        once = Fraction(operations(output, N, 64), 2 * N * 64 * (2 * 64 + 1))
        evidence.expect("operations over 2 N d (2 d + 1)", once, equals=1, error=0)
    matrix, kernel = operations(lambda q, k, v: softmax(q, k) @ v, 3136, 64), operations(output, 3136, 64)
    evidence.note(f"N = 3136, d = 64: softmax needs {matrix / kernel:.1f} times the operations of MALA.")


def made(output, N, d=64):
    """Bytes of everything that an output writes down from q, k and v (N, d), on no device."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    total = 0

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal total
            results = function(*args, **kwargs or {})
            given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
            new = [x for x in tree_leaves(results) if isinstance(x, torch.Tensor) and not function.is_view]
            total += sum(x.nbytes for x in new if id(x.untyped_storage()) not in given)
            return results

    with Count():
        output(*(torch.empty(N, d, device="meta") for _ in range(3)))
    return total


memory = Claim(
    paper=PAPER,
    slug="memory-is-linear-in-tokens",
    where="Abstract, Section 4",
    says="The memory that MALA writes in its forward pass grows linearly with the number N of tokens, where that of "
    "softmax attention with its matrix written down grows with the square.",
    formula=r"M_{\mathrm{MALA}} = O(N), \quad M_{\mathrm{softmax}} = \Theta(N^2)",
    gap="Of plain PyTorch lines, one head of 64 channels; fused softmax kernels write no matrix and are linear, too.",
)


@memory.check("exact", scope="MALA", controls={"N x N matrix first": {"output": quadratic}})
def test_doubling_the_tokens_at_most_doubles_the_memory(evidence, *, output=mala_output):
    """N = 8192 to 65536: bytes of all tensors that are made, at 2 N over those at N."""
    for N in (8192, 16_384, 32_768):
        evidence.expect("bytes at 2 N over N", Fraction(made(output, 2 * N), made(output, N)), at_most=2)


@memory.check("exact", scope="softmax", controls={"phi(K)^T V first": {"output": mala_output}})
def test_doubling_the_tokens_nearly_quadruples_the_memory_of_softmax(
    evidence, *, output=lambda q, k, v: softmax(q, k) @ v
):
    """The same, at least 2^1.8."""
    for N in (8192, 16_384, 32_768):
        evidence.expect("bytes at 2 N over N", made(output, 2 * N) / made(output, N), at_least=2**QUADRATIC)


seconds = Claim(
    paper=PAPER,
    slug="time-is-linear-in-tokens",
    where="Abstract, Section 4",
    says="The time of MALA on a GPU grows linearly with the number N of tokens.",
    formula=r"\frac{d \log t}{d \log N} \le 1.2",
    gap="Of the kernel from N = 8192 to 65536, a slope of medians on one GPU; of plain lines, whether the slope is "
    "nearer to 1 than to 2.",
)


@seconds.check("benchmark", scope="plain PyTorch", controls={"N x N matrix first": {"output": quadratic}})
def test_the_time_grows_with_a_power_nearer_to_one_than_to_two(evidence, *, output=mala_output):
    """Forward pass in float32 on a GPU, d = 64, 8 heads, N = 8k to 32k: slope of log time against log N below 3/2."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU: times of N = 8k to 32k tokens")
    from empirical.operators.mala import time_slope

    slope, times = time_slope(output, (8192, 16_384, 32_768), 64)
    evidence.note(f"Milliseconds at N = 8192, 16384, 32768: {', '.join(f'{1e3 * t:.3f}' for t in times)}.")
    evidence.expect("slope of log time against log N", slope, less_than=("half-way to quadratic", 1.5))


LINEAR, QUADRATIC = 1.2, 1.8
"""Slopes up to and from which a cost counts as linear and as quadratic: a fifth of a power off."""
LONG, WIDTHS = 8192, (32, 64, 128)
"""Fewest tokens of a slope: below, starting kernels takes as long as running them."""


def long_cases(bench, width):
    """Record of the kernel, and its forward cases of a width from LONG on."""
    record = bench("mala")
    return record, [row for row in record.select(width=width, backward=False) if record.length(row) >= LONG]


def slope(bench, contender, width):
    """Slope of log time against log N, and milliseconds at each N; at least two lengths must have been timed."""
    from benchmarks.records import Absent

    record, rows = long_cases(bench, width)
    times = {record.length(row): row.times[contender].median for row in rows if contender in row.times}
    if len(times) < 2:
        raise Absent(f"needs times of '{contender}' at two lengths or more from {LONG} on, width {width}")
    return np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0], times


def expect_slope(evidence, bench, contender, **bound):
    for width in WIDTHS:
        found, times = slope(bench, contender, width)
        evidence.note(f"{contender}, d = {width}: {', '.join(f'{N:.0f}: {t:.3g} ms' for N, t in times.items())}.")
        evidence.expect("slope of log time against log N", found, **bound)


@seconds.check("benchmark", scope="kernel", controls={"N x N matrix first": {"contender": "materialised MALA"}})
def test_the_time_of_the_kernel_grows_linearly(evidence, bench, *, contender="fast"):
    """d = 32, 64, 128: at most 1.2 from N = 8192 to 65536."""
    expect_slope(evidence, bench, contender, at_most=LINEAR)


softmax_seconds = Claim(
    paper=PAPER,
    slug="softmax-time-is-quadratic-in-tokens",
    where="Abstract, Section 1",
    says="The time of softmax attention on a GPU grows with the square of the number N of tokens.",
    formula=r"\frac{d \log t}{d \log N} \ge 1.8",
    gap="With its matrix written down, at the lengths from N = 8192 on where it fits.",
)


@softmax_seconds.check("benchmark", controls={"MALA": {"contender": "fast"}})
def test_the_time_of_softmax_grows_with_the_square(evidence, bench, *, contender="materialised softmax"):
    """d = 32, 64, 128: at least 1.8."""
    expect_slope(evidence, bench, contender, at_least=QUADRATIC)


faster = Claim(
    paper=PAPER,
    slug="forward-faster-than-fused-softmax",
    where="Abstract, read as a statement about time",
    says="From 8192 tokens on, MALA's forward pass takes less time than the fused softmax kernels of PyTorch.",
    formula=r"t_{\mathrm{MALA}} < t_{\mathrm{softmax}}",
    gap="The operator alone, at equal shapes; the layer's gate and convolution are not in it. Our kernel on one GPU.",
)


@faster.check(
    "benchmark",
    controls={
        "N x N matrix first": {"fast": "materialised MALA"},
        "the two exchanged": {"fast": "SDPA/cudnn", "baselines": ("fast",)},
    },
)
def test_it_takes_less_time_than_each_fused_softmax_kernel(
    evidence, bench, *, fast="fast", baselines=("SDPA/flash", "SDPA/cudnn")
):
    """d = 32, 64, 128, N = 8192 to 65536: upper end of the interval of the two times below 1."""
    for width in WIDTHS:
        record, rows = long_cases(bench, width)
        for row in rows:
            for slow in baselines:
                found = record.ratio(row.case, slow, fast)
                evidence.expect("time over the baseline's", 1 / found.low, less_than=1)
                evidence.note(f"d = {width}, N = {record.length(row):.0f}: {found.median:.1f} times {slow}.")

"""Sparse-linear attention: the speed of its kernel (Zhang et al., 2025).

What the paper says. At 95 % sparsity the kernel is 13.7 times faster than FlashAttention-2 forward and 6.8 times
backward (abstract, efficiency figure), on an RTX 5090. The released benchmark gives the kernel its map of blocks and
its features ready-made and leaves out the projection. Within the pipeline attention takes 11 s in place of 97 s.

Notation. `high` and `low` are k_h and k_l in per cent; k_h = 5 % is the paper's 95 % sparsity.

Scope. Our own kernel, benchmarks/kernels/sla.py, on the GPU of the run: one batch, 12 heads of 128, N = 32768 tokens,
bfloat16, blocks of 128 queries and 64 keys, k_h = 5 % (25 of 512 blocks), k_l = 10 %, random normal inputs, the paper's
operator with both branches. Features and states are always timed; what else is, each claim says. Baselines are
PyTorch's with the backend pinned: "flash" is FlashAttention-2. Medians of rounds with 99 % intervals.
"""

from reports.claim import Claim

PAPER = "zhang2025sla"
FORWARD, BACKWARD, PIPELINE = 13.7, 6.8, 97 / 11
"""The paper's ratios, as printed."""


def case(high, **changes):
    """Label of a timed case with `high` per cent of the blocks critical."""
    from dataclasses import replace

    from benchmarks.sla import TIMED

    return replace(TIMED, high=high, low=min(10, 100 - high), **changes).label


def judge(evidence, bench, slow, fast, high, *, least=None, below=None, **changes):
    """Expect the whole interval of a ratio of times at or above `least`, or below `below`."""
    found = bench("sla").ratio(case(high, **changes), slow, fast)
    bound = {"at_least": least} if below is None else {"less_than": below}
    value = found.low if below is None else found.high
    evidence.expect(f"time of {slow} over {fast}", value, interval=(found.low, found.high), **bound)
    evidence.note(f"Median of {slow} over {fast}: {found.median:.2f}.")


TWENTY = {"20 % of the blocks": {"high": 20}}

forward = Claim(
    paper=PAPER,
    slug="forward-faster",
    where="Abstract; efficiency figure",
    says="Given its map, the kernel's forward pass is 13.7 times faster than FlashAttention-2 at 95 % sparsity.",
    formula=r"t_{\mathrm{FA2}} / t_{\mathrm{SLA}} \ge 13.7",
    gap="Another kernel on another GPU than the paper's; without map and projection; against the backend named, not "
    "the fastest there is.",
)


@forward.check("benchmark", controls=TWENTY)
def test_the_forward_pass_is_at_least_so_much_faster(evidence, bench, *, high=5):
    """N = 32768, paper's operator (critical, marginal, negligible): lower end of the interval at least 13.7."""
    judge(evidence, bench, "SDPA/flash", "fast", high, least=FORWARD)


@forward.check("benchmark", scope="fair comparison", controls={"5 % of the blocks": {"high": 5}})
def test_with_every_block_critical_it_is_not_faster_than_the_best_dense_kernel(evidence, bench, *, high=100):
    """The same kernel on all blocks: it gains by sparsity, so that it must lose against dense attention by cuDNN."""
    judge(evidence, bench, "SDPA/cudnn", "fast", high, below=1)


backward = Claim(
    paper=PAPER,
    slug="backward-faster",
    where="Abstract; efficiency figure",
    says="Given its map, the kernel's backward pass is 6.8 times faster than FlashAttention-2's at 95 % sparsity.",
    formula=r"t_{\mathrm{FA2}} / t_{\mathrm{SLA}} \ge 6.8",
    gap="Another kernel on another GPU than the paper's; the lists of the map's rows and columns are timed, the map "
    "and the projection are not.",
)


@backward.check("benchmark", controls=TWENTY)
def test_the_backward_pass_is_at_least_so_much_faster(evidence, bench, *, high=5):
    """N = 32768, gradients of q, k and v through both branches: lower end of the interval at least 6.8."""
    judge(evidence, bench, "SDPA/flash", "fast", high, least=BACKWARD, backward=True)


everything = Claim(
    paper=PAPER,
    slug="attention-in-the-pipeline-faster",
    where="Efficiency figure: attention takes 97 s with FlashAttention-2 and 11 s with SLA",
    says="The layer's forward pass, map, features and projection included, is 97 / 11 = 8.8 times faster than "
    "FlashAttention-2.",
    formula=r"t_{\mathrm{FA2}} / t_{\mathrm{layer}} \ge \tfrac{97}{11}",
    gap="One layer of our making on another GPU, not the paper's pipeline. Projections of q, k, v and output are in "
    "neither time.",
)


@everything.check("benchmark", controls=TWENTY)
def test_the_whole_layer_is_at_least_so_much_faster(evidence, bench, *, high=5):
    """N = 32768, with block map, features, states and O^s + O^l W^T + b: lower end of the interval at least 8.8."""
    judge(evidence, bench, "SDPA/flash", "with map and projection", high, least=PIPELINE)


strongest = Claim(
    paper=PAPER,
    slug="forward-faster-than-the-best-dense",
    where="Abstract, its baseline read as the fastest dense attention there is",
    says="Given its map, the kernel's forward pass is 13.7 times faster than the fastest dense attention in PyTorch.",
    formula=r"t_{\mathrm{cuDNN}} / t_{\mathrm{SLA}} \ge 13.7",
    gap="The paper compares with FlashAttention-2 alone and does not say this. cuDNN is the fastest backend PyTorch "
    "has on Hopper.",
)


@strongest.refutation(
    "benchmark", controls={"sparse branch alone, against FlashAttention-2": {"slow": "SDPA/flash", "linear": "none"}}
)
def test_it_is_not_so_much_faster_than_cudnn(evidence, bench, *, slow="SDPA/cudnn", linear="marginal"):
    """N = 32768: upper end of the interval below 13.7."""
    judge(evidence, bench, slow, "fast", 5, below=FORWARD, linear=linear)
    found = bench("sla").ratio(case(5, linear=linear), slow, "fast")
    evidence.counterexample("N = 32768, 12 heads of 128, k_h = 5 %", ratio=found.median)

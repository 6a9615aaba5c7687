"""What FlashSigmoid's tanh costs in accuracy (Ramapuram et al., 2024, section 4 and appendix F).

What the paper says. Its kernel computes sigmoid attention exactly; the sigmoid is taken as 1/2 + 1/2 tanh(z/2) with the
GPU's own tanh. It recommends b = -ln n, at which weights are about 1/n.

Notation. P = sigma(z) is a weight, z = s - ln n its score with offset, dP the error of its computation. What an output
inherits is sum |dP_j| over sum P_j: |o - o'| <= sum |dP_j| |v_j|.

Scope. Weights by themselves, in float32, scores s over the quantiles of a standard normal. The bound is what rounding
to bfloat16 costs any weight, 2^-8 of itself: so much is lost all the same when the weights meet the values.
"""

import pytest

from reports.claim import Claim

PAPER = "ramapuram2024theory"
HALF = 2.0**-8
"""Unit roundoff of bfloat16, eight significant bits."""
LENGTHS = tuple(2**power for power in range(9, 18))
"""512 to 131072 keys."""

small_weights = Claim(
    paper=PAPER,
    slug="tanh-keeps-small-weights",
    where="Section 4, appendix F: exact attention, through tanh; exact as half precision is, in our reading",
    says="With b = -ln n and the sigmoid taken through the GPU's tanh, what the weights lose is no more than bfloat16 "
    "loses anyway, for every n from 512 to 131072.",
    formula=r"\sum_j \lvert dP_j \rvert \le 2^{-8} \sum_j P_j",
    gap="Scores of one distribution; the error bound of outputs is that of values whose signs conspire. What training "
    "makes of it is not asked.",
    repair="The sigmoid is taken through an exponential and a reciprocal, exact or with one step of Newton, also in "
    "bfloat16.",
)


def lost(form, keys):
    """What an output inherits from a form of the sigmoid; not run without a GPU, which alone has the instructions."""
    torch = pytest.importorskip("torch", reason="needs torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU: evaluates its tanh; run `attest run --claim tanh-keeps-small-weights` there")
    pytest.importorskip("triton", reason="needs triton")
    from benchmarks.kernels.sigmoid_forms import inherited

    return inherited(form, keys)


@small_weights.refutation("benchmark", controls={"exponential and reciprocal": {"form": "divide"}})
def test_tanh_loses_more_than_half_precision_where_contexts_are_long(evidence, *, form="tanh"):
    """131072 keys: the error of tanh near -1 does not shrink with the weight."""
    found = {keys: lost(form, keys) for keys in LENGTHS}
    evidence.note(
        "Lost, as a share of the weights: " + ", ".join(f"n = {n}: {one:.2g}" for n, one in found.items()) + "."
    )
    evidence.expect("bfloat16's rounding over what is lost", HALF / found[LENGTHS[-1]], less_than=1)
    evidence.counterexample("Weights through the GPU's tanh", n=LENGTHS[-1], share_lost=found[LENGTHS[-1]])


@small_weights.check("benchmark", controls={"tanh": {"forms": ("tanh",)}})
def test_an_exponential_and_a_reciprocal_keep_small_weights(evidence, *, forms=("divide", "newton", "packed newton")):
    """512 to 131072 keys, the reciprocal exact, by Newton's step, and that in bfloat16."""
    for form in forms:
        for keys in LENGTHS:
            evidence.expect("share of the weights that is lost", lost(form, keys), at_most=HALF)
